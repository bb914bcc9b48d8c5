"""Deletes expired rows in batches of 1,000 so that locks stay short.

Open dead letters stay until an operator resolves them, whatever their age. Of `dashboard_facts` only the relay's
own kinds of facts are deleted: other applications may use the table as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.sql import SQL

from relay.domain.delivery import FactType

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from typing import Any

    from relay.store.database import Connection

BATCH = 1_000

# The next finished deliveries in the order of their ids, which is nearly that of their receipt. The BRIN index on the
# time of receipt finds less and less: space that was freed is used again, so that old and new rows share pages.
_DELIVERIES = """
    WITH oldest AS (
        SELECT id, received_at < now() - %(keep)s AS due, coalesce(finished_at, now()) < now() - %(keep)s AS over
          FROM relay.deliveries WHERE state IN ('delivered', 'discarded', 'ignored') AND id > %(after)s
         ORDER BY id LIMIT %(batch)s
    ), old AS (
        DELETE FROM relay.deliveries WHERE id = ANY(ARRAY(SELECT id FROM oldest WHERE due AND over)) RETURNING id
    ), tries AS (
        DELETE FROM relay.attempts WHERE delivery = ANY(ARRAY(SELECT id FROM old))
    )
    SELECT (SELECT count(*) FROM old), (SELECT max(id) FROM oldest WHERE due)
"""
_FACTS = """
    WITH old AS (
        DELETE FROM dashboard_facts WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM dashboard_facts WHERE fact_type = %(fact_type)s AND recorded_at < now() - %(keep)s
             LIMIT %(batch)s))
        RETURNING 1
    )
    SELECT count(*) FROM old
"""
_ASIDE = """
    WITH old AS (
        DELETE FROM relay.facts_aside WHERE id IN (
            SELECT id FROM (SELECT id, at FROM relay.facts_aside ORDER BY id LIMIT %(batch)s) AS oldest
             WHERE at < now() - %(keep)s)
        RETURNING 1
    )
    SELECT count(*) FROM old
"""
_LOG = """
    WITH old AS (
        DELETE FROM relay.log WHERE id IN (
            SELECT id FROM (SELECT id, at FROM relay.log ORDER BY id LIMIT %(batch)s) AS oldest
             WHERE at < now() - %(keep)s)
        RETURNING 1
    )
    SELECT count(*) FROM old
"""
_EVENTS = """
    WITH old AS (
        DELETE FROM relay.events WHERE id IN (
            SELECT id FROM relay.events WHERE at < now() - %(keep)s LIMIT %(batch)s)
        RETURNING 1
    )
    SELECT count(*) FROM old
"""
_PLANS = """
    WITH old AS (
        DELETE FROM relay.replay_plans WHERE id IN (
            SELECT id FROM relay.replay_plans
             WHERE state IN ('stopped', 'done') AND finished_at < now() - %(keep)s LIMIT 10)
        RETURNING 1
    )
    SELECT count(*) FROM old
"""
_NOTES = """
    WITH old AS (
        DELETE FROM relay.notes WHERE key IN (
            SELECT key FROM relay.notes WHERE created_at < now() - %(keep)s LIMIT %(batch)s)
        RETURNING 1
    )
    SELECT 0 * count(*) FROM old
"""
# A minute or an hour goes once all of it is that old: facts that are left in it would count as fewer than none when
# they go.
_MINUTES = """
    WITH old AS (
        DELETE FROM relay.minutes WHERE minute < now() - least(%(keep)s, interval '2 days') - interval '1 minute'
        RETURNING 1
    ), old_hours AS (
        DELETE FROM relay.hours WHERE hour < now() - least(%(keep)s, interval '2 days') - interval '1 hour'
        RETURNING 1
    )
    SELECT 0 * count(*) FROM old
