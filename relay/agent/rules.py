"""When a webhook gets a draft, and what ends one. Pure: values in, values out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from relay.agent.message import DELETED, Author

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from relay.agent.message import Message
    from relay.agent.webhook import ConversationState, Webhook
    from relay.settings import Settings

QUIET_WINDOWS = 3
"""A customer who keeps writing is waited for this many quiet windows at most, from the first message on."""

_SECOND = 1.0  # Chatwoot's times have no fractions


@dataclass(frozen=True, slots=True)
class Rules:
    """The team's wishes. Empty `inboxes` and `statuses` mean all; `assigned` None means both."""

    account_id: int
    inboxes: frozenset[int] = frozenset()
    statuses: frozenset[str] = frozenset()
    assigned: bool | None = None
    stop_label: str = ""
    forms: bool = False


def rules_of(settings: Settings) -> Rules:
    """The rules in the settings, whose Chatwoot account is set."""
    assert settings.chatwoot_account_id is not None
    statuses, assigned = settings.draft_when
    return Rules(
        account_id=settings.chatwoot_account_id,
        inboxes=settings.inboxes,
        statuses=statuses,
        assigned=assigned,
        stop_label=settings.agent_stop_label.lower(),
        forms=settings.agent_draft_forms,
    )


def ignored_because(webhook: Webhook, rules: Rules) -> str | None:
    """Why a webhook gets no draft, by what it says itself; None if it may get one."""
    if reason := account_ignored_because(webhook, rules) or no_message_because(webhook, forms=rules.forms):
        return reason
    if rules.inboxes and webhook.inbox_id not in rules.inboxes:
        return "another inbox"
    return state_ignored_because(webhook.state, rules)


def account_ignored_because(webhook: Webhook, rules: Rules) -> str | None:
    """`another account` for a webhook that names one; None for ours, and for one that names none."""
    return None if webhook.account_id in {None, rules.account_id} else "another account"


def no_message_because(webhook: Webhook, *, forms: bool) -> str | None:
    """Why a webhook brings no customer's message that a reply can be drafted to; None if it brings one."""
    if webhook.event != "message_created" and not (forms and webhook.is_form):
        return "not a new message"
    message = webhook.message
    if message is None:
        return "no message id"
    if message.author is not Author.CUSTOMER:
        return "not a customer's message"
    return "no conversation" if webhook.conversation_id is None else message.no_draft


def state_ignored_because(state: ConversationState, rules: Rules) -> str | None:
    """Why a conversation in this state gets no draft; None if it may get one. What is not known forbids nothing."""
    if state.blocked:
        return "blocked contact"
    if rules.stop_label and rules.stop_label in (state.labels or ()):
        return f"label {rules.stop_label}"
    if rules.statuses and state.status is not None and state.status not in rules.statuses:
        return f"conversation is {state.status}"
    if rules.assigned is not None and state.assigned not in {None, rules.assigned}:
        return "conversation is assigned" if state.assigned else "conversation is not assigned"
    return None


class Ended(Enum):
    """What ends a webhook without a draft of its own."""

    ANSWERED = auto()
    LEFT_TO_NEWER = auto()
    DELETED = auto()


def note_under(messages: Iterable[Message], keys: frozenset[str]) -> int | None:
    """The id of the private note that carries one of `keys`, if there is one."""
    return next((one.id for one in messages if one.author is Author.NOTE and one.keys & keys), None)


def ended_by(messages: Iterable[Message], message_id: int, anchor: int) -> Ended | None:
    """What the conversation's `messages` as they are now do to the draft for `message_id`; None: it is still wanted.

    What has an id above `anchor` came later: the message's own id, or for a form's answers, which change an older
    message, the newest id of the time.
    """
    here = list(messages)
    if any(one.id == message_id and one.no_draft == DELETED for one in here):
        return Ended.DELETED
    later = [one for one in here if one.id > anchor]
    if any(one.is_reply for one in later):
        return Ended.ANSWERED
    return Ended.LEFT_TO_NEWER if any(one.wants_draft for one in later) else None


def unanswered(before: Iterable[Message], newest: Message) -> list[Message]:
    """The customer's messages that wait for a reply: `newest`, and those before it since the team's last public one."""
    ordered = sorted(before, key=lambda one: one.id)
    last_reply = max((one.id for one in ordered if one.is_reply), default=0)
    return [*(one for one in ordered if one.wants_draft and one.id > last_reply), newest]


def quiet_wait_s(quiet_s: float, thread: Sequence[Message]) -> float:
    """How long to wait for more from the customer whose newest message ends `thread`.

    The quiet window, or what is left of `QUIET_WINDOWS` of them since the first message of those that followed each
    other within one. Chatwoot's whole seconds count in favour of an early end.
    """
    group = [one.created_at for one in unanswered(thread[:-1], thread[-1])]
    if group[-1] is None:
        return quiet_s
    newest = first = group[-1]
    for at in reversed(group[:-1]):
        if at is None or first - at > quiet_s + _SECOND:
            break
        first = min(first, at)
    elapsed = newest - first + _SECOND if newest > first else 0.0
    return max(0.0, min(quiet_s, QUIET_WINDOWS * quiet_s - elapsed))
