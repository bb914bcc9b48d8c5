"""Plans that a relay's session made while there was nothing are good for a backlog, before anything is analyzed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from relay.store import backlog, claims, destinations, finishing, gate
from relay.store.database import Database
from relay.store.deliveries import Claimed
from relay.store.storing import store
from tests.store.test_order import message
from tests.store.values import finish_of, outcome

if TYPE_CHECKING:
    from relay.store.database import Connection
    from tests.servers import Rows
    from tests.store.plant import Plant

_WAITING = 20_000
_GROW = """
    WITH made AS (
        INSERT INTO relay.deliveries (delivery_id, state, claim, test, customer, headers, body, conversation_id,
               conversation_key, position, blocked, waits, since, next_attempt_at)
        SELECT 'waits-' || n, CASE WHEN n %% 8 = 0 THEN 'waiting' ELSE 'received' END, gen_random_uuid(), false, true,
               '[]', '{}', n / 4, '2/' || n / 4, 1 + n %% 4, n %% 4 > 0,
               CASE n %% 8 WHEN 0 THEN 'retry' WHEN 4 THEN 'capacity' ELSE 'order' END, now(),
               CASE WHEN n %% 8 = 0 THEN now() + interval '1 hour' END
          FROM generate_series(1, %(number)s) AS n
        RETURNING conversation_key
    )
    INSERT INTO relay.conversations (key, issued, head)
    SELECT conversation_key, 4, 1 FROM made GROUP BY conversation_key
"""
_READ = """
    SELECT sum(seq_tup_read + idx_tup_fetch)::integer FROM pg_stat_user_tables
     WHERE schemaname = 'relay' AND relname IN ('deliveries', 'conversations')
"""


async def test_no_statement_of_the_forwarding_reads_a_whole_table_that_grew(dsn: str, rows: Rows, plant: Plant) -> None:
    owner = plant.relay()
    rows("ALTER TABLE relay.deliveries SET (autovacuum_enabled = off)")
    rows("ALTER TABLE relay.conversations SET (autovacuum_enabled = off)")
    rows("VACUUM ANALYZE relay.deliveries")
    rows("VACUUM ANALYZE relay.conversations")
    database = Database(dsn, max_size=1, lease_s=60)
    await database.open()
    async with database.connection() as connection:
        for number in range(8):  # both the driver and the server keep a plan from about the fifth time on
            await _work(connection, owner, f"small-{number}")
        rows(_GROW, {"number": _WAITING})
        before = await _read(connection)
        await _work(connection, owner, "large")
        assert await _read(connection) - before < _WAITING / 10
    await database.close()


async def _work(connection: Connection, owner: UUID, name: str) -> None:
    """One round of a relay: two of four messages are finished, and the backlog is claimed and refreshed."""
    stored = await store(connection, owner, [message(f"{name}-{number % 2}", number) for number in range(4)])
    ended = [finish_of(one, outcome("200")) for one in stored if isinstance(one, Claimed)]
    await finishing.finish(connection, [replace(ended[0], next_claim=uuid4()), *ended[1:]], owner=owner)
    async with connection.transaction(force_rollback=True):
        await claims.claim_backlog(connection, owner, most=16, most_bytes=1 << 20)
        await claims.claim_abandoned(connection, owner, held=[], settled=True, most=16, orphan_s=60)
        await gate.release_order(connection, 60)
        await destinations.refresh(connection, owner)
        await backlog.read(connection)


async def _read(connection: Connection) -> int:
    """How many rows of the two tables were read so far."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    row = await (await connection.execute(_READ)).fetchone()
    assert row is not None
    return int(row[0])
