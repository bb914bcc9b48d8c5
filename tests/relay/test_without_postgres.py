"""A relay whose Postgres is away (DESIGN 2): 503 and Retry-After, nothing stored, and all is well once it is back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.relay.traces import deliveries, seen_of, trace
from tests.relay.wire import BluntAgent
from tests.servers import AgentStandIn, Rows, RunningRelay, locked, relay_settings, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.relay.conftest import Outage

pytestmark = pytest.mark.usefixtures("impatient_store")

PAYLOAD = {"event": "message_created", "id": 9, "conversation": {"id": 77}}


_WAITING = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%WITH light AS%'
"""


async def test_webhooks_are_answered_503_while_postgres_is_away_and_taken_when_it_is_back(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows, outage: Outage
) -> None:
    relay = await start_relay(relay_lease_seconds=60, chatwoot_webhook_response_deadline_ms=20_000)
    assert (await relay.post(PAYLOAD)).status_code == 200
    ids = [str(uuid4()) for _ in range(3)]
    outage.begin()
    health, metrics, *answers = await asyncio.gather(
        relay.client.get("/health"),
        relay.client.get("/metrics"),
        *(relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id) for delivery_id in ids),
    )
    for answer in answers:
        assert (answer.status_code, list(answer.json())) == (503, ["error"])
        assert int(answer.headers["retry-after"]) >= 1
    assert (health.status_code, health.json()["status"], health.json()["database"]["ok"]) == (503, "unavailable", False)
    assert (metrics.status_code, "relay_database_up 0.0" in metrics.text) == (200, True)
    outage.end()
    assert deliveries(rows) == 1
    assert not any(seen_of(agent, delivery_id) for delivery_id in ids)
    await relay.ready()
    for delivery_id in ids:
        assert (await relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)).status_code == 200
        assert trace(rows, delivery_id).state == "delivered"


async def test_an_outcome_that_postgres_cannot_take_is_recorded_once_it_is_back(
    start_relay: Callable[..., Awaitable[RunningRelay]], rows: Rows, outage: Outage
) -> None:
    delivery_id = str(uuid4())
    async with BluntAgent(b"HTTP/1.1 422 No\r\nContent-Length: 0\r\n\r\n", held=True) as agent:
        relay = await start_relay(agent=agent.url, relay_lease_seconds=60)
        answer = asyncio.create_task(relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id))
        await until(lambda: agent.asked)
        outage.begin()
        agent.may_answer.set()
        await until(lambda: "Postgres is away" in relay.output)
        outage.end()
        assert (await answer).status_code in {500, 202}
        await until(lambda: trace(rows, delivery_id).state == "dead")
        left = trace(rows, delivery_id)
        assert (len(left.tried), len(left.retries), len(left.dead_letters)) == (1, 1, 1)


async def test_what_waited_behind_a_commit_that_hung_is_not_stored_after_its_sender_was_answered_503(
    relay: RunningRelay, agent: AgentStandIn, rows: Rows
) -> None:
    behind = str(uuid4())
    async with locked(rows.dsn, "relay.deliveries"):
        hanging = asyncio.create_task(relay.post(PAYLOAD))
        await until(lambda: rows.one(_WAITING) == 1)
        waiting = await relay.post(PAYLOAD, X_Chatwoot_Delivery=behind)
        assert (waiting.status_code, (await hanging).status_code) == (503, 503)
    await until(lambda: "Webhook forwarded successfully" in relay.output, what="what was being stored is not lost")
    assert (await relay.post(PAYLOAD)).status_code == 200
    assert not seen_of(agent, behind)
    assert deliveries(rows) == 2


async def in_flight_while_not_ready(relay: RunningRelay) -> int:
    """What its health check says; -1 while it does not even listen."""
    try:
        health = await relay.client.get("/health")
    except httpx.TransportError:
        return -1
    assert health.status_code == 503
    in_flight: int = health.json()["in_flight"]
    return in_flight


async def _holds(relay: RunningRelay, deliveries: int) -> None:
    async def held() -> bool:
        return await in_flight_while_not_ready(relay) == deliveries

    await until(held)


async def test_a_webhook_that_comes_while_the_relay_starts_waits_for_it_and_is_not_refused(
    agent: AgentStandIn, rows: Rows
) -> None:
    delivery_id = str(uuid4())
    with psycopg.connect(rows.dsn) as other:
        other.execute("LOCK TABLE relay.instances IN ACCESS EXCLUSIVE MODE")
        relay = RunningRelay(relay_settings(agent), rows.dsn)
        await _holds(relay, 0)
        answer = asyncio.create_task(relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id))
        await _holds(relay, 1)
    assert (await answer).status_code == 200
    assert trace(rows, delivery_id).state == "delivered"
    await relay.stop()


async def test_a_relay_that_takes_too_long_to_start_answers_503(agent: AgentStandIn, rows: Rows) -> None:
    with psycopg.connect(rows.dsn) as other:
        other.execute("LOCK TABLE relay.instances IN ACCESS EXCLUSIVE MODE")
        relay = RunningRelay(relay_settings(agent), rows.dsn)
        await _holds(relay, 0)
        answer = await relay.post(PAYLOAD)
    assert (answer.status_code, answer.json()) == (503, {"error": "The relay is not ready to store webhooks"})
    assert int(answer.headers["retry-after"]) >= 1
    await relay.ready()
    assert deliveries(rows) == 0
    await relay.stop()
