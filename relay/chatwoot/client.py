"""Chatwoot's API, as much of it as is needed: the one client for it (chatwoot/CONTRACT, "API used").

Typed, at most ten requests a second, retried where that can help: rate limits, its own failures, the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from relay.domain.retry import RETRIED_4XX, failure_of
from relay.errors import ConfigurationError, RelayError

if TYPE_CHECKING:
    from types import TracebackType

    from relay.settings import Settings

TOKEN_HEADER = "Api-Access-Token"  # noqa: S105 - the header's name
"""Rails reads this and `api_access_token` as one header; nginx drops the latter by default (CONTRACT, 2)."""

REQUESTS_A_SECOND = 10
_KEY = "relay_idempotency_key"
TIMEOUT_S = 10
ATTEMPTS = 3
_FIRST_PAUSE_S = 0.5


class ChatwootError(RelayError):
    """Chatwoot did not do what it was asked. `status` is its answer's, None if there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _Passing(ChatwootError):
    """Trying again may help."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """One of the account's webhooks: where it points and which events it sends."""

    url: str
    subscriptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. `key` is what a note of ours was posted under, None for all others."""

    id: int
    content: str
    incoming: bool
    private: bool
    key: str | None


class Chatwoot:
    """The account that `settings` name. Use it as an async context manager.

    `clock_ahead_s` is by how many seconds Chatwoot's clock was ahead of this machine's at its last answer
    (its `Date` header, to a second; RFC 9110 section 6.6.1), None before one.

    Raises:
        ConfigurationError: `CHATWOOT_BASE_URL`, `CHATWOOT_API_KEY` or `CHATWOOT_ACCOUNT_ID` is not set.
    """

    def __init__(self, settings: Settings) -> None:
        base, key, account = settings.chatwoot_base_url, settings.chatwoot_api_key, settings.chatwoot_account_id
        if base is None or key is None or account is None:
            raise ConfigurationError(
                "CHATWOOT_BASE_URL, CHATWOOT_API_KEY and CHATWOOT_ACCOUNT_ID must be set to ask Chatwoot"
            )
        self._client = httpx.AsyncClient(
            base_url=f"{base}/api/v1/accounts/{account}",
            headers={TOKEN_HEADER: key.get_secret_value()},
            timeout=TIMEOUT_S,
        )
        self._turn = asyncio.Lock()
        self._next_at = 0.0
        self.clock_ahead_s: float | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def webhooks(self) -> list[Webhook]:
        """The account's webhooks.

        Raises:
            ChatwootError: it does not answer, refuses, or answers something else.
        """
        answer = await self._ask("GET", "/webhooks")
        try:
            found = answer["payload"]["webhooks"]
            return [Webhook(str(one["url"]), tuple(str(name) for name in one["subscriptions"])) for one in found]
        except (KeyError, TypeError) as error:
            raise ChatwootError("Chatwoot's list of webhooks has not the form that is documented") from error

    async def messages(self, conversation_id: int) -> list[Message]:
        """A conversation's last messages, oldest first (Chatwoot gives twenty).

        Raises:
            ChatwootError: as for `webhooks`.
        """
        answer = await self._ask("GET", f"/conversations/{conversation_id}/messages")
        try:
            return [_message(one) for one in answer["payload"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ChatwootError("Chatwoot's list of messages has not the form that is documented") from error

    async def find_note(self, conversation_id: int, key: str) -> int | None:
        """The id of the private note that was posted under `key`, if there is one."""
        found = await self.messages(conversation_id)
        return next((message.id for message in found if message.private and message.key == key), None)

    async def post_private_note(self, conversation_id: int, content: str, key: str) -> int:
        """Post a private note, marked with `key`; returns its id. Never public, whatever is in it.

        Not tried again where it may have been posted all the same.

        Raises:
            ChatwootError: it was refused, or it is not known whether it was posted.
        """
        note = {
            "content": content,
            "message_type": "outgoing",
            "private": True,
            "content_attributes": {_KEY: key},
        }
        answer = await self._ask("POST", f"/conversations/{conversation_id}/messages", note)
        try:
            return int(answer["id"])
        except (KeyError, TypeError, ValueError) as error:
            raise ChatwootError("Chatwoot's answer to a new note has not the form that is documented") from error

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Passing),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=_FIRST_PAUSE_S),
            reraise=True,
        )
        return await retrying(self._once, method, path, body)

    async def _once(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        await self._wait_for_turn()
        try:
            answer = await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            nothing_was_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            kind = _Passing if method == "GET" or nothing_was_sent else ChatwootError
            raise kind(f"Chatwoot does not answer ({failure_of(error)})") from error
        self._note_clock(answer)
        if answer.is_success:
            try:
                return answer.json()
            except ValueError as error:
                raise ChatwootError("Chatwoot's answer is not JSON; is CHATWOOT_BASE_URL right?") from error
        status = answer.status_code
        if status in RETRIED_4XX or (status >= 500 and method == "GET"):
            raise _Passing(f"Chatwoot answered {status}", status)
        remedy = {401: "; check CHATWOOT_API_KEY", 404: "; check CHATWOOT_ACCOUNT_ID"}.get(status, "")
        raise ChatwootError(f"Chatwoot answered {status}{remedy}", status)

    async def _wait_for_turn(self) -> None:
        async with self._turn:
            now = time.monotonic()
            if now < self._next_at:
                await asyncio.sleep(self._next_at - now)
            self._next_at = max(now, self._next_at) + 1 / REQUESTS_A_SECOND

    def _note_clock(self, answer: httpx.Response) -> None:
        with contextlib.suppress(KeyError, ValueError, TypeError):
            theirs = parsedate_to_datetime(answer.headers["date"])
            self.clock_ahead_s = (theirs - datetime.now(UTC)).total_seconds() + 0.5


def _message(one: dict[str, Any]) -> Message:
    attributes = one.get("content_attributes")
    key = attributes.get(_KEY) if isinstance(attributes, dict) else None
    return Message(
        id=int(one["id"]),
        content=str(one.get("content") or ""),
        incoming=one.get("message_type") in {0, "incoming"},
        private=one.get("private") is True,
        key=key if isinstance(key, str) else None,
    )
