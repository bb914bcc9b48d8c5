"""What keeps a webhook from getting its note, as the agent answers it: for good (4xx), or for now (502, 503).

The relay retries 5xx and ends a delivery that is answered 4xx at once. The answer's `error` is short and holds nothing
of a customer, so that the relay groups dead letters by it (DESIGN, "Forwarding").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.errors import RelayError, StoreUnavailable

if TYPE_CHECKING:
    from relay.chatwoot.client import ChatwootError

PERMANENT = 422
_PASSING_4XX = frozenset({408, 409, 425, 429})
_RETRY_S = 2.0
_STORE_RETRY_S = 5.0
_RATE_LIMIT_RETRY_S = 10.0
_TOO_MANY_MESSAGES = "Too many messages"  # CONVERSATION_MESSAGE_PER_MINUTE_LIMIT

_REMEDIES = {
    401: "check CHATWOOT_API_KEY: a user's access token, of a member of the conversation's inbox, is needed",
    403: "check CHATWOOT_API_KEY",
    404: "the conversation was deleted, or CHATWOOT_ACCOUNT_ID names another account",
}


class NoNote(RelayError):
    """No note was posted. `status` is the agent's answer, `retry_after_s` when another try makes sense, if ever."""

    def __init__(self, error: str, status: int = 502, *, retry_after_s: float | None = None, remedy: str = "") -> None:
        super().__init__(error)
        self.status = status
        self.retry_after_s = (retry_after_s or _RETRY_S) if status >= 500 else None
        self.remedy = remedy


class DraftFailed(NoNote):
    """The language model made no draft."""


class Busy(NoNote):
    """Another agent works on the same note."""

    def __init__(self) -> None:
        super().__init__("another agent drafts this note", 503, retry_after_s=1)


class Unsettled(NoNote):
    """A post of this note may still reach Chatwoot. Another one now could make a second note."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("Chatwoot did not say whether it has the note", 502, retry_after_s=max(1.0, retry_after_s))


def model_refused(status: int, retry_after_s: float | None = None) -> DraftFailed:
    """The failure that a model's HTTP status means."""
    error = f"model answered {status}"
    if status == 429:
        return DraftFailed(error, 503, retry_after_s=retry_after_s or _RATE_LIMIT_RETRY_S)
    if 400 <= status < 500 and status not in _PASSING_4XX:
        return DraftFailed(error, PERMANENT, remedy="check LLM_BASE_URL, LLM_API_KEY and LLM_MODEL")
    return DraftFailed(error, retry_after_s=retry_after_s)


def as_no_note(error: NoNote | ChatwootError | StoreUnavailable) -> NoNote:
    """`error` as the agent answers it."""
    if isinstance(error, NoNote):
        return error
    if isinstance(error, StoreUnavailable):
        return NoNote(str(error), 503, retry_after_s=_STORE_RETRY_S)
    status = error.status
    if status is None or status < 300:
        return NoNote(str(error))
    sentence = f"Chatwoot answered {status}"
    if status == 429:
        return NoNote(sentence, 503, retry_after_s=_RATE_LIMIT_RETRY_S)
    if error.said == _TOO_MANY_MESSAGES:
        return NoNote(f"{sentence}: too many messages", retry_after_s=_RATE_LIMIT_RETRY_S)
    if status < 500 and status not in _PASSING_4XX:
        return NoNote(sentence, PERMANENT, remedy=_REMEDIES.get(status, ""))
    return NoNote(sentence)
