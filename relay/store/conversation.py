"""What consoles read of one conversation: its deliveries with the words of each message, their attempts, the notes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL

from relay.domain.delivery import State
from relay.store.database import fetched, rows_of
from relay.store.round_trip import together

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from relay.store.database import Connection

_READ_BYTES = 64 * 1024
"""Previews are read of bodies up to this size: a longer one would have to be parsed whole."""
_WORDS = 200
_MOST = 200
_MOST_ATTEMPTS = 1_000
_MOST_NOTES = 100


@dataclass(frozen=True, slots=True)
class MessagePreview:
    """Who wrote a delivery's message, and its beginning; None where the body does not say."""

    sender: str | None
    content: str | None


NO_PREVIEW = MessagePreview(None, None)


@dataclass(frozen=True, slots=True)
class Message:
    """A delivery of the conversation, with its words. `test` and `attempts` as in a list's row."""

    id: int
    delivery_id: str
    state: State
    event: str | None
    message_type: str | None
    sender: str | None
    content: str | None
    test: bool
    attempts: int | None
    final_status: str | None
    last_error: str | None
    received_at: datetime


@dataclass(frozen=True, slots=True)
class AttemptOf:
    """An attempt of the delivery `delivery`."""

    delivery: int
    run: int
    number: int
    started_at: datetime
    duration_ms: int
    status: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Note:
    """A note of the reference agent; `posted_at` is None until it is in Chatwoot."""

    draft: str
    created_at: datetime
    posted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """The newest deliveries of a conversation, oldest first; `more`: there are older ones."""

    messages: list[Message]
    attempts: list[AttemptOf]
    notes: list[Note]
    more: bool


# The body is parsed once a row; those that are too long are not.
_PAYLOAD = SQL("""
    CROSS JOIN LATERAL (
        SELECT CASE WHEN octet_length(d.body) <= {read_bytes} THEN relay.payload(d.body) END AS payload OFFSET 0) AS p
""").format(read_bytes=_READ_BYTES)
_SENDER = SQL("left(p.payload #>> '{{sender,name}}', {words})").format(words=_WORDS)
_CONTENT = SQL("left(p.payload ->> 'content', {words})").format(words=_WORDS)

_WORDS_OF = SQL("""
    SELECT d.id, {sender} AS sender, {content} AS content FROM relay.deliveries d {payload} WHERE d.id = ANY(%(ids)s)
""").format(sender=_SENDER, content=_CONTENT, payload=_PAYLOAD)


async def previews_of(connection: Connection, row_ids: Collection[int]) -> dict[int, MessagePreview]:
    """Return sender and first words of the deliveries, by row id. Reads their bodies: ask for each once."""
    if not row_ids:
        return {}
    cursor = await rows_of(connection, _with_id).execute(_WORDS_OF, {"ids": list(row_ids)})
    return dict(await cursor.fetchall())


def _with_id(*, id: int, sender: str | None, content: str | None) -> tuple[int, MessagePreview]:  # noqa: A002 - the column
    return id, MessagePreview(sender, content)


_MESSAGES = SQL("""
    SELECT d.id, d.delivery_id, d.state, d.event, p.payload ->> 'message_type' AS message_type, {sender} AS sender,
           {content} AS content, d.test, d.attempts, d.final_status, d.last_error, d.received_at
      FROM relay.deliveries d {payload}
     WHERE d.conversation_id = %(conversation)s ORDER BY d.id DESC LIMIT %(most)s
""").format(sender=_SENDER, content=_CONTENT, payload=_PAYLOAD)
_OF_THEM = """
    SELECT d.id, d.delivery_id FROM relay.deliveries d
     WHERE d.conversation_id = %(conversation)s ORDER BY d.id DESC LIMIT %(most)s
"""
_ATTEMPTS = SQL("""
    SELECT a.delivery, a.run, a.number, a.started_at, a.duration_ms, a.status, a.error
      FROM ({of_them}) AS m JOIN relay.attempts a ON a.delivery = m.id
     ORDER BY a.delivery, a.run, a.number LIMIT %(most_attempts)s
""").format(of_them=SQL(_OF_THEM))
_NOTES = SQL("""
    SELECT n.draft, n.created_at, n.posted_at FROM ({of_them}) AS m JOIN relay.notes n ON n.key = m.delivery_id
     ORDER BY n.created_at LIMIT %(most_notes)s
""").format(of_them=SQL(_OF_THEM))


async def read(connection: Connection, conversation_id: str) -> Conversation:
    """Return the conversation as far as deliveries of it are stored."""
    given = {
        "conversation": conversation_id, "most": _MOST, "most_attempts": _MOST_ATTEMPTS, "most_notes": _MOST_NOTES
    }  # fmt: skip
    messages, attempts, notes = await together(
        connection,
        fetched(connection, _message, _MESSAGES, given | {"most": _MOST + 1}),
        fetched(connection, AttemptOf, _ATTEMPTS, given),
        fetched(connection, Note, _NOTES, given),
    )
    return Conversation(messages[:_MOST][::-1], attempts, notes, more=len(messages) > _MOST)


def _message(*, state: str, **columns: Any) -> Message:
    return Message(state=State(state), **columns)
