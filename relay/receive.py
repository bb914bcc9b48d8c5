"""From an HTTP request's headers and body to a `Receipt`: JSON check and reading of the few fields used.

Knows nothing of Quart, signatures or the store. The body is checked to be a JSON object and then kept
as the bytes that came: nothing is ever re-serialised on its way to the agent.
"""

from __future__ import annotations

import json
import re
import uuid
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from relay.delivery import Headers, Receipt
from relay.signature import DELIVERY_HEADER

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_DEPTH = 200
"""Nesting beyond this is refused. Chatwoot's deepest payload has 6 levels; Rails itself stops at 100."""

FORWARDED_FROM_HEADER = "x-forwarded-from"
TEST_SENDER = "chatwoot-test"
TEST_HEADER = "x-relay-test"
"""What tells the Agent SDK of a test webhook: `POST_TEST`, or `true`. Of any other webhook it is not passed on."""

POST_TEST = "post"
"""The value with which a test webhook asks for its draft to be posted."""

_FIELD_CHARS = 200
_DELIVERY_ID = re.compile(r"[\x21-\x7e]{1,200}")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class BodyFault(StrEnum):
    """Why a body is refused: the `reason` of a `support.webhook.rejected` fact."""

    EMPTY = "empty_body"
    NOT_UTF8 = "invalid_utf8"
    NOT_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    TOO_DEEP = "nested_too_deep"


_SENTENCES = {
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


def read_receipt(headers: Headers, body: bytes, forwarded: Collection[str] = ()) -> Receipt:
    """The receipt of a webhook with these `headers` (names in lower case) and this raw `body`.

    It is ignored if it is a private note that comes back (CONTRACT, "loops"), or if events are named that are
    `forwarded`, and it is none of them.

    A delivery id that is missing, or is not 1 to 200 visible ASCII characters, is replaced by a fresh
    UUID: such a webhook is never a duplicate (DESIGN, 1).

    Raises:
        BadBody: the body is not a JSON object.
    """
    payload = parse_object(body)
    given = first_header(headers, DELIVERY_HEADER) or ""
    event = payload.get("event")
    return Receipt(
        delivery_id=given if _DELIVERY_ID.fullmatch(given) else str(uuid.uuid4()),
        headers=headers,
        body=body,
        event=_field_text(event),
        conversation_id=_conversation_id(event, payload),
        customer=is_from_customer(event, payload),
        test=(first_header(headers, FORWARDED_FROM_HEADER) or "").strip().lower() == TEST_SENDER,
        ignored=_is_private_note(event, payload) or bool(forwarded and event not in forwarded),
    )


def test_value(headers: Headers) -> str:
    """What `TEST_HEADER` tells the agent of a test webhook that came with `headers`."""
    wanted = (first_header(headers, TEST_HEADER) or "").strip().lower()
    return POST_TEST if wanted == POST_TEST else "true"


def first_header(headers: Headers, name: str) -> str | None:
    """The first value of the header `name` (lower case), or None."""
    return next((value for key, value in headers if key == name), None)


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


def _conversation_id(event: object, payload: dict[str, Any]) -> str | None:
    """`conversation.id` of a message event, the top-level `id` of a conversation event (CONTRACT)."""
    conversation = payload.get("conversation")
    if isinstance(conversation, dict):
        return _field_text(conversation.get("id"))
    if isinstance(event, str) and event.startswith("conversation_"):
        return _field_text(payload.get("id"))
    return None


def _is_private_note(event: object, payload: dict[str, Any]) -> bool:
    """True for what an agent wrote for other agents: a message that is private and outgoing."""
    is_message = isinstance(event, str) and event.startswith("message_")
    return is_message and payload.get("private") is True and _is(payload.get("message_type"), "outgoing", 1)


def _is(message_type: object, word: str, number: int) -> bool:
    """True if Chatwoot's message type, a word or a number, is the one that both name (CONTRACT)."""
    return message_type == word or (message_type == number and not isinstance(message_type, bool))


def is_from_customer(event: object, payload: dict[str, Any]) -> bool:
    """True for a new message that a contact wrote: incoming (as a word or a number), and not a private note."""
    if event != "message_created" or payload.get("private") is True:
        return False
    sender = payload.get("sender")
    kind = sender.get("type") if isinstance(sender, dict) else None
    return _is(payload.get("message_type"), "incoming", 0) and kind in {None, "contact"}


def _field_text(value: object) -> str | None:
    """`value` as text that Postgres can hold, or None if it is neither text nor a whole number."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value)[:_FIELD_CHARS].encode("utf-8", "replace").decode()
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") or None
