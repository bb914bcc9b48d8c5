"""Draws a conversation as a timeline: messages, the attempts to deliver each, and the agent's notes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from console.render import formatting
from console.render.line import Line
from relay.domain.format import day_clock, exact_clock, milliseconds
from relay.text import clean

if TYPE_CHECKING:
    from datetime import datetime

    from relay.store.conversation import AttemptOf, Conversation, Message, Note

_MUTED = "$text-muted"
_ROOMY = 78
"""Narrower lines leave out the event beside the words of a message, and most of the indentation."""


def words(sender: str | None, content: str | None, limit: int) -> str:
    """Return sender and first words on one line, at most `limit` characters; empty if neither is known."""
    said = " ".join((content or "").split())
    text = f"{sender}: {said}" if sender and said else sender or said
    return clean(text, limit=None)[:limit]


def timeline(conversation: Conversation, now: datetime, width: int) -> list[Line]:
    """Return the lines of a timeline, in order of time. The key of a line is its delivery's row id and its place."""
    moments: list[tuple[datetime, int, list[Content]]] = [
        (message.received_at, message.id, _message(message, conversation.attempts, now, width))
        for message in conversation.messages
    ]
    moments += [(note.posted_at or note.created_at, 0, [_note(note, now, width)]) for note in conversation.notes]
    return [
        Line((row_id, moment.timestamp(), place), content.truncate(width, ellipsis=True))
        for moment, row_id, contents in sorted(moments, key=lambda one: (one[0], one[1]))
        for place, content in enumerate(contents)
    ]


def _message(message: Message, attempts: list[AttemptOf], now: datetime, width: int) -> list[Content]:
    said = words(message.sender, message.content, width)
    event = "" if said and width < _ROOMY else f"{clean(message.event or '–', limit=40)}  "
    head = Content.assemble(
        (f" {day_clock(message.received_at, now):<8}  ", _MUTED),
        (f"{message.state.value:<10} ", formatting.STATE_STYLES[message.state]),
        event,
        ("TEST  " if message.test else "", "$text-warning"),
        (said, "bold"),
    )
    mine = [attempt for attempt in attempts if attempt.delivery == message.id]
    return [head, *(_attempt(attempt, width) for attempt in mine)]


def _attempt(attempt: AttemptOf, width: int) -> Content:
    indent = " " * (3 if width < _ROOMY else 11)
    start = Content.assemble(
        (f"{indent}{attempt.run}.{attempt.number}  {exact_clock(attempt.started_at)}  ", _MUTED),
        (attempt.status, "$text-error" if attempt.error else "$text-success"),
        (f"  {milliseconds(attempt.duration_ms)}", _MUTED),
    )
    error = clean(attempt.error or "", limit=120).removeprefix("Agent SDK ")
    if start.cell_length + 2 + len(error) > width:
        error = formatting.brief_cause(formatting.cause_beside_status(error))
    return start + Content.styled(f"  {error}" if error else "", _MUTED)


def _note(note: Note, now: datetime, width: int) -> Content:
    posted = "note" if note.posted_at is not None else "draft, not posted"
    return Content.assemble(
        (f" {day_clock(note.posted_at or note.created_at, now):<8}  ", _MUTED),
        (f"{posted:<10} ", "$text-accent"),
        words(None, note.draft, width),
    )
