"""Every terminal: sixteen colours, none, ASCII, small ones, suspended ones, odd input, and one that is gone."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.color import Color
from textual.content import Content

from console.render.wrapping import title_of
from console.terminal.abilities import abilities_of
from console.terminal.driver import without_legacy_mouse
from console.theme import THEMES, SixteenColours
from console.widgets.text import Text
from tests.console.conftest import ALL, OVERLOADED, open_dead_letters
from tests.console.screens import RawTerminal, Terminal
from tests.servers import AT_ONCE_S, PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import RunningRelay

    Console = Callable[..., Any]


def test_a_terminals_abilities_are_seen_from_its_name_and_its_locale() -> None:
    for environment, encoding, ascii_only, mono in (
        ({"TERM": "xterm-256color", "LANG": "C.UTF-8"}, "UTF-8", False, False),
        ({"TERM": "xterm-256color"}, "utf-8", False, False),
        ({"TERM": "xterm-256color", "LC_ALL": "C"}, "utf-8", True, False),
        ({"TERM": "xterm-256color", "LANG": "de_DE"}, "ISO-8859-1", True, False),
        ({"TERM": "xterm-256color", "LANG": "de_DE.ISO-8859-1"}, "utf-8", True, False),
        ({"TERM": "xterm-256color", "LANG": "de_DE.UTF-8@euro"}, "utf-8", False, False),
        ({"TERM": "xterm-256color"}, "ANSI_X3.4-1968", True, False),
        ({"TERM": "linux", "LANG": "C.UTF-8"}, "UTF-8", False, False),
        ({"TERM": "vt100", "LANG": "C.UTF-8"}, "UTF-8", True, True),
        ({"TERM": "xterm", "LANG": "C.UTF-8", "NO_COLOR": "1"}, "UTF-8", False, True),
    ):
        able = abilities_of(environment, encoding)
        assert (able.ascii_only, able.mono) == (ascii_only, mono), environment


def test_red_stays_red_with_sixteen_colours() -> None:
    black = 0
    for theme in THEMES:
        for name, number in (("error", 1), ("warning", 3), ("success", 2)):
            style = Style.parse(f"{theme[name]} on {theme['background']}")
            (drawn,) = SixteenColours().apply([Segment("x", style)], Color(0, 0, 0))
            assert drawn.style is not None
            text, ground = drawn.style.color, drawn.style.bgcolor
            assert text is not None
            assert ground is not None
            is_readable_as_text = theme["dark"] or name == "error"  # yellow and green on white are not
            meaning = text if is_readable_as_text else ground
            assert meaning.number == number, (theme["name"], name)
            assert is_readable_as_text or text.number == black, (theme["name"], name)
    for ground in ("#ffaf5f", "#5fd787", "#4f3f1f"):  # the first line of a warning is white on such a ground
        (drawn,) = SixteenColours().apply([Segment("x", Style.parse(f"#ffffff on {ground}"))], Color(0, 0, 0))
        assert drawn.style is not None
        assert drawn.style.color is not None
        assert drawn.style.color.number == black, ground


def test_legacy_mouse_reports_are_no_keys() -> None:
    assert without_legacy_mouse(b"a\x1b[MC\x83<b") == (b"ab", b"")
    assert without_legacy_mouse(b"a\x1b[MC") == (b"a", b"\x1b[MC")
    assert without_legacy_mouse(b"\x1b[M" + b"C\x83<\x1b") == (b"\x1b", b"")
    assert without_legacy_mouse(b"\x1b[A") == (b"\x1b[A", b"")


async def test_groups_are_visible_on_the_smallest_screens(incident: RunningRelay, console: Console) -> None:
    for size in ((60, 16), (60, 20), (80, 24), (100, 30), (120, 36), (200, 60)):
        async with console(size) as seen:
            await seen.shows("Failure groups", f"{OVERLOADED}    +")
            first = seen.text.splitlines()[0]
            for vital in ("embedd", "LIVE", f"{ALL} ", "Critical"):
                assert vital in first, (size, first)
            await seen.press("r")
            await seen.shows(f"type {OVERLOADED} and enter")
            for key in ("question_mark", "n"):  # the longest that the strip shows
                await seen.press(key)
                await seen.shows("nothing was sent; any key goes back")
                await seen.press("escape")


async def test_on_the_smallest_screens_every_fact_is_whole_or_left_out(
    incident: RunningRelay, console: Console
) -> None:
    async with console((60, 20)) as seen:
        shown = await seen.shows("Failure groups", "answered 503", "answered: {")
        groups = [line for line in shown.splitlines() if re.match(r".\s+\d+\s+[+\d]+\s+\d\d:\d\d", line)]
        alerts = [line for line in shown.splitlines() if "dead letters in 1 h" in line]
        titles = [line for line in shown.splitlines() if line.startswith("─")]
        assert groups
        assert alerts
        assert [line for line in (*groups, *alerts, *titles) if "…" in line] == []
        await open_dead_letters(seen)
        rows = [line for line in seen.text.splitlines() if re.match(r"[▸ ]  \d{8} ", line)]
        assert rows
        assert [line for line in rows if "…" in line] == []


def test_a_pane_is_entitled_with_what_fits() -> None:
    parts, keys = ("Alerts", "3 firing"), ("D diagnoses", "a acknowledges")
    assert title_of(80, *parts, keys=keys) == "Alerts ─ 3 firing ─ D diagnoses, a acknowledges"
    assert title_of(40, *parts, keys=keys) == "Alerts ─ 3 firing ─ D diagnoses"
    assert title_of(20, *parts, keys=keys) == "Alerts"


async def test_a_text_that_wraps_to_more_rows_gets_them() -> None:
    class OneText(App[None]):
        CSS = "Text { width: 7; height: auto; }"

        def compose(self) -> ComposeResult:
            yield Text(Content("aaaa bbbb cc"))

    async with OneText().run_test() as pilot:
        text = pilot.app.query_one(Text)
        assert text.size.height == 2
        text.update(Content("aaa bbbbb cc"))  # the lines are as long as before
        await pilot.pause()
        assert text.size.height == 3


async def test_a_click_on_the_footer_does_what_the_key_does(incident: RunningRelay, console: Console) -> None:
    async with console((120, 36)) as seen:
        await seen.shows("Failure groups", "2 Dead letters")
        for label, text in (("2 Dead", f"all {ALL}"), ("r replay", "y does it"), ("esc cancel", f"all {ALL}")):
            place = seen.text.splitlines()[-1].index(label)
            await seen._pilot.click("#keys", offset=(place + 1, 0))
            await seen.shows(text)
        await seen.hides("y does it")


async def test_a_click_on_a_header_sorts_and_one_on_the_top_line_goes_there(
    incident: RunningRelay, console: Console
) -> None:
    async with console((120, 36)) as seen:
        await seen.shows("Failure groups by rate")

        async def click(selector: str, label: str) -> None:
            rows = seen.text.splitlines()
            place = rows[seen.app.screen.query_one(selector).region.y].index(label)
            await seen._pilot.click(selector, offset=(place + 1, 0))

        await click("#groups", "COUNT")
        await seen.shows("Failure groups by count")
        await click("#status", "dead letters")
        await seen.shows(f"all {ALL}, newest first")
        for head, order in (("STATUS", "by status"), ("STATUS", "newest first"), ("DIED", "oldest first")):
            await click("#rows", head)
            await seen.shows(f"all {ALL}, {order}")
        await click("#status", "LIVE")
        await seen.shows("Alert rules")
        await click("#status", "Critical")
        await seen.shows("Failure groups")


async def test_the_footer_shows_the_keys_of_what_has_the_focus(incident: RunningRelay, console: Console) -> None:
    async with console((80, 24)) as seen:
        await open_dead_letters(seen)
        await seen.press("R")
        await seen.shows("+ faster", "- slower", "c canary")
        await seen.press("escape")
        await seen.shows("R replay all")
        await seen.press("slash")
        await seen.shows("enter submit", "esc close")
        assert "R replay all" not in seen.text.splitlines()[-1]


async def test_a_box_without_history_or_completion_offers_none(incident: RunningRelay, console: Console) -> None:
    async with console((80, 24)) as seen:
        await seen.shows("Failure groups")
        for keys, offered in ((("2", "slash"), True), (("escape", "4", "slash"), False)):
            await seen.press(*keys)
            footer = (await seen.shows("esc close")).splitlines()[-1]
            assert ("tab complete" in footer, "↑ older" in footer) == (offered, offered), footer


async def test_a_paste_onto_a_list_runs_no_key_and_a_large_one_costs_a_moment(
    incident: RunningRelay, console: Console
) -> None:
    async with console() as seen:
        await open_dead_letters(seen)
        seen.app.post_message(events.Paste("rqdx" * 500_000))
        await seen.press("j")
        assert not seen.app.view.question.is_open
        await seen.press("slash")
        began = time.monotonic()
        seen.app.post_message(events.Paste("conv:7 " + "x" * 2_000_000))
        await seen.shows("conv:7 x")
        assert time.monotonic() - began < AT_ONCE_S
        assert seen.app.view.is_typed_into


TERMINALS = (
    ((80, 24), {"TERM": "linux"}),
    ((80, 24), {"NO_COLOR": "1"}),
    ((60, 20), {"LC_ALL": "C"}),
    ((80, 24), {"TERM": "vt100"}),
    ((100, 30), {"TERM": "xterm-256color"}),
)


@pytest.mark.parametrize(("size", "env"), TERMINALS, ids=lambda given: "-".join(map(str, given)))
async def test_every_screen_is_at_home_in_every_terminal(
    incident: RunningRelay, terminal: Callable[..., Terminal], size: tuple[int, int], env: dict[str, str]
) -> None:
    screen = await asyncio.to_thread(terminal, size, **env)
    await asyncio.to_thread(screen.shows, "Failure groups")
    is_ascii = "LC_ALL" in env or env.get("TERM") == "vt100"
    for keys, text in (
        (("2",), "ID"), (("Enter",), "DEAD"), (("q", "3"), "STATE"), (("4",), "FOLLOWING"), (("5",), "Alert rules"),
        (("6",), "Who did what"), (("D",), "PROBLEM"), (("q", "2", "r"), "does it"),
    ):  # fmt: skip
        await asyncio.to_thread(screen.press, *keys)
        shown = await asyncio.to_thread(screen.shows, text)
        assert not is_ascii or shown.isascii(), [character for character in shown if not character.isascii()]
    if env.get("TERM") == "linux":
        await until(lambda: re.search(r"\x1b\[(1;)?31m", screen.styled_text) is not None, what="red is red")
    if "NO_COLOR" in env:
        assert re.search(r"\x1b\[[0-9;]*7m[^\n]*\x1b?[^\n]*00000047", screen.styled_text) is not None


@pytest.mark.slow
def test_ctrl_z_suspends_it_and_fg_brings_it_back(tmp_path: Path, dsn: str) -> None:
    shell = ("-c", "import os; os.execvp('bash', ['bash', '--norc', '-i'])")
    screen = Terminal(tmp_path, (80, 24), shell, {"DATABASE_URL": dsn, "HOME": str(tmp_path)})
    try:
        screen.type(f"{sys.executable} -m console\n")
        screen.shows("No open dead letters")
        screen.press("C-z")
        screen.shows("Stopped")
        screen.type("fg\n")
        screen.shows("No open dead letters")
        screen.press("3")
        screen.shows("No deliveries")
    finally:
        screen.close()


@pytest.mark.slow
def test_odd_bytes_are_ignored_and_a_terminal_that_is_gone_ends_it(tmp_path: Path, dsn: str) -> None:
    terminal = RawTerminal(tmp_path, dsn)
    terminal.read_until(b"hotdash")
    terminal.press(b"\x1b[MC\x83<")
    for odd in (b"\x1b[1114112u", b"\x1b[99999999999999999999u", b"\x1b[55296u", b"\x1b[200~ab\x1b[201~"):
        terminal.press(odd)
    terminal.press("é".encode("latin-1") + b"3")
    terminal.read_until(b"STATE")
    assert terminal._process.poll() is None
    os.close(terminal._master)
    assert terminal._process.wait(PATIENCE_S) is not None


@pytest.mark.slow
def test_a_terminal_that_is_gone_beside_a_pager_ends_the_console(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pager, shown in (("sh -c 'echo PAGED; sleep 1000'", b"PAGED"), ("cat", b"any key")):
        monkeypatch.setenv("PAGER", pager)
        terminal = RawTerminal(tmp_path, dsn)
        terminal.read_until(b"No open dead letters")
        terminal.press(b"P")
        terminal.read_until(shown)
        os.close(terminal._master)
        assert terminal._process.wait(PATIENCE_S) is not None
