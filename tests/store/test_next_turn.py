"""A relay takes the next delivery of a conversation as it finishes one, where it may."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from relay.store import finishing, gate
from relay.store.storing import store
from tests.store.test_order import message
from tests.store.values import finish_of, outcome

if TYPE_CHECKING:
    from relay.store.database import Connection
    from relay.store.deliveries import Claimed, Finish
    from tests.servers import Rows
    from tests.store.plant import Plant


async def begin(connection: Connection, owner: UUID, conversation: str) -> Finish:
    """Three messages of a conversation; the end of the first one, whose relay would take the second one."""
    first, *_ = await store(connection, owner, [message(conversation, number) for number in range(3)])
    return replace(finish_of(first, outcome("200")), next_claim=uuid4())  # type: ignore[arg-type]


async def taken(connection: Connection, owner: UUID, ended: Finish) -> Claimed | None:
    """What `owner` takes in finishing `ended`. What it does not take may be claimed."""
    (finished,) = await finishing.finish(connection, [ended], owner=owner)
    assert finished.recorded
    assert finished.promoted == (finished.next is None)
    return finished.next


async def test_the_next_delivery_comes_complete_and_under_the_claim_that_was_given(
    connection: Connection, plant: Plant, rows: Rows
) -> None:
    owner = plant.relay()
    ended = await begin(connection, owner, "a")
    rows("UPDATE relay.deliveries SET since = since - interval '1 minute'")
    found = await taken(connection, owner, ended)
    assert found is not None
    assert found.claim == ended.next_claim
    delivery = found.delivery
    assert (delivery.delivery_id, delivery.order_key, delivery.run, delivery.tries) == ("a:1", "1/a", 1, 0)
    assert (delivery.body, delivery.headers) == (ended.delivery.body, ended.delivery.headers)
    assert delivery.waited_ms >= 60_000
    assert rows("SELECT delivery_id, state, owner, waits, blocked FROM relay.deliveries ORDER BY id") == [
        ("a:0", "delivered", None, None, False),
        ("a:1", "forwarding", owner, None, False),
        ("a:2", "received", None, "order", True),
    ]
    last = await taken(connection, owner, replace(finish_of(found, outcome("400")), next_claim=uuid4()))
    assert last is not None
    assert await finishing.finish(connection, [replace(finish_of(last, outcome("200")), next_claim=uuid4())])
    assert rows("SELECT head FROM relay.conversations") == [None]
    assert rows("SELECT sum(number)::integer FROM relay.backlog_counts GROUP BY kind HAVING sum(number) <> 0") == []


async def test_what_was_taken_in_a_commit_whose_end_was_not_seen_is_found_again(
    connection: Connection, plant: Plant
) -> None:
    owner = plant.relay()
    ended = await begin(connection, owner, "a")
    first = await taken(connection, owner, ended)
    (again,) = await finishing.finish(connection, [ended], owner=owner)
    assert (again.recorded, again.next) == (True, first)


async def test_a_relay_takes_nothing_that_it_could_not_claim(connection: Connection, plant: Plant, rows: Rows) -> None:
    owner = plant.relay()
    not_wanted = replace(await begin(connection, owner, "not wanted"), next_claim=None)
    assert await taken(connection, owner, not_wanted) is None
    late = await begin(connection, owner, "late")
    rows("UPDATE relay.instances SET lease_until = now() - interval '1 ms'")
    assert await taken(connection, owner, late) is None
    rows("UPDATE relay.instances SET lease_until = now() + interval '1 hour'")
    for name, change in (
        ("of another agent", "destination = 'http://other'"),
        ("in a retry wait", "state = 'waiting', waits = 'retry', next_attempt_at = now() + interval '1 hour'"),
    ):
        ended = await begin(connection, owner, name)
        rows(f"UPDATE relay.deliveries SET {change} WHERE delivery_id = %s", (f"{name}:1",))
        assert await taken(connection, owner, ended) is None, name
    held, stopped = await begin(connection, owner, "held"), await begin(connection, owner, "stopped")
    await gate.hold(connection, "maria", "a deployment")
    assert await taken(connection, owner, held) is None
    await gate.release(connection, "maria")
    await gate.open_the_breaker(connection, "it fails", pause_s=5, first_s=5)
    assert await taken(connection, owner, stopped) is None
    nexts = "SELECT DISTINCT blocked, owner FROM relay.deliveries WHERE delivery_id LIKE '%:1'"
    assert rows(nexts) == [(False, None)]
