"""What a model is asked: the conversation as turns, with true roles. Pure: values in, values out.

A customer's words are turns of their own, so that they are never part of an instruction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.agent.message import DELETED, Author
from relay.text import CUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.agent.message import Attachment, Message

CONTEXT_MESSAGES = 12
"""How many messages before the unanswered ones a model is shown."""

MESSAGE_CHARS = 4_000
_TOTAL_CHARS = 40_000
AUTOMATIC = "[automatic message] "
NOTHING_TO_READ = (
    "[No draft: there is nothing to read in the customer's message. It has no text, and no attachment that the agent "
    "knows of.]"
)

_NAMES = {
    "audio": "voice message",
    "image": "image",
    "video": "video",
    "location": "location",
    "contact": "contact card",
    "sticker": "sticker",
    "share": "shared post",
    "story_mention": "story mention",
    "ig_reel": "reel",
}


@dataclass(frozen=True, slots=True)
class Media:
    """What could be read of the attachments, by their place: (message id, number of the attachment).

    `images` are data URLs (RFC 2397).
    """

    transcripts: Mapping[tuple[int, int], str] = field(default_factory=dict)
    images: Mapping[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the conversation for a model. `role` is `user` or `assistant`."""

    role: str
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What to draft a reply to. The last turn is the customer's; there is none if nothing of it can be read."""

    name: str
    turns: tuple[Turn, ...]
    language: str = ""


def make_request(
    name: str, language: str, thread: Sequence[Message], group: Sequence[Message], media: Media
) -> Request:
    """The request for the unanswered messages in `group`, all of them in `thread`, which ends with the last of them.

    Private notes, activity lines and what was deleted are left out. What is too long is cut, the oldest first.
    """
    asked = {message.id for message in group}
    start = next(place for place, message in enumerate(thread) if message.id in asked)
    shown = [(message, _turn(message, media)) for message in thread[max(0, start - CONTEXT_MESSAGES) :]]
    turns = [turn for _, turn in shown if turn is not None]
    if not any(turn is not None for message, turn in shown if message.id in asked):
        return Request(name, (), language)
    while len(turns) > 1 and sum(len(turn.text) for turn in turns) > _TOTAL_CHARS:
        del turns[0]
    return Request(name, tuple(turns), language)


def _turn(message: Message, media: Media) -> Turn | None:
    if message.author in {Author.NOTE, Author.ACTIVITY} or message.no_draft == DELETED:
        return None
    text = message.text if len(message.text) <= MESSAGE_CHARS else message.text[:MESSAGE_CHARS] + CUT
    parts = [text] if text else []
    images = []
    for place, attachment in enumerate(message.attachments):
        key = (message.id, place)
        parts.append(described(attachment, media.transcripts.get(key, attachment.transcript)))
        images += [media.images[key]] if key in media.images else []
    if not parts:
        return None
    whole = "\n".join(parts)
    if message.author is Author.AUTOMATIC:
        return Turn("assistant", AUTOMATIC + whole)
    return Turn("user" if message.author is Author.CUSTOMER else "assistant", whole, tuple(images))


def described(attachment: Attachment, transcript: str = "") -> str:
    """An attachment in words: `[voice message, 9 kB]`, followed by what is said in it if that is known."""
    name = _NAMES.get(attachment.kind, "file")
    label = f"[{name}, {_size(attachment.size)}]" if attachment.size else f"[{name}]"
    return f"{label} transcript: {transcript[:MESSAGE_CHARS]}" if transcript else label


def _size(size: int) -> str:
    if size < 1_000:
        return f"{size} bytes"
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{round(size / 1_000)} kB"


def late_mark(created_at: float | None, now: float, late_after_s: float) -> str:
    """The line that marks a draft as late; empty if it is not, or if the message's age is not known."""
    age = 0.0 if created_at is None else now - created_at
    if age <= late_after_s:
        return ""
    minutes = int(age // 60)
    days, hours = divmod(minutes // 60, 24)
    text = f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
    return f"[Late draft: the customer wrote {text} ago]\n\n"
