"""The log: following, searching, levels, older lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.console.conftest import webhook
from tests.servers import locked, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.console.screens import Watched
    from tests.servers import Rows, RunningRelay

    Console = Callable[..., object]
    Start = Callable[..., Awaitable[RunningRelay]]


async def test_the_log_follows_its_end(relay: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "the log is empty")
        await relay.post(webhook(1), x_chatwoot_delivery="abcdefgh-1")
        await seen.shows("abcdefgh  Forwarding Chatwoot webhook  attempt: 1", "Webhook forwarded successfully")


async def test_a_line_that_is_committed_after_a_later_one_takes_its_place_before_it(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    append = (
        "INSERT INTO relay.log (at, level, scope, message, fields, instance)"
        " VALUES (now(), 'info', 'support.webhook', %s, '{}', gen_random_uuid())"
    )
    async with console() as seen:
        await seen.press("4")
        rows(append, ("the first",))
        await seen.shows("the first", "1 line")
        with psycopg.connect(rows.dsn) as slower:
            slower.execute(append, ("the second",))
            rows(append, ("the third",))
            await seen.shows("the third", "2 lines")
        shown = await seen.shows("the second", "3 lines")
        assert shown.index("the first") < shown.index("the second") < shown.index("the third")


async def test_the_log_is_held_and_followed_again(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "Webhook forwarded successfully")
        await seen.press("k")
        await seen.shows("held; f follows")
        await seen.press("f")
        await seen.shows("FOLLOWING")


async def test_the_log_is_searched_both_ways(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "Webhook forwarded successfully")
        await seen.press("slash")
        await seen.type("00000003")
        await seen.press("enter")
        await seen.shows("search 00000003", "held")
        lines = seen.app.screen.query_one("#log-lines")
        last = lines.cursor
        await seen.press("N")
        await until(lambda: lines.cursor < last)
        await seen.press("n")
        await until(lambda: lines.cursor == last)
        await seen.press("n")
        await seen.shows("match 1 of", "wrapped to the top, no match further down")
        assert lines.cursor < last
        await seen.press("N")
        await seen.shows("wrapped to the bottom, no match further up")
        assert lines.cursor == last


@pytest.mark.usefixtures("kathmandu")
async def test_another_zone_keeps_the_search_the_marks_and_the_place(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "Webhook forwarded successfully")
        await seen.press("slash", *"00000003", "enter")
        await seen.shows("search 00000003", "held")
        lines = seen.app.screen.query_one("#log-lines")
        await seen.press("m", "o")
        shown = await seen.shows("only lines with 00000003", "■")
        before, clocks = lines.key, re.findall(r"\d\d:\d\d:\d\d\.\d{3}", shown)
        await seen.press("L")
        await seen.hides(clocks[-1])
        await seen.shows("only lines with 00000003", "■", "held")
        assert lines.key == before


async def test_a_search_from_an_older_line_wraps_around_to_a_match_below(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    rows(_LOGGED, {"lines": 300, "failures": 0})
    async with console((80, 24)) as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "line 300")
        await seen.press("g")
        await seen.shows("the log begins here")
        await seen.press("slash")
        await seen.type("LINE 29")
        await seen.press("enter")
        await seen.shows("match 11 of 11", "wrapped to the bottom, no match further up")
        assert under_cursor(seen) == "line 299"
        await seen.press("n")
        await seen.shows("match 1 of 11", "wrapped to the top, no match further down")
        assert under_cursor(seen) == "line 29"


async def test_the_log_shows_the_lines_that_match_alone(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "00000047")
        await seen.press("slash")
        await seen.type("00000047")
        await seen.press("enter", "o")
        await seen.shows("only lines with 00000047")
        lines = [line for line in seen.text.splitlines() if re.match(r" ?\d\d:\d\d:\d\d\.", line)]
        assert lines
        assert all("00000047" in line for line in lines)
        await seen.press("escape")
        await seen.hides("only lines with")
        assert any("00000047" not in line for line in seen.text.splitlines() if "webhook" in line)


async def test_without_a_search_the_log_says_how_to_begin_one(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING")
        for key in ("N", "n", "o"):
            await seen.press("left_square_bracket")
            await seen.hides("search for something")
            await seen.press(key)
            await seen.shows("search for something with / first")
        assert not seen.app._notifications


async def test_the_log_jumps_from_failure_to_failure(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("Webhook forwarded successfully")
        await seen.press("left_square_bracket")
        lines = seen.app.screen.query_one("#log-lines")
        await until(lambda: lines.cursor < len(lines.keys) - 1)
        first = lines.cursor
        await seen.press("left_square_bracket")
        await until(lambda: lines.cursor < first)
        await seen.press("right_square_bracket")
        await until(lambda: lines.cursor == first)


async def test_a_line_too_long_for_the_screen_is_read_to_its_end_below(
    incident: RunningRelay, console: Console
) -> None:
    async with console((80, 24)) as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING")
        assert "finalStatus" not in seen.text
        await seen.press("left_square_bracket")
        await seen.shows("held; f follows", "finalStatus: 4")
        await seen.press("f")
        await seen.hides("finalStatus")


async def test_the_log_shows_a_level_and_worse(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("Forwarding Chatwoot webhook")
        await seen.press("l")
        await seen.shows("level warning and worse")
        await seen.hides("Forwarding Chatwoot webhook")
        await seen.press("l")
        await seen.shows("level error and worse", "dead-lettered")


async def test_a_log_line_leads_to_its_delivery(relay: RunningRelay, console: Console) -> None:
    await relay.post(webhook(1), x_chatwoot_delivery="the-one-and-only")
    async with console() as seen:
        await seen.press("4")
        await seen.shows("Webhook forwarded successfully")
        await seen.press("enter")
        await seen.shows("the-one-and-only", "DELIVERED")


async def test_the_log_goes_back_fifty_thousand_lines(relay: RunningRelay, console: Console, rows: Rows) -> None:
    rows(
        "INSERT INTO relay.log (at, level, scope, message, fields, instance)"
        " SELECT now(), 'info', 'support.webhook', 'line ' || n, '{}', gen_random_uuid()"
        " FROM generate_series(1, 50000) n"
    )
    async with console() as seen:
        await seen.press("4")
        await seen.shows("line 50000")
        await seen.shows("the newest 1,000 lines", "k at the top, or g, loads older")
        await seen.press("g")
        await seen.shows("50,000 lines", "the log begins here")
        await until(lambda: any(line.rstrip().endswith("line 1") for line in seen.text.splitlines()))


async def test_the_log_says_that_it_catches_up(relay: RunningRelay, console: Console, rows: Rows) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("No webhook yet")
        await relay.post(webhook(1))
        await seen.shows("FOLLOWING", "Webhook forwarded successfully")
        view, said = seen.app.view, []
        update = view._update

        def recorded(log: Any) -> None:
            update(log)
            said.append(view.query_one("#filter-line").content.plain.split("  ")[0])

        view._update = recorded  # it may be over before a test reads the screen
        await seen.press("1")
        rows(_LOGGED, {"failures": 0, "lines": 20_000})
        await seen.press("4")
        await seen.shows("FOLLOWING", "line 20000")
    assert "CATCHING UP" in said
    assert said[-1] == "FOLLOWING"


_LOGGED = """
    INSERT INTO relay.log (at, level, scope, message, fields, instance)
    SELECT now(), CASE WHEN n <= %(failures)s THEN 'error' ELSE 'info' END, 'support.webhook', 'line ' || n, '{}',
           gen_random_uuid()
      FROM generate_series(1, %(lines)s) n
