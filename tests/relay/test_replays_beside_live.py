"""Replays beside live traffic: neither stops the other, whatever rows are held and however few slots there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from tests.relay.operators import Operator
from tests.servers import until
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.servers import Rows, RunningRelay

    Start = Callable[..., Awaitable[RunningRelay]]

_DELIVERED = "SELECT count(*) FROM relay.deliveries WHERE state = 'delivered' AND plan_id IS NULL"
_REPLAYED = "SELECT count(*) FROM relay.deliveries WHERE state = 'delivered' AND plan_id IS NOT NULL"
_HOLD = "SELECT FROM relay.deliveries WHERE delivery_id = 'dead-0' FOR UPDATE"


def message(number: int) -> dict[str, Any]:
    return {"event": "message_created", "id": number}


async def test_a_dead_letter_that_another_session_holds_stops_no_live_traffic_and_no_other_replay(
    start_relay: Start, rows: Rows
) -> None:
    relays = [await start_relay(relay_respond="stored", **settings) for settings in ({}, {"relay_agent_rate": 200})]
    plant = Plant(rows)
    for number in range(3):
        plant.delivery("dead", delivery_id=f"dead-{number}")
    async with await psycopg.AsyncConnection.connect(rows.dsn) as holder, Operator(rows.dsn) as operator:
        await holder.execute(_HOLD)
        await operator.ask("dead-0", "dead-1")
        await operator.ask("dead-2")
        for number in range(40):
            await relays[number % 2].post(message(number))
        await until(lambda: rows.one(_DELIVERED) == 40, what="live traffic is delivered while the row is held")
        await until(lambda: rows.one(_REPLAYED) == 2, what="so are the other dead letters")
        await holder.rollback()
    await until(lambda: rows("SELECT DISTINCT state FROM relay.replay_plans") == ["done"])
    assert rows("SELECT sum(delivered), sum(skipped) FROM relay.replay_plans") == [(3, 0)]


async def test_a_replay_that_may_not_send_yet_leaves_the_only_slot_to_live_traffic(
    start_relay: Start, rows: Rows
) -> None:
    relay = await start_relay(relay_agent_concurrency=1, relay_respond="stored")
    plant = Plant(rows)
    for number in range(2):
        plant.delivery("dead", delivery_id=f"dead-{number}")
    async with Operator(rows.dsn) as operator:
        await operator.ask("dead-0", "dead-1", rate=0.001)
        await until(lambda: rows.one(_REPLAYED) == 1)
        for number in range(30):
            await relay.post(message(number))
        await until(lambda: rows.one(_DELIVERED) == 30)
        assert rows("SELECT state FROM relay.replay_plans") == ["running"]


async def test_with_one_slot_live_traffic_leaves_a_replay_its_share(start_relay: Start, rows: Rows) -> None:
    relay = await start_relay(relay_agent_concurrency=1, relay_respond="stored")
    plant = Plant(rows)
    for number in range(3):
        plant.delivery("dead", delivery_id=f"dead-{number}")
    async with Operator(rows.dsn) as operator:
        await operator.ask("dead-0", "dead-1", "dead-2")
        number = 0
        while rows.one(_REPLAYED) < 3:
            await relay.post(message(number))
            number += 1
        await until(lambda: rows.one(_DELIVERED) == number)


async def test_a_relay_without_a_slot_of_the_agent_leaves_replays_to_one_that_has_it(
    start_relay: Start, rows: Rows
) -> None:
    for _ in range(2):
        await start_relay(relay_agent_concurrency=1)
    await until(lambda: rows.one("SELECT count(*) FROM relay.destination_slots WHERE owner IS NOT NULL") == 1)
    plant = Plant(rows)
    async with Operator(rows.dsn) as operator:
        for number in range(4):
            plant.delivery("dead", delivery_id=f"dead-{number}")
            await operator.ask(f"dead-{number}")
    await until(lambda: rows("SELECT state, delivered FROM relay.replay_plans") == [("done", 1)] * 4)
