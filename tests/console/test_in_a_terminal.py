"""The whole program in a real terminal, over a real incident: from opening it to the proof, at both sizes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.console.conftest import ALL, LIMITED, OVERLOADED, REFUSED, webhook
from tests.console.screens import RawTerminal
from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.console.screens import Terminal
    from tests.servers import AgentStandIn, Rows, RunningRelay

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 36)], ids=["80x24", "120x36"])
MANY = 200
"""How many dead letters there are in the drill."""


@SIZES
async def test_the_drill_takes_at_most_twelve_keystrokes(
    incident: RunningRelay, terminal: Callable[..., Terminal], rows: Rows, agent: AgentStandIn, size: tuple[int, int]
) -> None:
    """Open, find the alert, look at one payload, go to the dead letters of the cause, replay them, see the proof."""
    agent.behave(Behaviour(status=503))
    await asyncio.gather(*(incident.post(webhook(number)) for number in range(1_000, 1_000 + MANY - ALL)))
    agent.behave()
    overloaded = MANY - LIMITED - REFUSED
    keystrokes = ["Enter", "Enter", "Escape", "R", *str(overloaded), "Enter"]
    screen = await asyncio.to_thread(terminal, size)
    waits: list[tuple[str, ...]] = [
        ("Agent SDK answered 503", f"{overloaded} of {MANY}", "Critical", "LIVE"),
        (f"{overloaded} match", "FILTERED"),
        ("message", "Attempts", "run 1"),
        (f"{overloaded} match",),
        ("REPLAY", f"{overloaded} deliveries", "maria", "Agent SDK now: 200", f"type {overloaded} and enter"),
    ]
    for index, key in enumerate(keystrokes):
        if index < len(waits):
            await asyncio.to_thread(screen.shows, *waits[index])
        await asyncio.to_thread(screen.press, key)
    await asyncio.to_thread(screen.shows, f"all {overloaded} delivered")
    assert len(keystrokes) <= 12
    assert rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'dead'") == LIMITED + REFUSED
    (plan,) = rows("SELECT requested_by, filter, canary, delivered FROM relay.replay_plans")
    assert plan[0] == "maria"
    assert "503" in plan[1]
    assert plan[2:] == (1, overloaded)


@SIZES
async def test_one_payload_is_replayed_with_three_keystrokes(
    incident: RunningRelay, terminal: Callable[..., Terminal], rows: Rows, size: tuple[int, int]
) -> None:
    screen = await asyncio.to_thread(terminal, size)
    waits = [("Agent SDK answered 503",), (f"{OVERLOADED} match",), ("REPLAY", "1 delivery", "y does it")]
    for seen_first, key in zip(waits, ("Enter", "r", "y"), strict=True):
        await asyncio.to_thread(screen.shows, *seen_first)
        await asyncio.to_thread(screen.press, key)
    await asyncio.to_thread(screen.shows, "all 1 delivered", f"{OVERLOADED - 1} match")
    assert rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'dead'") == ALL - 1
    assert rows("SELECT total, delivered FROM relay.replay_plans") == [(1, 1)]


@SIZES
async def test_one_payload_is_read_with_two_keystrokes(
    incident: RunningRelay, terminal: Callable[..., Terminal], size: tuple[int, int]
) -> None:
    screen = await asyncio.to_thread(terminal, size)
    await asyncio.to_thread(screen.shows, "Agent SDK answered 503")
    await asyncio.to_thread(screen.press, "Enter")
    await asyncio.to_thread(screen.shows, f"{OVERLOADED} match")
    await asyncio.to_thread(screen.press, "Enter")
    await asyncio.to_thread(screen.shows, "run 1", '"content": "message')


@SIZES
async def test_every_view_can_be_opened_and_fits(
    incident: RunningRelay, terminal: Callable[..., Terminal], size: tuple[int, int]
) -> None:
    screen = await asyncio.to_thread(terminal, size)
    await asyncio.to_thread(screen.shows, "Failure groups")
    for key, text in (
        ("2", "CAUSE"), ("3", "STATE"), ("4", "FOLLOWING"), ("5", "Alert rules"), ("6", "Who did what"), ("?", "Keys"),
    ):  # fmt: skip
        await asyncio.to_thread(screen.press, key)
        shown = await asyncio.to_thread(screen.shows, text)
        assert all(len(line) <= size[0] for line in shown.splitlines())
    await asyncio.to_thread(screen.press, "q")
    await until(lambda: "Keys" not in screen.text)
    await asyncio.to_thread(screen.press, "1")
    await asyncio.to_thread(screen.shows, "Failure groups")


async def test_q_at_the_root_quits_and_leaves_the_terminal_as_it_was(
    incident: RunningRelay, terminal: Callable[..., Terminal]
) -> None:
    screen = await asyncio.to_thread(terminal)
    await asyncio.to_thread(screen.shows, "Failure groups")
    await asyncio.to_thread(screen.press, "q")
    await until(lambda: screen.has_ended)
    assert "Failure groups" not in screen.text


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP])
async def test_a_lost_session_ends_it_and_leaves_a_running_replay_to_the_relay(
    incident: RunningRelay, terminal: Callable[..., Terminal], rows: Rows, sign: signal.Signals
) -> None:
    screen = await asyncio.to_thread(terminal)
    await asyncio.to_thread(screen.shows, "Failure groups")
    await asyncio.to_thread(screen.press, "r")
    await asyncio.to_thread(screen.shows, f"type {OVERLOADED} and enter")
    await asyncio.to_thread(screen.press, *str(OVERLOADED), "Enter")
    await until(lambda: rows("SELECT 1 FROM relay.replay_plans WHERE state = 'running'"))
    os.kill(screen.pid, sign)
    await until(lambda: screen.has_ended)
    await until(lambda: rows("SELECT delivered FROM relay.replay_plans WHERE state = 'done'") == [OVERLOADED])


@pytest.mark.parametrize("after_s", [0.1, 0.2, 0.3, 0.5, 0.8])
def test_ctrl_c_while_it_starts_ends_it_without_a_traceback(tmp_path: Path, dsn: str, after_s: float) -> None:
    terminal = RawTerminal(tmp_path, dsn)
    terminal.rest(after_s)
    terminal.press(b"\x03")
    terminal.close()
    assert b"Traceback" not in terminal.output


async def test_it_ends_with_its_terminal(incident: RunningRelay, terminal: Callable[..., Terminal]) -> None:
    screens = [await asyncio.to_thread(terminal) for _ in range(4)]
    for screen in screens:
        await asyncio.to_thread(screen.shows, "Failure groups")
    consoles = [Path(f"/proc/{screen.pid}") for screen in screens]
    assert all(console.exists() for console in consoles)
    for screen in screens:
        screen.close()
    await until(lambda: not any(console.exists() for console in consoles), what="no console is left behind")


async def test_the_terminal_may_change_its_size(incident: RunningRelay, terminal: Callable[..., Terminal]) -> None:
    screen = await asyncio.to_thread(terminal, (120, 36))
    await asyncio.to_thread(screen.shows, "Failure groups", "Deliveries by attempts")
    await asyncio.to_thread(screen.resize, 80, 24)
    await until(lambda: "Deliveries by attempts" not in screen.text and "Failure groups" in screen.text)
    await asyncio.to_thread(screen.resize, 120, 36)
    await asyncio.to_thread(screen.shows, "Deliveries by attempts")


async def test_without_a_database_it_says_so_and_waits(terminal: Callable[..., Terminal]) -> None:
    screen = await asyncio.to_thread(
        terminal, (80, 24), DATABASE_URL="postgresql://none@127.0.0.1:9/nothing?connect_timeout=1"
    )
    await asyncio.to_thread(screen.shows, "Postgres")
    assert not screen.has_ended
    await asyncio.to_thread(screen.press, "q")
    await until(lambda: screen.has_ended)


async def test_without_colours_it_says_the_same(incident: RunningRelay, terminal: Callable[..., Terminal]) -> None:
    screen = await asyncio.to_thread(terminal, (120, 36), NO_COLOR="1")
    await asyncio.to_thread(screen.shows, "Critical", "escalate", "Agent SDK answered 503")
    assert colours_in(screen.styled_text) == set()


async def test_with_colours_there_are_some(incident: RunningRelay, terminal: Callable[..., Terminal]) -> None:
    screen = await asyncio.to_thread(terminal, (120, 36))
    await asyncio.to_thread(screen.shows, "Critical", "escalate", "Agent SDK answered 503")
    assert colours_in(screen.styled_text)


def colours_in(text: str) -> set[int]:
    """The colours that a terminal's text asks for, as codes of SGR; the default ones left out."""
    codes = {int(code) for codes in re.findall(r"\x1b\[([\d;]+)m", text) for code in codes.split(";")}
    return codes & ({38, 48} | {*range(30, 38)} | {*range(40, 48)} | {*range(90, 108)})


