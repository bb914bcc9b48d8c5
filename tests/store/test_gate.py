"""Holds and releases, as the store has them (DESIGN, 1.4)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from relay.errors import Refused
from relay.forwarding.circuit_breaker import FIRST_PAUSE_S, MOST_PAUSE_S
from relay.store import gate
from relay.store.claims import claim_backlog, claim_probe, claim_tests
from relay.store.storing import store
from tests.store.plant import Plant
from tests.store.values import finish, finish_of, incoming, outcome

if TYPE_CHECKING:
    from relay.store.database import Connection
    from tests.servers import Rows


async def test_the_rate_of_a_release_holds_until_the_backlog_is_empty_and_can_be_changed(
    connection: Connection,
) -> None:
    owner = uuid4()

    async def rate() -> float | None:
        await gate.end_holds(connection)
        return (await gate.read(connection, owner)).rate

    async def drain(most: int) -> None:
        claims = await claim_backlog(connection, owner, most=most, most_bytes=10_000)
        assert await finish(connection, [finish_of(one, outcome("200")) for one in claims]) == [True] * most

    await gate.hold(connection, "maria", "deploying the agent")
    await store(connection, owner, [incoming() for _ in range(2)])
    assert await rate() is None
    assert await gate.release(connection, "maria", 5)
    assert await rate() == 5
    await store(connection, owner, [replace(incoming(), wanted=False)])  # it came while the backlog drains
    await drain(2)
    assert await gate.release(connection, "maria", 7)
    assert await rate() == 7
    await drain(1)
    assert await rate() is None
    await store(connection, owner, [replace(incoming(), wanted=False)])
    assert await rate() is None  # what waits later has nothing to do with that release
    assert not await gate.release(connection, "maria", 9)


async def test_a_test_webhook_that_waits_is_no_probe_and_needs_none(connection: Connection, rows: Rows) -> None:
    owner = Plant(rows).relay()
    waiting = Plant(rows).delivery("received", test=True)
    Plant(rows).delivery("forwarding", test=True, owner=owner)
    await gate.open_the_breaker(connection, "it fails", pause_s=0, first_s=FIRST_PAUSE_S)
    assert await claim_probe(connection, owner, None) is None
    assert [one.delivery.id for one in await claim_tests(connection, owner, most=9)] == [waiting]


async def test_a_rate_that_a_relay_cannot_divide_by_is_refused(connection: Connection) -> None:
    await gate.hold(connection, "maria", "deploying the agent")
    for rate in (0.0, -1.0, 1e-320, 1e-4, 1e7, 1.7e308, float("inf"), float("nan")):
        with pytest.raises(Refused, match=r"from 0\.001 to 1,000,000"):
            await gate.release(connection, "maria", rate)
    assert (await gate.read(connection, uuid4())).held
    assert await gate.release(connection, "maria", 0.001)


async def test_probes_come_after_5_s_and_then_at_doubling_intervals_of_up_to_60_s(connection: Connection) -> None:
    pauses = []
    await gate.open_the_breaker(connection, "it fails", pause_s=FIRST_PAUSE_S, first_s=FIRST_PAUSE_S)
    for _ in range(6):
        cursor = await connection.execute(
            "WITH due AS (SELECT probe_at - now() AS pause FROM relay.breaker) "
            "UPDATE relay.breaker SET probe_at = now() RETURNING (SELECT extract(epoch FROM pause)::float8 FROM due)"
        )
        row = await cursor.fetchone()
        assert row is not None
        pauses.append(round(row[0]))
        assert (await gate.take_probe(connection, attempt_s=30, most_s=MOST_PAUSE_S))[0]
        await gate.probe_failed(connection)
    assert pauses == [5, 10, 20, 40, 60, 60]
