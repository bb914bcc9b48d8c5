"""Lines broken to a width: what continues in a second row begins below the first one's text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.content import Content

from console.render.wrapping import flowing, hanging, shortened
from relay.domain.alerts import rule_named


def test_parts_flow_into_as_few_rows_as_they_go_whole() -> None:
    parts = [Content("0123"), Content("conv 7"), Content("message_created"), Content("it answered 503, so it is dead")]
    which, why = "0123  conv 7  message_created", "it answered 503, so it is dead"
    assert [row.plain for row in flowing(parts, 30)] == [which, why]
    assert [row.plain for row in flowing(parts, 80)] == [f"{which}  {why}"]
    assert flowing([], 80) == []


@pytest.mark.parametrize(
    ("line", "width", "rows"),
    [
        ("short", 20, ["short"]),
        ("  ✗ forwarding takes far too long", 20, ["  ✗ forwarding takes", "    far too long"]),
        ("    1. Check its health now", 22, ["    1. Check its", "       health now"]),
        ("  - one two three four", 16, ["  - one two", "    three four"]),
        ('   "content": "hello there"', 18, ['   "content":', '   "hello there"']),
        ("", 5, [""]),
    ],
)
def test_a_long_line_hangs(line: str, width: int, rows: list[str]) -> None:
    assert [row.plain.rstrip() for row in hanging([Content(line)], width)] == rows


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), max_size=80), st.integers(20, 60))
def test_nothing_is_lost_and_nothing_too_wide(text: str, width: int) -> None:
    rows = hanging([Content(text)], width)
    assert all(row.cell_length <= width for row in rows)
    assert "".join("".join(row.plain for row in rows).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (40, "more than 20 dead letters in 1 h"),
        (25, "> 20 dead letters in 1 h"),
        (12, "> 20 dead l…"),
        (0, "…"),
    ],
)
def test_a_condition_is_shortened_before_it_is_cut(room: int, shown: str) -> None:
    assert shortened([rule_named("escalate-dlq")], room) == [shown]


def test_conditions_below_one_another_are_worded_alike() -> None:
    rules = [rule_named("escalate-dlq"), rule_named("dlq-warning")]
    assert shortened(rules, 32) == ["more than 20 dead letters in 1 h", "more than 5 dead letters in 1 h"]
    assert shortened(rules, 31) == ["> 20 dead letters in 1 h", "> 5 dead letters in 1 h"]
