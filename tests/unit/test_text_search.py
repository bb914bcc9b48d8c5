"""Finding in text: every match, whatever its case, in the row that it is in once the text is broken to a width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.content import Content

from console.render.search import MOST, highlighted, places, row_of


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        ("aXbx", "x", [(1, 2), (3, 4)]),
        ("a.b", ".", [(1, 2)]),
        ("[/b]", "[/B]", [(0, 4)]),
        ("a", "b", []),
        ("a", "", []),
    ],
)
def test_it_is_found_literally_and_in_any_case(text: str, wanted: str, found: list[tuple[int, int]]) -> None:
    assert places(text, wanted) == found


def test_what_is_everywhere_is_not_counted_without_end() -> None:
    assert len(places("x" * 100_000, "x")) == MOST


def test_the_current_match_has_a_style_of_its_own() -> None:
    found = highlighted(Content("one two one"), [(0, 3), (8, 11)], (8, 11))
    assert [(span.start, span.end, span.style) for span in found.spans] == [
        (0, 3, "reverse"), (8, 11, "bold reverse underline"),
    ]  # fmt: skip


@given(st.lists(st.text("ab \n", max_size=30), max_size=12), st.integers(8, 30))
def test_a_match_is_in_the_row_that_it_is_broken_into(words: list[str], width: int) -> None:
    text = " ".join([*words, "HERE", *words])
    (place,) = places(text, "here")
    rows = [row.plain for line in Content(text).split("\n", allow_blank=True) for row in line.wrap(width)]
    assert "HERE" in "".join(rows[max(0, row_of(text, place, width) - 1) :][:2])