async def test_in_ascii_there_is_nothing_else(incident: RunningRelay, terminal: Callable[..., Terminal]) -> None:
    screen = await asyncio.to_thread(terminal, (120, 36), "--ascii")
    shown = await asyncio.to_thread(screen.shows, "Failure groups", "Critical")
    assert shown.isascii(), [character for character in shown if not character.isascii()]


@SIZES
async def test_what_is_typed_without_a_pause_goes_where_it_belongs(
    incident: RunningRelay, terminal: Callable[..., Terminal], rows: Rows, size: tuple[int, int]
) -> None:
    """From the overview to the cause's dead letters, its replay, the count and enter: keys that come all at once."""
    screen = await asyncio.to_thread(terminal, size)
    await asyncio.to_thread(screen.shows, "Failure groups", f"{OVERLOADED} of {ALL}")
    await asyncio.to_thread(screen.press_at_once, "Enter", "R", *str(OVERLOADED), "Enter")
    await asyncio.to_thread(screen.shows, f"all {OVERLOADED} delivered")
    assert rows("SELECT requested_by, delivered FROM relay.replay_plans") == [("maria", OVERLOADED)]


async def test_a_filter_typed_without_a_pause_is_a_filter(
    incident: RunningRelay, terminal: Callable[..., Terminal]
) -> None:
    screen = await asyncio.to_thread(terminal)
    await asyncio.to_thread(screen.shows, "Failure groups")
    await asyncio.to_thread(screen.press_at_once, "2", "/", *"status:429", "Enter", "j", "j", "Space")
    await asyncio.to_thread(screen.shows, "FILTERED status:429", f"{LIMITED} match", "1 marked")


