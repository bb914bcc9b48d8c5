"""Leases: deliveries without a live owner are claimed, once, and operators' discards are carried out, once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from relay.store.claims import claim_abandoned, claim_backlog
from relay.store.database import connection_parameters
from relay.store.deliveries import apply_discards, hand_back
from relay.store.instances import Instance, beat, end, register, take_duty
from relay.store.storing import store
from tests.store.values import finish, finish_of, incoming, outcome

if TYPE_CHECKING:
    from relay.store.database import Connection
    from tests.servers import Rows
    from tests.store.plant import Plant

_DISCARD = (
    "INSERT INTO relay.operator_actions (operator, action, deliveries, reason) VALUES ('maria', 'discard', %s, 'spam')"
)


async def take_over(connection: Connection, owner: UUID, **given: Any) -> list[int]:
    """The rows that `owner` takes over, and after them those that it claims of the backlog."""
    given = {"held": [], "settled": True, "most": 100, "orphan_s": 60} | given
    taken = await claim_abandoned(connection, owner, **given)
    if given["most"] > len(taken):
        most = given["most"] - len(taken)
        taken += await claim_backlog(connection, owner, most=most, most_bytes=1_000_000)
    return [claimed.delivery.id for claimed in taken]


async def test_a_delivery_whose_owner_is_alive_is_not_claimed(connection: Connection, plant: Plant) -> None:
    plant.delivery("forwarding", owner=plant.relay(lease_s=30), age_s=3600)
    assert await take_over(connection, plant.relay()) == []


@pytest.mark.parametrize("lease_s", [-0.001, -3600])
async def test_a_delivery_whose_owners_lease_ran_out_is_taken_over_under_a_new_claim(
    connection: Connection, plant: Plant, rows: Rows, lease_s: float
) -> None:
    abandoned = plant.delivery("forwarding", owner=plant.relay(lease_s=lease_s))
    before = rows.one("SELECT claim FROM relay.deliveries")
    relay = plant.relay()
    (claimed,) = await claim_abandoned(connection, relay, held=[], settled=True, most=10, orphan_s=60)
    assert (claimed.delivery.id, claimed.delivery.run) == (abandoned, 2)
    assert rows.one("SELECT state, owner, claim, run FROM relay.deliveries") == ("forwarding", relay, claimed.claim, 2)
    assert claimed.claim != before


async def test_a_relay_that_is_back_only_now_leaves_to_the_others_what_they_may_still_hold(
    connection: Connection, plant: Plant
) -> None:
    plant.delivery("forwarding", owner=plant.relay(lease_s=-1))
    nobodys = plant.delivery("received")
    assert await take_over(connection, plant.relay(), settled=False) == [nobodys]


async def test_a_relay_does_not_take_over_from_itself_what_it_still_carries(
    connection: Connection, plant: Plant
) -> None:
    relay = plant.relay(lease_s=-1)
    carried, given_up = (plant.delivery("forwarding", owner=relay) for _ in range(2))
    assert await take_over(connection, relay, held=[carried]) == [given_up]


async def test_a_delivery_whose_owner_is_not_known_at_all_is_taken_over(connection: Connection, plant: Plant) -> None:
    abandoned = plant.delivery("forwarding", owner=uuid4())
    assert await take_over(connection, plant.relay()) == [abandoned]


async def test_what_is_over_is_never_taken_over(connection: Connection, plant: Plant) -> None:
    for state in ("delivered", "dead", "discarded"):
        plant.delivery(state)
    assert await take_over(connection, plant.relay()) == []


async def test_the_oldest_are_taken_over_first_and_no_more_than_asked_for(connection: Connection, plant: Plant) -> None:
    abandoned = [plant.delivery("received") for _ in range(5)]
    assert sorted(await take_over(connection, plant.relay(), most=3)) == abandoned[:3]
    assert sorted(await take_over(connection, plant.relay(), most=3)) == abandoned[3:]


async def test_a_relay_claims_its_own_unknown_ones_again_after_a_while(connection: Connection, plant: Plant) -> None:
    relay = plant.relay()
    known, unknown = (plant.delivery("forwarding", owner=relay, age_s=30) for _ in range(2))
    plant.delivery("forwarding", owner=relay, age_s=1)  # its commit may still be on the way back
    assert await take_over(connection, relay, held=[known], orphan_s=10) == [unknown]


async def test_relays_that_search_at_once_take_each_delivery_over_once(dsn: str, plant: Plant) -> None:
    abandoned = [plant.delivery("received") for _ in range(60)]

    async def one_relay() -> list[int]:
        parameters = connection_parameters(dsn, "tests")
        async with await psycopg.AsyncConnection.connect(autocommit=True, **parameters) as connection:
            relay, taken = plant.relay(), []
            while batch := await take_over(connection, relay, most=3):
                taken += batch
        return taken

    taken = await asyncio.gather(*(one_relay() for _ in range(4)))
    assert sorted(row for rows in taken for row in rows) == abandoned


async def test_what_is_handed_back_is_anybodys_at_once_and_the_late_finisher_is_fenced(
    connection: Connection, plant: Plant, rows: Rows
) -> None:
    stopping, other = plant.relay(), plant.relay()
    (claimed,) = await store(connection, stopping, [incoming()])
    kept = plant.delivery("forwarding", owner=other, age_s=1)
    assert await hand_back(connection, stopping) == 1
    assert await finish(connection, [finish_of(claimed, outcome("200"))]) == [False]
    assert rows("SELECT state, owner FROM relay.deliveries WHERE id <> %s", (kept,)) == [("received", None)]
    assert await take_over(connection, other) == [claimed.delivery.id]


async def test_a_heartbeat_renews_every_lease_and_says_if_the_relay_is_not_known(
    connection: Connection, plant: Plant
) -> None:
    relay = plant.relay(lease_s=-5)
    plant.delivery("forwarding", owner=relay)
    assert await beat(connection, relay, lease_s=30, in_flight=1)
    assert await take_over(connection, plant.relay()) == []
    assert not await beat(connection, uuid4(), lease_s=30, in_flight=0)


async def test_a_relay_that_stops_in_good_order_has_no_lease(connection: Connection, plant: Plant) -> None:
    relay = plant.relay(lease_s=3600)
    abandoned = plant.delivery("forwarding", owner=relay)
    await end(connection, relay)
    assert await take_over(connection, plant.relay()) == [abandoned]


@pytest.mark.parametrize(
    ("name", "boot", "slot", "replaces"),
    [
        ("host/1:8788", 2, 0, True),  # started again on the same address
        ("host/1:8788", 1, 0, True),  # a worker in the place of one that died
        ("host/1:8788", 1, 1, False),  # another worker of the same start
        ("host/1:8789", 2, 0, False),
    ],
)
async def test_a_relay_ends_the_leases_of_those_it_replaces(
    connection: Connection, plant: Plant, name: str, boot: int, slot: int, *, replaces: bool
) -> None:
    first = _instance("host/1:8788", 1, 0)
    assert await register(connection, first, 3600) == 0
    abandoned = plant.delivery("forwarding", owner=first.id)
    second = _instance(name, boot, slot)
    assert await register(connection, second, 3600) == int(replaces)
    assert await take_over(connection, second.id) == ([abandoned] if replaces else [])


def _instance(name: str, boot: int, slot: int) -> Instance:
    return Instance(
        id=uuid4(), name=name, boot=UUID(int=boot), slot=slot, pid=1, version="0", signed=True, agent="http://agent"
    )


async def test_a_duty_is_one_relays_until_its_time_is_up(connection: Connection, rows: Rows) -> None:
    first, second = uuid4(), uuid4()
    assert await take_duty(connection, "probes", first, for_s=60)
    assert not await take_duty(connection, "probes", second, for_s=60)
    assert await take_duty(connection, "probes", first, for_s=60)
    rows("UPDATE relay.duties SET until = now() - interval '1 second'")
    assert await take_duty(connection, "probes", second, for_s=60)


async def test_a_discard_takes_dead_letters_out_of_the_queue_and_says_how_many(
    connection: Connection, plant: Plant, rows: Rows
) -> None:
    dead, kept, delivered = plant.delivery("dead"), plant.delivery("dead"), plant.delivery("delivered")
    rows(_DISCARD, ([dead, delivered, 999_999],))
    assert await apply_discards(connection) == 1
    assert rows("SELECT id, state FROM relay.deliveries ORDER BY id") == [
        (dead, "discarded"), (kept, "dead"), (delivered, "delivered"),
    ]  # fmt: skip
    assert rows("SELECT applied_at IS NOT NULL, result FROM relay.discards") == [(True, {"discarded": 1, "asked": 3})]
    assert await apply_discards(connection) == 0


@pytest.mark.parametrize("deliveries", [None, []])
async def test_a_discard_of_nothing_is_applied_and_discards_nothing(
    connection: Connection, plant: Plant, rows: Rows, deliveries: list[int] | None
) -> None:
    plant.delivery("dead")
    rows(_DISCARD, (deliveries,))
    assert await apply_discards(connection) == 1
    assert rows("SELECT state FROM relay.deliveries") == ["dead"]
    assert rows("SELECT result FROM relay.discards") == [{"discarded": 0, "asked": 0}]


async def test_other_actions_of_operators_are_no_discards(connection: Connection, plant: Plant, rows: Rows) -> None:
    dead = plant.delivery("dead")
    rows("INSERT INTO relay.operator_actions (operator, action, deliveries) VALUES ('maria', 'note', %s)", ([dead],))
    assert await apply_discards(connection) == 0
    assert rows("SELECT state FROM relay.deliveries") == ["dead"]
