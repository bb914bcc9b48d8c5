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

_BEGINNING = 16 * 1024
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")

_MOST_DIGITS = 4_000
"""Python makes no int of more than 4,300 digits."""


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

    Runs no Python for each value, bracket or string: in 32 MiB of them that would stop the event loop for many seconds.

    Raises:
        BadBody: it is empty, not UTF-8, not JSON (RFC 8259: `NaN` is not), not an object or too deep.
    """
    if not body.strip():
        raise BadBody(BodyFault.EMPTY)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise BadBody(BodyFault.NOT_UTF8) from None
    try:
        payload = _loaded(text)
    except RecursionError:
        raise BadBody(BodyFault.TOO_DEEP) from None
    except ValueError:
        raise BadBody(BodyFault.TOO_DEEP if _begins_deep(body) else BodyFault.NOT_JSON) from None
    if not isinstance(payload, dict):
        raise BadBody(BodyFault.NOT_AN_OBJECT)
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _is_deeper(payload, MAX_DEPTH):
        raise BadBody(BodyFault.TOO_DEEP)
    return payload


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError:
        raise
    except ValueError:  # NaN, or a number with too many digits for an int
        return json.loads(text, parse_int=_integer, parse_constant=_refuse_constant)


def _integer(text: str) -> int | str:
    return int(text) if len(text) <= _MOST_DIGITS else text


def _refuse_constant(text: str) -> None:
    raise ValueError(text)


def _begins_deep(body: bytes) -> bool:
    """True if what is no JSON begins with more than `MAX_DEPTH` arrays and objects, one in another."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", body[:_BEGINNING])):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(depth, deepest)
    return deepest > MAX_DEPTH


def _is_deeper(value: dict[str, Any], limit: int) -> bool:
    """True if arrays and objects nest more than `limit` deep, `value` among them."""
    level: list[Any] = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True


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
