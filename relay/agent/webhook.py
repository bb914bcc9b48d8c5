"""Reads a webhook's payload: which message it brings, in which conversation, in what state that is."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from relay.agent.message import Author, as_list, as_text, read_message, whole_number
from relay.chatwoot.messages import as_dict

if TYPE_CHECKING:
    from relay.agent.message import Message

_NAME_CHARS = 100

NO_ACCOUNT = 0
"""The number of no account: they count from 1."""


@dataclass(frozen=True, slots=True)
class ConversationState:
    """What a team's rules read. None: not known."""

    status: str | None = None
    assigned: bool | None = None
    labels: frozenset[str] | None = None
    blocked: bool = False

    def updated(self, now: ConversationState) -> ConversationState:
        """This state with what is known of it `now`."""
        return ConversationState(
            status=now.status if now.status is not None else self.status,
            assigned=now.assigned if now.assigned is not None else self.assigned,
            labels=now.labels if now.labels is not None else self.labels,
            blocked=now.blocked or self.blocked,
        )

    def with_status(self, status: str | None) -> ConversationState:
        """This state with another `status`, if that is known."""
        return self if status is None else replace(self, status=status)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook's payload. `is_form` marks a customer's answers to a form, which are then the message's text.

    `account_id` is None for a payload that names no account, and `NO_ACCOUNT` for one whose account cannot be read.
    `name` and `language` are the customer's; the language is the browser's, as `pt-BR`.
    """

    event: str
    account_id: int | None
    conversation_id: int | None
    inbox_id: int | None
    message: Message | None
    state: ConversationState
    name: str = ""
    language: str = ""
    is_form: bool = False


def read_webhook(payload: dict[str, Any]) -> Webhook:
    """The webhook in `payload`."""
    conversation = as_dict(payload.get("conversation"))
    message = read_message(payload)
    answers = _form_answers(payload)
    if message is not None and answers:
        message = replace(message, author=Author.CUSTOMER, text=answers)
    browser = as_dict(as_dict(conversation.get("additional_attributes")).get("browser"))
    return Webhook(
        event=as_text(payload.get("event")),
        account_id=_account_id(payload),
        conversation_id=whole_number(conversation.get("id")) or None,
        inbox_id=whole_number(as_dict(payload.get("inbox")).get("id")) or whole_number(conversation.get("inbox_id")),
        message=message,
        state=_state(payload, conversation),
        name=as_text(as_dict(payload.get("sender")).get("name"))[:_NAME_CHARS],
        language=as_text(
            as_dict(conversation.get("additional_attributes")).get("browser_language")
            or browser.get("browser_language")
        )[:20],
        is_form=bool(answers),
    )


def _account_id(payload: dict[str, Any]) -> int | None:
    """The account's number, which may be digits in quotes."""
    account = payload.get("account")
    number = account.get("id") if isinstance(account, dict) else account
    if number is None:
        return None
    if isinstance(number, str) and re.fullmatch(r"[0-9]{1,18}", number):
        return int(number)
    return whole_number(number) or NO_ACCOUNT


def _state(payload: dict[str, Any], conversation: dict[str, Any]) -> ConversationState:
    meta = as_dict(conversation.get("meta"))
    return ConversationState(
        status=as_text(conversation.get("status")) or None,
        assigned=isinstance(meta["assignee"], dict) if "assignee" in meta else None,
        labels=frozenset(as_text(label).lower() for label in as_list(conversation.get("labels"))),
        blocked=any(as_dict(who).get("blocked") is True for who in (payload.get("sender"), meta.get("sender"))),
    )


def _form_answers(payload: dict[str, Any]) -> str:
    """A form's answers as lines of text (`content_attributes.submitted_values`); empty for all else.

    A satisfaction survey is no form: its answer is an object.
    """
    if payload.get("event") != "message_updated" or payload.get("private") is True:
        return ""
    lines = []
    for answer in as_list(as_dict(payload.get("content_attributes")).get("submitted_values")):
        label = as_text(as_dict(answer).get("name")) or as_text(as_dict(answer).get("title"))
        value = as_text(as_dict(answer).get("value"))
        lines += [f"{label}: {value}" if label and label != value else value] if label or value else []
    return "\n".join(lines)
