"""Fixtures of the console's tests: an incident that really happened, and consoles opened on it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from console.app import ConsoleApp
from tests.console.screens import Terminal, Watched, opened
from tests.servers import Behaviour, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.servers import AgentStandIn, Rows, RunningRelay

OVERLOADED, LIMITED, REFUSED = 40, 5, 2
"""How many dead letters of each cause `incident` leaves."""

ALL = OVERLOADED + LIMITED + REFUSED


def webhook(number: int, **more: Any) -> dict[str, Any]:
    """A customer's message in a conversation of the same number."""
    return {
        "event": "message_created",
        "id": number,
        "content": f"message {number}",
        "message_type": "incoming",
        "conversation": {"id": number},
    } | more


def later(rows: Rows, seconds: float) -> None:
    """Let so much time have passed since whatever failed, and since all that was recorded."""
    given = {"seconds": seconds}
    rows("UPDATE relay.deliveries SET finished_at = finished_at - make_interval(secs => %(seconds)s)"
         " WHERE state = 'dead'", given)  # fmt: skip
    rows("UPDATE dashboard_facts SET recorded_at = recorded_at - make_interval(secs => %(seconds)s)"
         " WHERE fact_type LIKE 'support.webhook.%%'", given)  # fmt: skip


async def open_dead_letters(seen: Watched) -> None:
    """Go to the dead letters that `incident` leaves."""
    await seen.press("2")
    await seen.shows(f"all {ALL}")


async def open_one(seen: Watched) -> None:
    """Go on to the first of them."""
    await open_dead_letters(seen)
    await seen.press("enter")
    await seen.shows("Attempts")


async def ask_for_the_group(seen: Watched) -> None:
    """Have the replay of the largest group asked for, on the overview."""
    await seen.shows("Failure groups", "answered 503")
    await seen.press("r")
    await seen.shows(f"type {OVERLOADED}")
    await seen.type(str(OVERLOADED))


@pytest_asyncio.fixture
async def incident(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows
) -> RunningRelay:
    """A relay whose agent failed for three reasons and is well again; what failed waits among the dead letters."""
    relay = await start_relay(relay_probe_seconds=1)
    numbers = range(1, OVERLOADED + LIMITED + REFUSED + 1)
    agent.behave(
        Behaviour(status=503, conversations=frozenset(range(1, OVERLOADED + 1))),
        Behaviour(status=429, conversations=frozenset(range(OVERLOADED + 1, OVERLOADED + LIMITED + 1))),
        Behaviour(status=422, conversations=frozenset(range(OVERLOADED + LIMITED + 1, len(numbers) + 1))),
    )
    for first in range(0, len(numbers), 10):
        posts = [relay.post(webhook(n), x_chatwoot_delivery=f"{n:08d}-delivery") for n in numbers[first : first + 10]]
        await asyncio.gather(*posts)
    agent.behave()
    await relay.post(webhook(500))
    assert rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'dead'") == len(numbers)
    return relay


@pytest.fixture
def console(dsn: str, agent: AgentStandIn) -> Callable[..., AbstractAsyncContextManager[Watched]]:
    """Opens consoles on the test's database, without a terminal; `size` is `(columns, lines)`."""

    def open_one(
        size: tuple[int, int] = (120, 36),
        *,
        relay: RunningRelay | None = None,
        read_only: bool = False,
        ascii_only: bool = False,
        **given: Any,
    ) -> AbstractAsyncContextManager[Watched]:
        settings = relay_settings(
            agent,
            **{"console_operator": "maria", "relay_url": relay.url if relay else "http://127.0.0.1:9"} | given,
        )
        return opened(ConsoleApp(settings, dsn, read_only=read_only, ascii_only=ascii_only), size)

    return open_one


@pytest.fixture
def terminal(tmp_path: Path, dsn: str) -> Iterator[Callable[..., Terminal]]:
    """Opens the whole program in a real terminal: tmux, with a server of its own."""
    terminals: list[Terminal] = []

    def open_one(size: tuple[int, int] = (120, 36), *arguments: str, **env: str) -> Terminal:
        given = {"DATABASE_URL": dsn, "HOME": str(tmp_path), "CONSOLE_OPERATOR": "maria"} | env
        terminals.append(Terminal(tmp_path, size, ("-m", "console", *arguments), given))
        return terminals[-1]

    yield open_one
    for one in terminals:
        one.close()


@pytest_asyncio.fixture
async def seen(agent: AgentStandIn) -> AsyncIterator[Callable[[], list[dict[str, Any]]]]:
    """The payloads that the agent has taken, oldest first."""
    yield lambda: [json.loads(request.body) for request in agent.seen if request.status == 200]
