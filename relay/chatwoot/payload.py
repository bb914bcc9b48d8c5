"""Reads a webhook's JSON body: checks that it is an object, and recognises customers' messages and private notes.

Knows nothing of HTTP, signatures or the store.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any

MAX_DEPTH = 200
"""Nesting beyond this is refused. Chatwoot's deepest payload has 6 levels; Rails itself stops at 100."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class BodyFault(StrEnum):
    """Why a body is refused: the `reason` of a `support.webhook.rejected` fact."""

    CORRUPT = "corrupt_encoding"
    EMPTY = "empty_body"
    NOT_UTF8 = "invalid_utf8"
    NOT_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    TOO_DEEP = "nested_too_deep"


_SENTENCES = {
    BodyFault.CORRUPT: "The body is not a whole stream of its Content-Encoding",
    BodyFault.EMPTY: "The body is empty; a JSON object was expected",
    BodyFault.NOT_UTF8: "The body is not valid UTF-8",
    BodyFault.NOT_JSON: "The body is not valid JSON",
    BodyFault.NOT_AN_OBJECT: "The body is JSON, but not an object",
    BodyFault.TOO_DEEP: f"The body is nested more than {MAX_DEPTH} levels deep",
}


class BadBody(ValueError):
    """The body is not a JSON object. `fault` is the reason to count, `str()` the answer to the sender."""

    def __init__(self, fault: BodyFault) -> None:
        super().__init__(_SENTENCES[fault])
        self.fault = fault


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Numbers too long for an int or a float come back as their text.

    Raises:
        BadBody: it is empty, not UTF-8, not JSON (RFC 8259: `NaN` is not), not an object or too deep.
    """
    if not body.strip():
        raise BadBody(BodyFault.EMPTY)
    if _deeper_than(body, MAX_DEPTH):
        raise BadBody(BodyFault.TOO_DEEP)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise BadBody(BodyFault.NOT_UTF8) from None
    try:
        payload = json.loads(text, parse_int=_integer, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BadBody(BodyFault.NOT_JSON) from None
    if not isinstance(payload, dict):
        raise BadBody(BodyFault.NOT_AN_OBJECT)
    return payload


def _integer(text: str) -> int | str:
    return int(text) if len(text) <= 30 else text


def _refuse_constant(text: str) -> None:
    raise ValueError(text)


def _deeper_than(body: bytes, limit: int) -> bool:
    """True if arrays and objects nest more than `limit` deep. Counts first: most bodies need no more."""
    if body.count(b"{") + body.count(b"[") <= limit:
        return False
    depth = 0
    for match in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if match.group() in b"[{" else -1
        if depth > limit:
            return True
    return False


def _is(message_type: object, word: str, number: int) -> bool:
    """True if Chatwoot's message type, a word or a number, is the one that both name (CONTRACT)."""
    return message_type == word or (message_type == number and not isinstance(message_type, bool))


def is_from_customer(event: object, payload: dict[str, Any]) -> bool:
    """True for a new message that a contact wrote: incoming (as a word or a number), and not a private note."""
    if event != "message_created" or payload.get("private") is True:
        return False
    sender = payload.get("sender")
    kind = sender.get("type") if isinstance(sender, dict) else None
    return _is(payload.get("message_type"), "incoming", 0) and (kind is None or kind == "contact")


def is_private_note(event: object, payload: dict[str, Any]) -> bool:
    """True for what an agent wrote for other agents: a message that is private and outgoing."""
    is_message = isinstance(event, str) and event.startswith("message_")
    return is_message and payload.get("private") is True and _is(payload.get("message_type"), "outgoing", 1)