"""
# Of sessions that have ended, into one row a cause; no session adds to that one.
_DEAD_CAUSES = """
    WITH old AS (
        DELETE FROM relay.dead_causes
         WHERE writer <> 0 AND writer NOT IN (SELECT pid FROM pg_stat_activity WHERE pid IS NOT NULL)
        RETURNING final_status, last_error, event, letters
    ), folded AS (
        INSERT INTO relay.dead_causes AS c
        SELECT final_status, last_error, event, 0, sum(letters) FROM old GROUP BY 1, 2, 3
        ON CONFLICT ON CONSTRAINT dead_causes_key DO UPDATE SET letters = c.letters + excluded.letters
    )
    SELECT 0 * count(*) FROM old
"""
_NO_DEAD_CAUSES = """
    WITH old AS (DELETE FROM relay.dead_causes WHERE writer = 0 AND letters = 0 RETURNING 1)
    SELECT 0 * count(*) FROM old
"""
_BACKLOG_COUNTS = """
    WITH old AS (
        DELETE FROM relay.backlog_counts
         WHERE writer <> 0 AND writer NOT IN (SELECT pid FROM pg_stat_activity WHERE pid IS NOT NULL)
        RETURNING kind, number
    ), folded AS (
        INSERT INTO relay.backlog_counts AS c SELECT kind, 0, sum(number) FROM old GROUP BY 1
        ON CONFLICT ON CONSTRAINT backlog_counts_key DO UPDATE SET number = c.number + excluded.number
    )
    SELECT 0 * count(*) FROM old
"""
_CONVERSATIONS = """
    WITH old AS (
        DELETE FROM relay.conversations WHERE key IN (
            SELECT key FROM relay.conversations WHERE head IS NULL AND touched_at < now() - %(keep)s LIMIT %(batch)s)
        RETURNING 1
    )
    SELECT count(*) FROM old
"""
_INSTANCES = """
    WITH old AS (
        DELETE FROM relay.instances i
         WHERE heartbeat_at < now() - interval '2 days'
           AND NOT EXISTS (SELECT FROM relay.deliveries d
                            WHERE d.owner = i.id AND d.state = 'forwarding')
        RETURNING 1
    )
    SELECT 0 * count(*) FROM old
"""


async def _retire_deliveries(connection: Connection, keep: timedelta, stop: Callable[[], bool]) -> int:
    """Delete deliveries and their attempts up to the first batch in which none was received so long ago.

    Those that were replayed lately are older and stay: they are passed over. Returns how many deliveries went.
    """
    deleted, after = 0, 0
    while not stop():
        cursor = await connection.execute(_DELIVERIES, {"keep": keep, "batch": BATCH, "after": after})
        number, last = await cursor.fetchone() or (0, None)
        deleted += number
        if last is None:
            break
        after = last
    return deleted


async def retire(connection: Connection, keep: timedelta, stop: Callable[[], bool] = lambda: False) -> int:
    """Delete what is older than `keep`, batch by batch, until nothing is left or `stop()` says so.

    Returns the number of deliveries, facts, log lines, events and plans that went.
    """
    deleted = await _retire_deliveries(connection, keep, stop)
    steps: list[tuple[str, dict[str, Any]]] = [(_ASIDE, {}), (_LOG, {}), (_EVENTS, {}), (_PLANS, {})]
    steps += [(_FACTS, {"fact_type": fact_type}) for fact_type in FactType]
    steps += [(_MINUTES, {}), (_NOTES, {}), (_DEAD_CAUSES, {}), (_NO_DEAD_CAUSES, {}), (_INSTANCES, {})]
    steps += [(_BACKLOG_COUNTS, {}), (_CONVERSATIONS, {})]
    for sql, parameters in steps:
        while not stop():
            cursor = await connection.execute(SQL(sql), {"keep": keep, "batch": BATCH} | parameters)
            row = await cursor.fetchone()
            if row is None or not row[0]:
                break
            deleted += int(row[0])
    return deleted
