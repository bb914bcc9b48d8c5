"""From headers and body to a receipt: which bodies are JSON objects, and what is read from Chatwoot's events."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.chatwoot.payload import MAX_DEPTH, BadBody, BodyFault, _is_deeper, parse_object
from relay.intake.receipt import read_receipt

BAD = {
    b"": BodyFault.EMPTY,
    b" \r\n\t": BodyFault.EMPTY,
    b"[]": BodyFault.NOT_AN_OBJECT,
    b'[{"event": "x"}]': BodyFault.NOT_AN_OBJECT,
    b'"event"': BodyFault.NOT_AN_OBJECT,
    b"1": BodyFault.NOT_AN_OBJECT,
    b"null": BodyFault.NOT_AN_OBJECT,
    b"true": BodyFault.NOT_AN_OBJECT,
    b'{"a": "\xff"}': BodyFault.NOT_UTF8,
    b'{"a": "\xed\xa0\x80"}': BodyFault.NOT_UTF8,
    '{"a": 1}'.encode("utf-16"): BodyFault.NOT_UTF8,
    b'{"a": NaN}': BodyFault.NOT_JSON,
    b'{"a": Infinity}': BodyFault.NOT_JSON,
    b'{"a": -Infinity}': BodyFault.NOT_JSON,
    b'{"event": "message_cre': BodyFault.NOT_JSON,
    b'{"a": 1': BodyFault.NOT_JSON,
    b'{"a": 1}}': BodyFault.NOT_JSON,
    b'{"a": 1} {"b": 2}': BodyFault.NOT_JSON,
    b"{'a': 1}": BodyFault.NOT_JSON,
    b'{"a": 01}': BodyFault.NOT_JSON,
    b'{"a": "line\nend"}': BodyFault.NOT_JSON,
    b"event=message_created&id=1": BodyFault.NOT_JSON,
    b'{"a":' * 201 + b"1" + b"}" * 201: BodyFault.TOO_DEEP,
    b'{"a":' + b"[" * 100_000: BodyFault.TOO_DEEP,
    b'{"a":' * 300: BodyFault.TOO_DEEP,
}


@pytest.mark.parametrize(("body", "fault"), BAD.items(), ids=[ascii(body)[2:32] for body in BAD])
def test_a_body_that_is_no_json_object_is_refused(body: bytes, fault: BodyFault) -> None:
    with pytest.raises(BadBody) as refused:
        parse_object(body)
    assert refused.value.fault is fault
    assert "\n" not in str(refused.value)


def test_a_body_may_nest_as_deep_as_the_limit() -> None:
    assert parse_object(b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)


@given(st.recursive(st.integers() | st.sampled_from(['"]', "[{", "\\"]), lambda inner: st.lists(inner, max_size=3)))
def test_a_body_is_refused_from_the_depth_on_that_it_has(value: Any) -> None:
    def depth(part: Any) -> int:
        return 1 + max(map(depth, part), default=0) if isinstance(part, list) else 0

    payload = {"a": value}
    assert all(_is_deeper(payload, limit) is (limit <= depth(value)) for limit in range(depth(value) + 3))


def test_brackets_inside_strings_do_not_nest() -> None:
    assert parse_object(json.dumps({"a": '[{"\\' * 10_000}).encode()) == {"a": '[{"\\' * 10_000}


@pytest.mark.parametrize(
    "body",
    [rb'{"a": "\u0000"}', rb'{"a": "\ud800"}', b'{"a": 1e999}', b'{"a": ' + b"9" * 10_000 + b"}", b'{"a":1,"a":2}',
     b' \n{"a": -0.0}\r\n ', '{"\U0001f600": "\u2028"}'.encode(), b"{}"],
    ids=lambda body: ascii(body)[:30],
)  # fmt: skip
def test_odd_but_valid_json_is_taken(body: bytes) -> None:
    assert isinstance(parse_object(body), dict)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["event", "id", "conversation", "sender", "message_type", "x"]), _VALUES))
def test_any_object_at_all_gives_a_receipt_whose_fields_postgres_can_hold(payload: dict[str, Any]) -> None:
    receipt = read_receipt((), json.dumps(payload).encode())
    for text in (receipt.event, receipt.conversation_id):
        assert text is None or (0 < len(text) <= 200 and "\0" not in text and text.encode())


def _receipt(payload: dict[str, Any], *headers: tuple[str, str]) -> Any:
    return read_receipt(headers, json.dumps(payload).encode())


@pytest.mark.parametrize(
    ("payload", "conversation_id"),
    [
        ({"event": "message_created", "id": 9, "conversation": {"id": 77}}, "77"),
        ({"event": "message_updated", "id": 9, "conversation": {"id": "77"}}, "77"),
        ({"event": "conversation_status_changed", "id": 77}, "77"),
        ({"event": "conversation_typing_on", "id": 5, "conversation": {"id": 77}}, "77"),
        ({"event": "webwidget_triggered", "id": 9}, None),
        ({"event": "contact_created", "id": 9}, None),
        ({"event": "message_created", "id": 9}, None),
        ({"event": "message_created", "conversation": {"id": True}}, None),
        ({"event": "message_created", "conversation": {"id": [77]}}, None),
        ({"id": 77}, None),
    ],
)
def test_the_conversation_is_where_chatwoot_puts_it(payload: dict[str, Any], conversation_id: str | None) -> None:
    assert _receipt(payload).conversation_id == conversation_id


@pytest.mark.parametrize(
    ("fields", "customer"),
    [
        ({"message_type": "incoming"}, True),
        ({"message_type": 0}, True),
        ({"message_type": "incoming", "sender": {"type": "contact"}}, True),
        ({"message_type": "incoming", "sender": {"id": 1, "name": "Jane"}}, True),
        ({"message_type": "incoming", "sender": {"type": "user"}}, False),
        ({"message_type": "incoming", "private": True}, False),
        ({"message_type": "outgoing"}, False),
        ({"message_type": "outgoing", "private": True}, False),
        ({"message_type": 1}, False),
        ({"message_type": False}, False),
        ({"message_type": "activity"}, False),
        ({"message_type": "template"}, False),
        ({}, False),
        ({"message_type": "incoming", "event": "message_updated"}, False),
        ({"message_type": "incoming", "event": "conversation_created"}, False),
    ],
)
def test_a_customer_waits_for_an_answer_to_their_message(fields: dict[str, Any], customer: bool) -> None:
    assert _receipt({"event": "message_created", "id": 1} | fields).customer is customer


@pytest.mark.parametrize("event", ["message_created", "conversation_exploded", "é", "x" * 200])
def test_any_event_is_taken_known_or_not(event: str) -> None:
    assert _receipt({"event": event}).event == event


def test_chatwoots_delivery_id_is_kept() -> None:
    given = "0192f0a1-5b1e-7c3d-9a51-1c1a2b3c4d5e"
    assert _receipt({}, ("x-chatwoot-delivery", given)).delivery_id == given


@pytest.mark.parametrize("header", [None, "", "two words", "é", "x" * 201, "a\x7fb"])
def test_without_a_usable_delivery_id_there_is_a_fresh_uuid(header: str | None) -> None:
    headers = [] if header is None else [("x-chatwoot-delivery", header)]
    first, second = (_receipt({}, *headers).delivery_id for _ in range(2))
    assert UUID(first) != UUID(second)


@pytest.mark.parametrize(
    ("header", "test"), [("chatwoot-test", True), (" Chatwoot-Test ", True), ("hotdash-relay", False), (None, False)]
)
def test_the_runbooks_header_marks_a_test(header: str | None, test: bool) -> None:
    assert _receipt({}, *([] if header is None else [("x-forwarded-from", header)])).test is test


@given(st.binary(max_size=60))
def test_a_receipts_body_is_the_bytes_that_came(tail: bytes) -> None:
    body = json.dumps({"a": tail.decode("latin-1")}, ensure_ascii=False, indent=3).encode() + b"\r\n \t"
    assert read_receipt((), body).body == body
