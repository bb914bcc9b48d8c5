"""The cursor stays where an operator put it, whatever changes around it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.console.conftest import OVERLOADED, webhook
from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import AgentStandIn, RunningRelay

    Console = Callable[..., Any]


async def two_more_snapshots(seen: Any) -> None:
    for _ in range(2):
        before = seen.app.context.snapshot
        await until(lambda before=before: seen.app.context.snapshot is not before)


@pytest.mark.parametrize(
    "key", ["down", "end", *(pytest.param(key, marks=pytest.mark.slow) for key in ("j", "pagedown"))]
)
async def test_another_group_stays_chosen(incident: RunningRelay, console: Console, key: str) -> None:
    async with console() as seen:
        await seen.shows("Failure groups", "answered 503")
        assert seen.app.view.group.final_status == "503"
        await seen.press(key)
        chosen = seen.app.view.group.final_status
        assert chosen != "503"
        await two_more_snapshots(seen)
        assert seen.app.view.group.final_status == chosen


async def test_a_group_that_is_overtaken_stays_chosen(
    incident: RunningRelay, console: Console, agent: AgentStandIn
) -> None:
    async with console() as seen:
        await seen.shows("Failure groups", "answered 503")
        await seen.press("j", "k")
        agent.behave(Behaviour(status=429))
        await asyncio.gather(*(incident.post(webhook(number)) for number in range(1_000, 1_060)))
        await until(lambda: next(iter(seen.app.view._groups)).startswith("status:429"), what="the other is on top")
        assert seen.app.view.group.final_status == "503"
        await seen.press("r")
        await seen.shows(f"{OVERLOADED} deliveries", f"{OVERLOADED} × Agent SDK answered 503")


async def test_the_newest_row_is_under_the_cursor_until_it_is_moved_and_again_after_g(
    incident: RunningRelay, console: Console, agent: AgentStandIn
) -> None:
    async def comes(number: int) -> str:
        await incident.post(webhook(number), x_chatwoot_delivery=f"new-{number}")
        await seen.shows(f"new-{number}")
        row: str = seen.app.view.list.row.delivery_id
        return row

    agent.behave(Behaviour(status=422))
    async with console() as seen:
        await seen.press("2")
        await seen.shows("newest first")
        assert await comes(2001) == "new-2001"
        await seen.press("j", "k")
        assert await comes(2002) == "new-2001"
        await seen.press("g")
        assert await comes(2003) == "new-2003"