"""
"""So many lines, the oldest of which are failures."""


def unreadable(rows: Rows) -> AbstractAsyncContextManager[None]:
    """The log, for as long as the block lasts."""
    return locked(rows.dsn, "relay.log", "ACCESS EXCLUSIVE")


def under_cursor(seen: Watched) -> str:
    return seen.app.screen._log.current.message


async def test_the_log_searches_further_back_for_a_failure_than_it_has_read(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    rows(_LOGGED, {"lines": 9_000, "failures": 3})
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "the newest 1,000 lines")
        async with unreadable(rows):
            await seen.press("left_square_bracket")
            await seen.shows("reading older lines …")
        await until(lambda: under_cursor(seen) == "line 3")
        await seen.press("left_square_bracket", "left_square_bracket")
        assert under_cursor(seen) == "line 1"
        await seen.press("left_square_bracket")
        await seen.shows("No more failures above; the log begins here")
        assert not seen.app._notifications


async def test_a_search_of_the_log_reads_further_back_and_says_where_it_ended(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    rows(_LOGGED, {"lines": 5_000, "failures": 0})
    async with console() as seen:
        await seen.press("4", "slash")
        await seen.shows("the newest 1,000 lines")
        await seen.type("line 12")
        await seen.press("enter")
        await until(lambda: under_cursor(seen) == "line 1299")
        await seen.press("slash")
        seen.app.screen.query_one("#filter").value = "nowhere"
        await seen.press("enter")
        await seen.shows("search nowhere", "no match in all 5,000 lines")
        await seen.press("N", "N", "n")
        assert "no match in all 5,000 lines" in seen.text
        assert not seen.app._notifications


async def test_a_search_ends_with_the_lines_that_are_held(relay: RunningRelay, console: Console, rows: Rows) -> None:
    rows(_LOGGED, {"lines": 52_000, "failures": 1})
    async with console() as seen:
        await seen.press("4")
        await seen.shows("the newest 1,000 lines")
        await seen.press("left_square_bracket")
        await seen.shows("the newest 50,000 lines", "No more failures above; no more than 50,000 lines are kept")


async def test_a_level_fills_the_screen_from_older_lines_and_says_of_how_many(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    rows(_LOGGED, {"lines": 6_000, "failures": 2_500})
    async with console() as seen:
        await seen.press("4")
        await seen.shows("the newest 1,000 lines")
        await seen.press("l", "l")
        await seen.shows("1,500 of the newest 5,000 lines", "level error and worse", "line 2500")
        await seen.press("g")
        await seen.shows("2,500 of all 6,000 lines", "the log begins here")
        assert under_cursor(seen) == "line 1"


async def test_esc_stops_reading_further_back(relay: RunningRelay, console: Console, rows: Rows) -> None:
    rows(_LOGGED, {"lines": 40_000, "failures": 0})
    async with console() as seen:
        await seen.press("4")
        await seen.shows("the newest 1,000 lines")
        async with unreadable(rows):
            await seen.press("l", "l")
            await seen.shows("reading older lines …", "None of these lines is shown")
            await seen.press("escape")
            await seen.hides("reading older lines …")
        read_at = seen.app.context.snapshot.read_at
        await until(lambda: seen.app.context.snapshot.read_at > read_at + 1)
        assert "0 of the newest 1,000 lines" in seen.text


async def test_the_line_above_the_first_one_is_read_and_gone_to(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    rows(_LOGGED, {"lines": 2_000, "failures": 0})
    async with console() as seen:
        await seen.press("4")
        await seen.shows("the newest 1,000 lines")
        seen.app.screen.query_one("#log-lines").move_to(0)
        await until(lambda: under_cursor(seen) == "line 1001")
        await seen.press("k")
        await until(lambda: under_cursor(seen) == "line 1000")
        assert "line 1001" in seen.text