async def test_a_yes_typed_before_it_is_asked_for_sends_nothing(
    incident: RunningRelay, terminal: Callable[..., Terminal], rows: Rows
) -> None:
    screen = await asyncio.to_thread(terminal)
    await asyncio.to_thread(screen.shows, "Failure groups")
    await asyncio.to_thread(screen.press, "2")
    await asyncio.to_thread(screen.shows, f"all {ALL}")
    await asyncio.to_thread(screen.press_at_once, "r", "y")
    await asyncio.to_thread(screen.shows, "y does it")
    assert rows("SELECT 1 FROM relay.replay_plans") == []


@SIZES
async def test_keys_that_come_before_a_view_is_there_wait_for_it(
    incident: RunningRelay, terminal: Callable[..., Terminal], rows: Rows, size: tuple[int, int]
) -> None:
    """The group's list, one of it, back, and a replay of all of the group: on views that have not been opened yet."""
    screen = await asyncio.to_thread(terminal, size)
    await asyncio.to_thread(screen.shows, "Failure groups", f"{OVERLOADED} of {ALL}")
    await asyncio.to_thread(screen.press_at_once, "Enter", "Enter", "q", "R")
    await asyncio.to_thread(screen.shows, f"{OVERLOADED} deliveries", f"type {OVERLOADED}", "FILTERED")
    await asyncio.to_thread(screen.press, "Escape")  # at once with a letter it would be the letter with Alt
    await until(lambda: f"type {OVERLOADED}" not in screen.text)
    await asyncio.to_thread(screen.press_at_once, "j", "j", "Enter", "r")
    await asyncio.to_thread(screen.shows, "Attempts", "1 delivery", "y does it")
    await asyncio.to_thread(screen.press, "Escape")
    await until(lambda: "y does it" not in screen.text)
    await asyncio.to_thread(screen.press_at_once, "q", "Space", "j", "r")
    await asyncio.to_thread(screen.shows, "1 delivery", "y does it", "1 marked")
    assert rows("SELECT 1 FROM relay.replay_plans") == []
