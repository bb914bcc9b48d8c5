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

from relay.chatwoot.messages import as_dict, is_automatic, is_deleted, message_type, sender_type
from relay.text import valid_unicode

NOTE_KEY = "relay_idempotency_key"
"""The name in `content_attributes` under which a note carries its key; `source_id` holds the same key."""

_NO_REPLY = re.compile(r"(?:no|do-?not|never)[-_.]?reply|mailer-daemon|postmaster", re.IGNORECASE)


DELETED = "deleted message"
"""Why a message that its author deleted gets no draft."""


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
    def is_reply(self) -> bool:
        """True for what a person of the team wrote in public and did not delete: it answers the customer."""
        return self.author is Author.TEAM and self.no_draft != DELETED

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
        author=_author(one),
        text=as_text(one.get("content")).strip(),
        created_at=unix_seconds(one.get("created_at")),
        attachments=tuple(_attachment(item) for item in as_list(one.get("attachments")) if isinstance(item, dict)),
        keys=frozenset(value for value in (key, one.get("source_id")) if isinstance(value, str) and value),
        no_draft=_no_draft(one, attributes),
    )


def _author(one: dict[str, Any]) -> Author:
    kind = message_type(one.get("message_type"))
    if one.get("private") is True:
        return Author.NOTE
    if kind == "incoming":
        return Author.CUSTOMER if sender_type(one) in {"", "contact"} else Author.AUTOMATIC
    if kind == "activity":
        return Author.ACTIVITY
    return Author.AUTOMATIC if is_automatic(one) else Author.TEAM


def _no_draft(one: dict[str, Any], attributes: dict[str, Any]) -> str | None:
    if attributes.get("is_reaction") is True or one.get("content_type") == "reaction":
        return "reaction"
    if attributes.get("is_unsupported") is True:
        return "unsupported message"
    if is_deleted(one):
        return DELETED
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


def as_list(value: object) -> list[Any]:
    """`value` if it is an array, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """`value` if it is a text, with all that no UTF-8 can hold replaced; else an empty one."""
    return valid_unicode(value) if isinstance(value, str) else ""
