"""With --ascii every glyph that the console draws has its like; a question mark stands for customers' text alone."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from console import theme
from relay.text import HARMFUL
from tests.console.conftest import OVERLOADED
from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.console.screens import Watched
    from tests.servers import RunningRelay

    Console = Callable[..., object]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("╭─ Keys ─╮", "+- Keys -+"),
        ("╰─ esc closes ─╯", "+- esc closes -+"),
        ("┃━╋┈╎═╱╲", "|-+-|-/\\"),
        ("🔎 Search", "/  Search"),
        ("▁▇█▗▞", "_####"),
        ("␛[2J", "^[2J"),
        ("Anhören 漢", "Anh?ren ??"),
    ],
)
def test_a_glyph_is_drawn_as_its_like(text: str, shown: str) -> None:
    assert theme.ascii_of(text, cell_len(text)) == shown


@given(st.text(max_size=20))
def test_whatever_is_drawn_is_ascii_and_as_wide_as_before(text: str) -> None:
    shown = theme.ascii_of(text, cell_len(text))
    assert shown.isascii()
    assert text.isascii() or len(shown) == cell_len(text)


def glyphs() -> set[str]:
    """What is no ASCII in the console's own texts."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "console").rglob("*.py")]
    texts = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    characters = {character for text in texts if isinstance(text, str) for character in text}
    return {one for one in characters if not one.isascii() and not HARMFUL.match(one) and cell_len(one)}


def test_every_glyph_in_the_consoles_own_texts_has_its_like() -> None:
    assert {glyph for glyph in glyphs() if "?" in theme.ascii_of(glyph, cell_len(glyph))} == set()


async def test_no_screen_shows_a_question_mark_for_a_glyph(
    incident: RunningRelay, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: set[str] = set()
    translate = theme.ascii_of

    def watched(text: str, cells: int) -> str:
        drawn.update(text)
        return translate(text, cells)

    monkeypatch.setattr(theme, "ascii_of", watched)
    async with console(ascii_only=True) as seen:
        await walk(seen)
    assert len(drawn) > 90
    assert {one for one in drawn if not one.isascii() and "?" in translate(one, cell_len(one))} == set()


async def walk(seen: Watched) -> None:
    """Through every view, what opens on top of them, and every question."""
    await seen.shows("Failure groups", str(OVERLOADED))
    for keys, shown, leave in (
        ("2", "CAUSE", ()), ("r", "y does it", ("escape",)), ("d", "DISCARD", ("escape",)),
        ("R", "n shows them", ()), ("n", "would be sent", ("x", "escape")), ("e", "Edit the payload", ("escape",)),
        ("enter", "Attempts", ()), ("slash", "find in the delivery", ("escape", "escape")),
        ("3", "STATE", ()), ("4", "FOLLOWING", ()), ("5", "FIRING", ()), ("6", "Who did what", ()),
        ("D", "PROBLEM", ("escape",)), ("x", "ESCALATION.md", ("escape",)), ("question_mark", "Keys: Activity", ("q",)),
        ("colon", "Search for commands", ("escape",)),
    ):  # fmt: skip
        await seen.press(keys)
        shown_now = await seen.shows(shown)
        assert shown_now.isascii(), [one for one in shown_now if not one.isascii()]
        await seen.press(*leave)
