"""A newer version's schema arrives under running relays of this one, and under one that starts after it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from relay.store.migrate import Migration, migrations
from tests.schema import apply
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.conftest import RelayProcess, Senders, Survived
    from tests.faults.load import Load
    from tests.servers import Rows

pytestmark = pytest.mark.faults
_TABLES = ("relay.deliveries", "relay.attempts", "relay.instances", "relay.log", "dashboard_facts")
_LAST = migrations()[-1].version
_NEXT = [
    Migration(
        _LAST + 1,
        "columns",
        "".join(f"ALTER TABLE {table} ADD COLUMN newer text NOT NULL DEFAULT ''; " for table in _TABLES),
    ),
    Migration(
        _LAST + 2,
        "index",
        "-- relay: no transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS newer ON relay.deliveries (newer)",
    ),
]


async def test_relays_keep_serving_while_the_schema_is_migrated_and_others_start_on_it(
    make_relay: Callable[..., RelayProcess], load: Load, senders: Senders, rows: Rows, survived: Survived, dsn: str
) -> None:
    running, late = make_relay(), make_relay()
    await running.start()
    load.start(running)
    await load.continues()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await apply(connection, _NEXT)
    migrated_at = time.monotonic()
    recovery = await load.ledger.recovers(migrated_at)
    await load.continues(200)
    await late.start()
    await until(lambda: f"schema: {_LAST + 2}, known: {_LAST}" in late.output, what="it says what it found")
    assert "newer" not in running.output
    await asyncio.gather(*(senders.post(late.url, load.ledger) for _ in range(20)))
    counts = await load.ends_well(rows)
    assert counts["copies"] == 0
    assert load.ledger.refusals == []
    survived("Schema upgraded under a running relay", counts, recovery)
