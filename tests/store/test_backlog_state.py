"""The backlog as one reading has it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from relay.domain.delivery import WaitReason
from relay.store import backlog, gate
from relay.store.database import connect
from relay.store.storing import store
from tests.link import round_trips
from tests.store.values import incoming

if TYPE_CHECKING:
    from relay.store.database import Connection
    from tests.servers import Rows
    from tests.store.plant import Plant


async def test_everything_is_read_in_one_round_trip(connection: Connection, dsn: str, rows: Rows, plant: Plant) -> None:
    nothing = await backlog.read(connection)
    assert (nothing.by_reason, nothing.oldest_s, nothing.drain_per_s) == ({}, None, 0)
    assert (nothing.hold, nothing.breaker, nothing.gone) == (None, None, [])
    plant.runs(delivered=30, age_s=0)
    await gate.open_the_breaker(connection, "503 \x1b[2J", pause_s=5, first_s=5)
    await gate.hold(connection, "maria", "a deploy")
    await store(connection, uuid4(), [replace(incoming(), order_key="1/1") for _ in range(2)])
    async with round_trips(dsn) as (near, trips), await connect(near, "round trips") as counted:
        await backlog.read(counted)  # what a session's first use costs is not counted
        before = sum(trips)
        state = await backlog.read(counted)
        assert sum(trips) - before == 1
    assert state.by_reason == {WaitReason.HOLD: 2}
    assert state.oldest_s is not None
    assert state.drain_per_s > 0
    assert state.hold is not None
    assert (state.hold.operator, state.hold.reason, state.hold.until) == ("maria", "a deploy", None)
    assert state.breaker is not None
    assert state.breaker.why == "503 ␛[2J"
