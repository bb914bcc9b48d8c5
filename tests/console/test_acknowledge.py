"""`a` on the console: an alert is acknowledged with a reason, a second operator sees it, the audit has it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.console.conftest import open_dead_letters
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Rows, RunningRelay

    Console = Callable[..., Any]

_NOTES = "SELECT rule, operator, reason, until - at FROM relay.acknowledgements ORDER BY at"
_AUDIT = (
    "SELECT operator, reason, details ->> 'rule' FROM relay.operator_actions WHERE action = 'acknowledge' ORDER BY id"
)


@pytest.mark.parametrize("size", [(80, 24), (120, 36)], ids=["80x24", "120x36"])
async def test_the_worst_alert_is_acknowledged_and_a_second_operator_sees_by_whom(
    incident: RunningRelay, console: Console, rows: Rows, size: tuple[int, int]
) -> None:
    async with console(size) as seen, console(size, console_operator="jonas") as other:
        await seen.shows("a acknowledges", "◈Critical")
        assert "ack " not in seen.text
        await seen.press("a")
        await seen.shows("Acknowledge ◈Critical success-rate-critical as maria", "not sent again for 1 h")
        await seen.press("enter")  # no reason
        await seen.shows("Acknowledge ◈Critical")
        await seen.type("deploying the agent for 30m")
        await seen.press("enter")
        await seen.shows("success-rate-critical is acknowledged until", "ack maria")
        await other.shows("ack maria")
        await other.press("a")  # the next one, not the one that is acknowledged
        await other.shows("Acknowledge ‼escalate escalate-dlq as jonas")
        await other.press("escape", "5", "G")
        await other.shows("acknowledged by maria", "deploying")
    assert rows(_NOTES) == [("success-rate-critical", "maria", "deploying the agent", timedelta(minutes=30))]
    assert rows(_AUDIT) == [("maria", "deploying the agent", "success-rate-critical")]


async def test_the_alert_under_the_cursor_is_meant_while_the_alerts_have_the_focus(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    rows("SELECT relay.acknowledge('jonas', 'dlq-p2', 'known', 3600)")
    async with console() as seen:
        await seen.shows("a acknowledges", "ack jonas")
        await seen.press("tab")
        await until(lambda: seen.app.screen.focused.id == "alert-lines")
        await seen.press("j", "j", "a")
        await seen.shows("Acknowledge ●P2 dlq-p2 as maria", "It replaces what jonas", "known")
        await seen.type("mine now")
        await seen.press("enter")
        await seen.shows("dlq-p2 is acknowledged until", "ack maria")
    assert rows(_NOTES) == [("dlq-p2", "maria", "mine now", timedelta(hours=1))]


async def test_it_is_possible_on_every_screen_and_says_when_there_is_nothing_to_acknowledge(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await open_dead_letters(seen)
        await seen.press("a")
        await seen.shows("Acknowledge ◈Critical success-rate-critical as maria")
        await seen.press("escape")
        rows("SELECT relay.acknowledge('jonas', r, 'known', 60) FROM unnest(ARRAY['success-rate-critical', "
             "'escalate-dlq', 'dlq-p2', 'dlq-warning', 'attempts-info']) AS r")  # fmt: skip
        await until(lambda: all(one.acknowledged for one in seen.app.context.snapshot.overview.firing))
        await seen.press("a")
        await seen.shows("Every active alert is acknowledged")


async def test_with_read_only_it_is_hidden_and_refused(incident: RunningRelay, console: Console, rows: Rows) -> None:
    async with console(read_only=True) as seen:
        await seen.shows("D diagnoses")
        assert "a acknowledges" not in seen.text
        await seen.press("a")
        await seen.shows("The console is read-only")
    assert rows(_AUDIT) == []
