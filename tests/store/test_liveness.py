"""Which relays are alive: their heartbeat is less than a minute old, an outage of Postgres not counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest_asyncio

from relay.store import instances, overview
from relay.store.database import connection_parameters
from relay.store.migrate import migrate
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from relay.store.database import Connection
    from tests.postgres import Server


@pytest_asyncio.fixture
async def restarted(server: Server) -> AsyncIterator[Connection]:
    """A connection to a Postgres that has only just started."""
    await migrate(server.dsn)
    parameters = connection_parameters(server.dsn, "tests")
    async with await psycopg.AsyncConnection.connect(autocommit=True, **parameters) as opened:
        yield opened


async def is_down(connection: Connection) -> bool:
    verdicts = (await overview.read(connection)).verdicts
    return next(verdict.firing for verdict in verdicts if verdict.rule.name == "relay-down")


async def test_a_relay_that_could_not_beat_while_postgres_was_away_is_alive(
    restarted: Connection, server: Server
) -> None:
    Plant(server.rows).relay(heartbeat_age_s=90)
    assert [relay.alive for relay in await instances.liveness(restarted)] == [True]
    assert not await is_down(restarted)
    assert len((await overview.read(restarted)).alive) == 1


async def test_a_relay_that_was_silent_long_before_or_had_stopped_is_gone(
    restarted: Connection, server: Server
) -> None:
    plant = Plant(server.rows)
    plant.relay(heartbeat_age_s=instances.AWAY_S + 60)
    stopped = plant.relay(heartbeat_age_s=90)
    server.rows("UPDATE relay.instances SET stopped_at = now() WHERE id = %s", (stopped,))
    assert [relay.alive for relay in await instances.liveness(restarted)] == [False, False]
    assert await is_down(restarted)


async def test_it_is_given_the_rules_minute_from_the_start_and_no_longer(
    restarted: Connection, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    Plant(server.rows).relay(heartbeat_age_s=90)
    monkeypatch.setattr(instances, "DOWN_AFTER_S", 0)
    assert [relay.alive for relay in await instances.liveness(restarted)] == [False]
