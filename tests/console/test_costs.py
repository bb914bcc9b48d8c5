"""What a tick costs the database: rows by index, however many deliveries, facts and log lines lie there."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from console.data import snapshot
from console.data.log_reading import LogReading
from console.data.readings import ActivityReading, BreakdownReading, RowsReading
from relay.domain.delivery import State
from relay.store.sessions import open_session
from relay.store.sorted_rows import Order

if TYPE_CHECKING:
    from console.data.snapshot import Reading
    from tests.servers import Rows

MANY = 20_000
_DELIVERIES = """
    INSERT INTO relay.deliveries
           (delivery_id, state, owner, claim, test, event, conversation_id, customer, received_at, claimed_at,
            finished_at, attempts, duration_ms, final_status, last_error, headers, body)
    SELECT gen_random_uuid(), CASE WHEN n %% 10 = 0 THEN 'dead' ELSE 'delivered' END, gen_random_uuid(),
           gen_random_uuid(), false, 'message_created', n::text, true, at, at, at, 3, 600,
           CASE WHEN n %% 10 = 0 THEN '503' ELSE '200' END,
           CASE WHEN n %% 10 = 0 THEN 'Agent SDK answered 503' END, '[]', '{"event": "message_created"}'
      FROM (SELECT n, now() - n * interval '4 seconds' AS at FROM generate_series(1, %(many)s) AS n) AS planted
"""
_ATTEMPTS = """
    INSERT INTO relay.attempts (delivery, run, number, started_at, wait_ms, duration_ms, status, error, answer)
    SELECT id, 1, 1, received_at, 0, 600, final_status, last_error, '{"error": "overloaded"}'
      FROM relay.deliveries ORDER BY id LIMIT %(many)s
"""
_FACTS = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)
    SELECT 'support.webhook.retry', 'support',
           jsonb_build_object('attempts', 3, 'success', n %% 10 > 0, 'durationMs', 600, 'finalStatus', '200'),
           '{}', now() - n * interval '4 seconds'
      FROM generate_series(1, %(many)s) AS n
"""
_LOG = """
    INSERT INTO relay.log (at, level, scope, message, fields, instance)
    SELECT now(), 'info', 'support.webhook', 'line ' || n, '{}', gen_random_uuid()
      FROM generate_series(1, %(many)s) AS n
"""
_SCANS = """
    SELECT relname, seq_scan FROM pg_stat_user_tables
     WHERE relname ~ '^(deliveries|dashboard_facts|attempts|log)' AND seq_scan > 0
"""
READINGS: dict[str, Reading | None] = {
    "overview": None,
    "dead letters": RowsReading("", (State.DEAD,)),
    "one cause": RowsReading('status:503 error:"Agent SDK answered 503"', (State.DEAD,)),
    "deliveries": RowsReading("", None),
    "the last hour": RowsReading("age:<1h", None),
    "sorted": RowsReading("age:<1h", None, order=Order.STATUS),
    "breakdown": BreakdownReading(timedelta(hours=1)),
    "log": LogReading(None),
    "activity": ActivityReading(),
}


@pytest.fixture
def a_lot(rows: Rows) -> Rows:
    """A database with some history."""
    for statement in (_DELIVERIES, _ATTEMPTS, _FACTS, _LOG):
        rows(statement, {"many": MANY})
    rows("VACUUM ANALYZE")
    rows("SELECT pg_stat_force_next_flush()")  # else its own scans, those of a BRIN index, are counted up to 1 s later
    return rows


async def test_a_tick_reads_no_table_from_end_to_end(a_lot: Rows, dsn: str) -> None:
    connection = await open_session(dsn, read_only=True, application="tests", timeout_ms=60_000)
    async with connection:
        for name, reading in READINGS.items():
            a_lot("SELECT pg_stat_reset()")
            seen = await snapshot.read(connection, reading, minutes_of=timedelta(hours=24))
            await connection.execute("SELECT pg_stat_force_next_flush()")
            await connection.execute("SELECT 1")
            assert seen.overview.open_dead_letters == MANY // 10
            assert not isinstance(seen.view, snapshot.TooSlow), name
            assert a_lot(_SCANS) == [], name
