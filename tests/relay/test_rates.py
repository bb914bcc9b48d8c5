"""Rates over all relays (DESIGN 1.1, 1.4): of a release, of an Agent SDK, for the backlog, live traffic and replays."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest_asyncio

from relay.store import gate
from relay.store.database import connection_parameters
from relay.store.replays import PlanState
from tests.relay.operators import Operator
from tests.servers import HeldAgent, Rows, RunningRelay, until
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    StartRelay = Callable[..., Awaitable[RunningRelay]]

RATE = 20
"""Each start is 50 ms after the one before; two are allowed at once after a pause."""

_DELIVERED = "SELECT count(*) FROM relay.deliveries WHERE state = 'delivered'"


@pytest_asyncio.fixture
async def other_agent() -> AsyncIterator[HeldAgent]:
    """The Agent SDK of another destination."""
    stand_in = HeldAgent()
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


def seconds_of(agent: HeldAgent) -> float:
    """From the first webhook that the agent was sent to the last one."""
    return (agent.seen[-1].at - agent.seen[0].at).total_seconds()


async def test_a_release_drains_at_its_rate_over_all_relays_wherever_they_forward_to(
    start_relay: StartRelay, agent: HeldAgent, other_agent: HeldAgent, rows: Rows, dsn: str
) -> None:
    relays = [await start_relay() for _ in range(2)]
    await start_relay(agent=other_agent)
    async with await psycopg.AsyncConnection.connect(autocommit=True, **connection_parameters(dsn, "tests")) as opened:
        await gate.hold(opened, "maria", "deploying the agent")
        for n in range(41):
            assert (await relays[n % 2].post({"event": "message_created", "id": n})).status_code == 202
        await gate.release(opened, "maria", RATE)
    await until(lambda: rows.one(_DELIVERED) == 41)
    assert seconds_of(agent) > 0.9 * 40 / RATE  # that no rate is missed by much is `test_rate_limit`, without a clock


async def test_an_agents_rate_limits_live_traffic_and_replays_together(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows, dsn: str
) -> None:
    relays = [await start_relay(relay_agent_rate=RATE) for _ in range(2)]
    ids = [f"dead-{n}" for n in range(20)]
    for delivery_id in ids:
        Plant(rows).delivery("dead", delivery_id=delivery_id)
    async with Operator(dsn) as operator:
        plan = await operator.ask(*ids)
        await asyncio.gather(*(relays[n % 2].post({"event": "message_created", "id": n}) for n in range(20)))
        await operator.reaches(plan, PlanState.DONE)
    await until(lambda: rows.one(_DELIVERED) == 40)
    assert seconds_of(agent) > 0.9 * 37 / RATE


async def test_a_webhook_that_the_agents_rate_allows_is_forwarded_at_once(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(relay_agent_rate=0.001)
    answers = [await relay.post({"event": "message_created", "id": n}) for n in range(2)]
    assert [(answer.status_code, answer.json().get("waiting")) for answer in answers] == [
        (200, None), (202, "capacity"),
    ]  # fmt: skip
