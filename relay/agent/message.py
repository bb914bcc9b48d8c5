"""Chatwoot's messages as the agent reads them, from a webhook's top level and from the API's lists alike.

Sources: chatwoot/CONTRACT, "Webhooks it sends" and "API it answers"; app/views/api/v1/models/_message.json.jbuilder.
A field that is missing or has another type than documented counts as not given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum, auto
from typing import Any

from relay.text import valid_unicode

NOTE_KEY = "relay_idempotency_key"
"""The name in `content_attributes` under which a note carries its key; `source_id` holds the same key."""

_TYPES = ("incoming", "outgoing", "activity", "template")
_MACHINES = frozenset({"agent_bot", "agentbot", "captain_assistant", "captain::assistant"})
_AUTOMATION = frozenset({"automation_rule_id", "campaign_id"})
_NO_REPLY = re.compile(r"(?:no|do-?not|never)[-_.]?reply|mailer-daemon|postmaster", re.IGNORECASE)


class Author(StrEnum):
    """Who wrote a message."""

    CUSTOMER = auto()
    TEAM = auto()
    """A person of the support team, in public. A phone echo is one, although it names no sender."""
    AUTOMATIC = auto()
    """A template, an agent bot, an automation rule or a campaign, in public."""
    NOTE = auto()
    """True for a private note, of an agent or of a bot."""
    ACTIVITY = auto()
    """A line of Chatwoot's about the conversation ("Assigned to …")."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a message: Chatwoot's `file_type`, its bytes, where it can be read, and Chatwoot's own transcript."""

    kind: str
    size: int | None = None
    url: str | None = None
    transcript: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `created_at` is in unix seconds; `keys` are what a note of the agent may be recognised by.

    `no_draft` says why a customer's message gets no draft, None if it may get one.
    """

    id: int
    author: Author
    text: str
    created_at: float | None = None
    attachments: tuple[Attachment, ...] = ()
    keys: frozenset[str] = frozenset()
    no_draft: str | None = None

    @property
    def wants_draft(self) -> bool:
        """True for what a customer wrote, unless something in it says that no reply is wanted."""
        return self.author is Author.CUSTOMER and self.no_draft is None


def read_message(one: dict[str, Any]) -> Message | None:
    """The message in `one`; None without a usable id."""
    number = whole_number(one.get("id"))
    if number is None:
        return None
    attributes = as_dict(one.get("content_attributes"))
    key = attributes.get(NOTE_KEY)
    return Message(
        id=number,
        author=_author(one, attributes),
        text=as_text(one.get("content")).strip(),
        created_at=unix_seconds(one.get("created_at")),
        attachments=tuple(_attachment(item) for item in as_list(one.get("attachments")) if isinstance(item, dict)),
        keys=frozenset(value for value in (key, one.get("source_id")) if isinstance(value, str) and value),
        no_draft=_no_draft(one, attributes),
    )


def _author(one: dict[str, Any], attributes: dict[str, Any]) -> Author:
    kind = message_type(one.get("message_type"))
    if one.get("private") is True:
        return Author.NOTE
    sender = str(as_dict(one.get("sender")).get("type") or one.get("sender_type") or "").lower()
    if kind == "incoming":
        return Author.CUSTOMER if sender in {"", "contact"} else Author.AUTOMATIC
    if kind == "activity":
        return Author.ACTIVITY
    automatic = kind == "template" or sender in _MACHINES or bool(_AUTOMATION & attributes.keys())
    automatic |= "campaign_id" in as_dict(one.get("additional_attributes"))
    return Author.AUTOMATIC if automatic else Author.TEAM


def message_type(value: object) -> str | None:
    """Chatwoot's message type as a word, whether it came as a word or as a number."""
    if isinstance(value, str):
        return value
    number = whole_number(value)
    return _TYPES[number] if number is not None and number < len(_TYPES) else None


def _no_draft(one: dict[str, Any], attributes: dict[str, Any]) -> str | None:
    if attributes.get("is_reaction") is True or one.get("content_type") == "reaction":
        return "reaction"
    if attributes.get("is_unsupported") is True:
        return "unsupported message"
    if attributes.get("deleted") is True:
        return "deleted message"
    return "automatic mail" if _is_automatic_mail(one, as_dict(attributes.get("email"))) else None


def _is_automatic_mail(one: dict[str, Any], mail: dict[str, Any]) -> bool:
    if mail.get("auto_reply") is True:
        return True
    senders = mail.get("from")
    named = [as_text(item) for item in (as_list(senders) or [senders])]
    if as_dict(one.get("conversation")).get("channel") == "Channel::Email":
        named.append(as_text(as_dict(one.get("sender")).get("email")))
    return any(_NO_REPLY.search(name.rpartition("@")[0]) for name in named)


def _attachment(item: dict[str, Any]) -> Attachment:
    return Attachment(
        kind=as_text(item.get("file_type")) or "file",
        size=whole_number(item.get("file_size")),
        url=as_text(item.get("data_url")) or None,
        transcript=as_text(item.get("transcribed_text") or as_dict(item.get("meta")).get("transcribed_text")).strip(),
    )


def unix_seconds(value: object) -> float | None:
    """A point in time, given as unix seconds or in ISO 8601; None for anything else, and for 1970."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if 0 < value < 1e11 else None
    if not isinstance(value, str):
        return None
    if value.isascii() and value.isdigit():
        return unix_seconds(int(value[:12]))
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() or None


def whole_number(value: object) -> int | None:
    """`value` if it is a number that an id or a size can be: 0 or more, within a bigint."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def as_dict(value: object) -> dict[str, Any]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """`value` if it is an array, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """`value` if it is a text, with all that no UTF-8 can hold replaced; else an empty one."""
    return valid_unicode(value) if isinstance(value, str) else ""
