"""`storable_json`: a real `jsonb` takes the copy of whatever valid JSON comes in, altered only if it must be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relay.domain.facts import as_json_text, storable_json

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def jsonb(postgres: str) -> Iterator[Jsonb]:
    with psycopg.connect(postgres, autocommit=True) as connection:
        yield Jsonb(connection)


class Jsonb:
    """Postgres's own opinion of a JSON text."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def __call__(self, text: str) -> str:
        """`text` as `jsonb` gives it back. Raises psycopg.DataError if it is refused."""
        (kept,) = self._connection.execute("SELECT %s::jsonb::text", (text,)).fetchone() or ("",)
        return str(kept)

    def takes(self, body: bytes) -> bool:
        """True if `jsonb` takes it as it is."""
        try:
            self(body.decode())
        except psycopg.Error:
            return False
        return True


def _string(parts: list[str]) -> str:
    return '"' + "".join(parts) + '"'


_PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), max_size=5)
_ESCAPES = st.sampled_from([
    "\\u0000", "\\ud83d", "\\ude00", "\\ud83d\\ude00", "\\uD800", "\\uDFFF", "\\\\u0000", "\\\\ud800", "\\\\", '\\"',
    "\\n", "\\u00e9", "\\uffff", "\\u2028", "\\/", "\\\\\\u0000",
])  # fmt: skip
_STRINGS = st.lists(_PLAIN | _ESCAPES, max_size=6).map(_string)
_DIGITS = st.from_regex(r"[1-9][0-9]{0,30}", fullmatch=True)
_EXPONENTS = st.integers(-20_000, 20_000) | st.integers(131_000, 131_200) | st.integers(-16_500, -16_300)
_SIGNS = st.sampled_from(["", "-"])
_FRACTIONS = st.just("") | st.from_regex(r"\.[0-9]{1,30}", fullmatch=True)
_NUMBERS = (
    st.builds("{}{}{}".format, _SIGNS, _DIGITS | st.just("0"), _FRACTIONS)
    | st.builds("{}{}{}{}{}".format, _SIGNS, _DIGITS, _FRACTIONS, st.sampled_from("eE"), _EXPONENTS)
    | st.builds(lambda digit, length: digit * length, st.sampled_from("19"), st.sampled_from([41, 131_072, 131_073]))
)
_VALUES = st.recursive(
    _STRINGS | _NUMBERS | st.sampled_from(["true", "false", "null"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(_STRINGS, inner), max_size=4).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=8,
)
BODIES = st.builds(lambda key, value: f"{{{key}:  {value}}}".encode(), _STRINGS, _VALUES)


@given(BODIES)
@example(b'{"a": 1e131071}')
@example(b'{"a": 1e131072}')
@example(b'{"a": 1e-16383}')
@example(b'{"a": 1e-16384}')
@example(b'{"a": 1e999999999999999999999}')
@example(b'{"a": "\\u0000", "\\u0000": {"\\ud800": ["\\udfff\\ud800"]}}')
@example(b'{"a": "\xf0\x9f\x98\x80", "b": "1234567890123456789012345678901234567890e99999"}')
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_jsonb_takes_the_copy_of_any_valid_json(jsonb: Jsonb, body: bytes) -> None:
    text, altered = storable_json(body)
    kept = json.loads(jsonb(text), parse_int=str, parse_float=str)
    assert isinstance(kept, dict)
    assert altered is not jsonb.takes(body)
    if not altered:
        assert text == body.decode()


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (rb'{"a": "x\u0000y"}', '{"a": "x\ufffdy"}'),
        (rb'{"a": "\ud800!"}', '{"a": "\ufffd!"}'),
        (rb'{"\u0000": 1.10}', '{"\ufffd": 1.10}'),
        (rb'{"a": "\u0000", "a": 1}', '{"a": "\ufffd", "a": 1}'),
        (rb'{"a": 1e131072, "b": 1.50}', '{"a": "1e131072", "b": 1.50}'),
        (rb'{"a": [1e-99999, -0.0, "\ud83d\ude00"]}', '{"a": ["1e-99999", -0.0, "\U0001f600"]}'),
    ],
)
def test_what_jsonb_refuses_is_replaced_and_nothing_else_is(jsonb: Jsonb, body: bytes, stored: str) -> None:
    assert not jsonb.takes(body)
    text, altered = storable_json(body)
    assert altered
    assert json.loads(text, parse_float=str) == json.loads(stored, parse_float=str)
    jsonb(text)


@pytest.mark.parametrize(
    "body",
    [rb'{"a":  "\\u0000"}', b'{"price": 12.3400, "n": 100000000000000000000000000000000000000000000001}',
     '{"é":"\U0001f600", "x": "\\ud83d\\ude00"}'.encode(), b'{"a": 1e131071}'],
)  # fmt: skip
def test_what_jsonb_takes_is_not_touched(body: bytes) -> None:
    assert storable_json(body) == (body.decode(), False)


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_at_all_can_be_kept_as_one_json_string(jsonb: Jsonb, body: bytes) -> None:
    assert isinstance(json.loads(jsonb(as_json_text(body))), str)
