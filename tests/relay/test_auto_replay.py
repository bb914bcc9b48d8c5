"""Auto-replay: what died of an outage is sent again once the agent is well, once, gently, and never when it is off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.agent import AgentStandIn
    from tests.servers import Rows, RunningRelay

BAD = "SELECT count(*) FROM dashboard_facts WHERE fact_type = 'support.health' AND value ->> 'ok' = 'false'"
GOOD = """
    SELECT count(*) FROM dashboard_facts WHERE fact_type = 'support.health' AND value ->> 'ok' = 'true'
       AND recorded_at > (SELECT max(recorded_at) FROM dashboard_facts
                           WHERE fact_type = 'support.health' AND value ->> 'ok' = 'false')
"""
PLANS = "SELECT requested_by, state, total, delivered FROM relay.replay_plans ORDER BY id"


async def outage(relay: RunningRelay, agent: AgentStandIn, rows: Rows, *, status: int = 503, count: int = 8) -> None:
    """The agent is down for as long as it takes `count` webhooks to die, and its probes to notice."""
    agent.healthy = False
    agent.behave(Behaviour(status=status))
    await asyncio.gather(*(relay.post({"event": "message_created", "id": n}) for n in range(count)))
    seen = rows.one(BAD)
    await until(lambda: rows.one(BAD) > seen)
    agent.healthy = True


async def test_what_died_of_an_outage_is_delivered_once_when_it_is_over(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows
) -> None:
    relay = await start_relay(relay_auto_replay=True, relay_probe_seconds=1)
    await outage(relay, agent, rows)
    agent.behave()
    await until(lambda: rows(PLANS) == [("auto-replay", "done", 8, 8)])
    assert rows("SELECT DISTINCT state FROM relay.deliveries") == ["delivered"]
    assert len([seen for seen in agent.seen if seen.status == 200]) == 8
    well = rows.one(GOOD)
    await until(lambda: rows.one(GOOD) > well + 2, what="it has checked again")
    assert len(rows(PLANS)) == 1


@pytest.mark.slow
async def test_it_stops_when_failures_return_and_does_not_try_again_and_again(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows
) -> None:
    relay = await start_relay(relay_auto_replay=True, relay_probe_seconds=1)
    await outage(relay, agent, rows)
    await until(lambda: rows("SELECT state FROM relay.replay_plans") == ["stopped"])
    well = rows.one(GOOD)
    await until(lambda: rows.one(GOOD) > well + 2, what="it has checked again")
    assert rows(PLANS) == [("auto-replay", "stopped", 8, 0)]


@pytest.mark.slow
async def test_several_relays_ask_for_one_plan(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows
) -> None:
    relays = [await start_relay(relay_auto_replay=True, relay_probe_seconds=1) for _ in range(3)]
    await outage(relays[0], agent, rows)
    agent.behave()
    await until(lambda: rows(PLANS) == [("auto-replay", "done", 8, 8)])
    assert len([seen for seen in agent.seen if seen.status == 200]) == 8


@pytest.mark.slow
async def test_what_no_retry_helps_stays_where_it_is(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows
) -> None:
    relay = await start_relay(relay_auto_replay=True, relay_probe_seconds=1)
    await outage(relay, agent, rows, status=422)
    agent.behave()
    await until(lambda: rows.one(GOOD) > 4)
    assert rows(PLANS) == []
    assert rows("SELECT DISTINCT state FROM relay.deliveries") == ["dead"]


async def test_it_is_off_unless_it_is_asked_for(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows
) -> None:
    relay = await start_relay(relay_probe_seconds=1)
    await outage(relay, agent, rows)
    agent.behave()
    await until(lambda: rows.one(GOOD) > 4)
    assert rows(PLANS) == []
