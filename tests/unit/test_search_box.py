"""The search box: what gets into it, and what it reports when it changes, is submitted and is closed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events
from textual.app import App
from textual.widgets import Button

from console.widgets.search_box import MOST_CHARS, SearchBox
from relay.text import HARMFUL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from textual.app import ComposeResult
    from textual.pilot import Pilot


class Screenful(App[None]):
    """A search box above a widget that has the focus at first. `said` are the box's messages, oldest first."""

    AUTO_FOCUS = "#rows"

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, ...]] = []

    def compose(self) -> ComposeResult:
        yield SearchBox(id="filter", returns_to="#rows", check=lambda text: "no colon" if ":" in text else None)
        yield Button("rows", id="rows")

    def on_search_box_changed(self, event: SearchBox.Changed) -> None:
        self.said.append(("changed", event.text, event.error))

    def on_search_box_submitted(self, event: SearchBox.Submitted) -> None:
        self.said.append(("submitted", event.text))

    def on_search_box_closed(self, event: SearchBox.Closed) -> None:
        self.said.append(("closed", event.text))


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Screenful, SearchBox, Pilot[Any]]]:
    """An open box."""
    app = Screenful()
    async with app.run_test(size=(60, 6)) as pilot:
        box = app.query_one(SearchBox)
        assert not box.display
        box.open()
        await pilot.pause()
        assert box.display
        assert box.has_focus
        yield app, box, pilot


def is_closed(app: Screenful) -> bool:
    box = app.query_one(SearchBox)
    return not box.is_open and not box.display and app.query_one("#rows").has_focus


async def test_enter_closes_the_box_and_submits_its_text() -> None:
    async with opened() as (app, _, pilot):
        await pilot.press("a", "b", "enter")
        assert app.said == [("changed", "a", ""), ("changed", "ab", ""), ("submitted", "ab")]
        assert is_closed(app)


async def test_enter_on_an_invalid_text_does_nothing() -> None:
    async with opened() as (app, box, pilot):
        await pilot.press("a", "colon", "enter")
        assert app.said == [("changed", "a", ""), ("changed", "a:", "no colon")]
        assert box.is_open
        assert box.has_focus


async def test_esc_closes_the_box_with_what_was_typed() -> None:
    async with opened() as (app, _, pilot):
        await pilot.press("a", "escape")
        assert app.said[-1] == ("closed", "a")
        assert is_closed(app)


async def test_esc_on_an_invalid_text_brings_back_the_text_from_before() -> None:
    async with opened() as (app, box, pilot):
        await pilot.press("a", "enter")
        box.open()
        await pilot.press("b", "colon")
        box.open()  # the box is open: the text from before stays that from before
        await pilot.press("escape")
        assert app.said[-2:] == [("changed", "a", ""), ("closed", "a")]
        assert box.value == "a"
        assert is_closed(app)


async def test_a_closed_box_has_nothing_to_close() -> None:
    async with opened() as (app, box, pilot):
        await pilot.press("enter")
        box.close()
        await pilot.pause()
        assert app.said == [("submitted", "")]


async def test_typing_replaces_the_text_of_a_box_that_opens_again() -> None:
    async with opened() as (_, box, pilot):
        await pilot.press("a", "b", "enter")
        box.open()
        await pilot.press("c")
        assert box.value == "c"


@pytest.mark.parametrize(
    ("pasted", "value"),
    [
        ("two\nlines", "two"),
        ("\n\r\n  first\n", "first"),
        ("\n", ""),
        ("\x1b]52;c;aGk=\x07", "␛]52;c;aGk=␇"),
        ("a\u202eb\u200bc\x85d", "a<U+202E>b<U+200B>c"),
    ],
)
async def test_of_a_paste_the_first_line_gets_in_and_no_control_character(pasted: str, value: str) -> None:
    async with opened() as (_, box, pilot):
        box.post_message(events.Paste(pasted))
        await pilot.pause()
        assert box.value == value


async def test_a_large_paste_is_cut_to_the_room_there_is_and_changes_the_text_once() -> None:
    async with opened() as (app, box, pilot):
        box.value = "before after"
        box.cursor_position = len("before ")
        await pilot.pause()
        box.post_message(events.Paste("\x1bx" * 2_000_000))
        await pilot.pause()
        assert len(box.value) == MOST_CHARS
        assert box.value.startswith("before ␛x␛x")
        assert box.value.endswith("after")
        assert len(app.said) == 2


async def test_what_the_console_copied_is_pasted_in_the_same_way() -> None:
    async with opened() as (app, box, pilot):
        app.copy_to_clipboard("{\x07\n" + "x" * 3_000_000)
        await pilot.press("ctrl+v")
        assert box.value == "{␇"


@given(st.text(max_size=50) | st.text(st.sampled_from("a\x00\x1b\x7f\x9b\u202e\n\r\t"), max_size=30), st.integers(0, 3))
def test_no_text_that_a_program_sets_brings_in_a_control_character(text: str, times: int) -> None:
    value = SearchBox(returns_to="#rows").validate_value(text * 10**times)
    assert len(value) <= MOST_CHARS
    assert not HARMFUL.search(value)
