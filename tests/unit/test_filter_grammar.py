"""The filter grammar: how a text falls into terms, and that what was typed never becomes SQL."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.sql import SQL

from relay.domain.delivery import State
from relay.domain.filters import Term, doubts, parse
from relay.errors import FilterError
from relay.store.filters import Condition, compile_filter

TERMS = {
    "": [],
    "   \t ": [],
    "word": [Term("", "word", negated=False)],
    "two words": [Term("", "two", negated=False), Term("", "words", negated=False)],
    '"two words"': [Term("", "two words", negated=False)],
    "!word": [Term("", "word", negated=True)],
    '!"two words"': [Term("", "two words", negated=True)],
    "error:503": [Term("error", "503", negated=False)],
    "ERROR:503": [Term("error", "503", negated=False)],
    "!status:429,timeout": [Term("status", "429,timeout", negated=True)],
    'error:"agent sdk"': [Term("error", "agent sdk", negated=False)],
    r'"a \"quoted\" \\ word"': [Term("", r'a "quoted" \ word', negated=False)],
    '"error:503"': [Term("", "error:503", negated=False)],
    "since:14:02": [Term("since", "14:02", negated=False)],
    "until:2026-11-23T14:02": [Term("until", "2026-11-23T14:02", negated=False)],
    "age:<1h": [Term("age", "<1h", negated=False)],
    "payload.sender.Name:Jane*": [Term("payload.sender.Name", "Jane*", negated=False)],
    "payload.tags.0:vip": [Term("payload.tags.0", "vip", negated=False)],
    "!!word": [Term("", "!word", negated=True)],
    "100%": [Term("", "100%", negated=False)],
    "5:x": [Term("", "5:x", negated=False)],
    "error:503  conv:77\n!x": [
        Term("error", "503", negated=False), Term("conv", "77", negated=False), Term("", "x", negated=True),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("text", "terms"), TERMS.items(), ids=[text or "empty" for text in TERMS])
def test_a_filter_falls_into_terms(text: str, terms: list[Term]) -> None:
    assert parse(text) == terms


def test_an_empty_filter_holds_for_everything() -> None:
    assert compile_filter("") == Condition(SQL("true"), {})


def test_all_terms_must_hold() -> None:
    both = compile_filter("event:a conv:77")
    first, second = (compile_filter(text).sql.as_string() for text in ("event:a", "conv:77"))
    assert both.sql.as_string() == f"{first} AND {second.replace('f0', 'f1')}"
    assert both.parameters == {"f0": ["%a%"], "f1": ["77"]}


_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(_TEXTS)
def test_any_text_can_be_searched_for_in_quotes(text: str) -> None:
    assert parse(_quoted(text)) == [Term("", text, negated=False)]


@pytest.mark.parametrize("key", ["", "error:", "event:", "conv:", "id:", "status:", "payload.content:"])
@given(text=_TEXTS)
def test_the_sql_of_a_filter_does_not_depend_on_its_values(key: str, text: str) -> None:
    assert compile_filter(key + _quoted(text)).sql == compile_filter(key + "x").sql


@given(st.text(max_size=60))
def test_any_text_is_terms_or_a_sentence_about_what_is_wrong(text: str) -> None:
    try:
        terms = parse(text)
    except FilterError as error:
        assert "\n" not in str(error).replace(text, "")  # noqa: PT017 - either outcome is right
    else:
        assert all(term.value for term in terms)


_DOUBTED = {
    "status:abc,503": "abc is no status",
    "conv:x": "x is no conversation",
    "inbox:,": "names no value",
    "event:mesage": "mesage is in no known event",
    "event:x*,message_*": "x* is in no known event",
    "state:delivered": "every delivery is dead",
    "since:2026-11-28": "in the future",
    "since:14:00 until:13:00": "exclude each other",
    "age:<1h age:>2h": "exclude each other",
    "since:2026-11-26 age:>3d": "exclude each other",
}


def test_values_that_no_delivery_can_have_are_named() -> None:
    now = datetime(2026, 11, 27, 15, tzinfo=UTC)
    for text, said in _DOUBTED.items():
        found = doubts(parse(text), states=(State.DEAD,), now=now)
        assert len(found) == 1, text
        assert said in found[0], text
    for text in ("status:5xx", "event:message*", "event:Message_Created", "!event:x", "state:dead", "since:14:00 word",
                 "since:14:00 until:14:30", "age:>1h", "until:2027-01-01", "!since:2027-01-01"):  # fmt: skip
        assert doubts(parse(text), states=(State.DEAD,), now=now) == [], text
    assert doubts(parse("state:delivered"), now=now) == []
