"""Invented data: the mark of a database that holds them, a history for drills, and what an earlier demo left.

A demo's database carries its mark as the comment of the schema `relay`, so that it is known by whatever way it is
reached, and needs no rights to be read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from relay.store.database import Connection

_MARK = "hotdash-relay demo: the data of this database are invented"
REFUSAL = (
    "The database holds the invented data of `relay demo`, which must reach no real Agent SDK or Chatwoot; "
    "set DATABASE_URL, or RELAY_DATA_DIR to another directory"
)
"""What a program that reaches real systems says of a demo's database."""

IS_DEMO = SQL("coalesce(obj_description(to_regnamespace('relay')::oid, 'pg_namespace') = {}, false)").format(
    Literal(_MARK)
)
"""SQL: true in a demo's database."""


_HOLDS_DATA = "SELECT EXISTS (SELECT FROM relay.deliveries) OR EXISTS (SELECT FROM relay.instances)"


async def may_be_real(connection: Connection) -> bool:
    """True if the database has no mark, and a relay has worked in it."""
    if await is_demo(connection):
        return False
    cursor = await connection.execute(_HOLDS_DATA)
    row = await cursor.fetchone()
    return bool(row and row[0])


async def mark_as_demo(connection: Connection) -> None:
    """Mark the database as one whose data are invented."""
    await connection.execute(SQL("COMMENT ON SCHEMA relay IS {}").format(Literal(_MARK)))


async def is_demo(connection: Connection) -> bool:
    """True if the database's data are invented."""
    cursor = await connection.execute(SQL("SELECT {}").format(IS_DEMO))
    row = await cursor.fetchone()
    return bool(row and row[0])


# What the demo's traffic replaces in a documented payload is taken out of both before they are compared.
_LEFT = SQL("""
    FROM relay.deliveries d JOIN jsonb_array_elements(%(documented)s::jsonb) AS t(payload)
         ON d.event = t.payload ->> 'event'
   CROSS JOIN LATERAL (SELECT relay.payload(d.body) AS payload) AS p
   WHERE d.conversation_id = ANY(%(conversations)s) AND NOT d.test
     AND d.state IN ('dead', 'received', 'waiting', 'forwarding')
     AND (p.payload #- '{conversation,id}' #- '{sender,name}') - '{id,content}'::text[]
         = (t.payload #- '{conversation,id}' #- '{sender,name}') - '{id,content}'::text[]
     AND (t.payload ->> 'content' IS NULL
          OR (p.payload ->> 'content' = ANY(%(texts)s) AND p.payload #>> '{sender,name}' = ANY(%(names)s)))
""")
_COUNT_LEFT = SQL("SELECT count(*) {}").format(_LEFT)
_DISCARD_LEFT = SQL("""
    WITH found AS (
        SELECT d.id, d.state {left} FOR UPDATE OF d
    ), gone AS (
        UPDATE relay.deliveries d
           SET state = 'discarded', owner = NULL, finished_at = coalesce(d.finished_at, now())
          FROM found WHERE d.id = found.id AND d.state = found.state
        RETURNING d.id
    ), audit AS (
        INSERT INTO relay.operator_actions (operator, action, deliveries, reason, applied_at, result)
        SELECT 'relay', 'discard', array_agg(id), 'invented by the demo of an earlier version', now(),
               jsonb_build_object('discarded', count(*), 'asked', count(*))
          FROM gone HAVING count(*) > 0
    )
    SELECT count(*) FROM gone
""").format(left=_LEFT)


async def discard_left_by_demo(
    connection: Connection,
    *,
    documented: Sequence[dict[str, Any]],
    conversations: Sequence[int],
    customers: Sequence[tuple[str, str]],
) -> int:
    """Discard what the demo of an earlier version left beside real deliveries; returns how many that were.

    The demo used to write into the ordinary database. Its deliveries are exactly `documented` payloads with the
    id of one of `conversations` and, in messages, the name and text of one of `customers`.
    """
    given = {
        "documented": json.dumps(list(documented)),
        "conversations": [str(number) for number in conversations],
        "names": [name for name, _ in customers],
        "texts": [text for _, text in customers],
    }
    count = 0
    for statement in (_COUNT_LEFT, _DISCARD_LEFT):  # most databases hold none: then nothing is locked
        cursor = await connection.execute(statement, given)
        row = await cursor.fetchone()
        count = int(row[0]) if row else 0
        if not count:
            break
    return count


_HISTORY = """
    WITH planted AS (
        INSERT INTO relay.deliveries
               (delivery_id, state, owner, claim, test, event, conversation_id, customer, received_at, claimed_at,
                finished_at, attempts, duration_ms, final_status, headers, body)
        SELECT gen_random_uuid(), 'delivered', NULL, gen_random_uuid(), false, 'message_created', (700 + n %% 60)::text,
               true, at, at, at, 1, 42, '200', '[["content-type", "application/json"]]',
               convert_to(json_build_object('event', 'message_created', 'id', n)::text, 'UTF8')
          FROM generate_series(1, %(count)s) AS n,
               LATERAL (SELECT now() - %(silent)s::interval
                             - (interval '24 hours' - %(silent)s::interval) * (n::float8 / %(count)s) AS at) AS times
         ORDER BY n DESC
        RETURNING delivery_id, finished_at
    )
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)
    SELECT 'support.webhook.retry', 'support',
           '{"attempts": 1, "success": true, "durationMs": 42, "finalStatus": "200"}',
           jsonb_build_object('deliveryId', delivery_id, 'event', 'message_created', 'test', false), finished_at
      FROM planted
"""


_STOPPED_RELAY = """
    INSERT INTO relay.instances
           (id, name, slot, boot, pid, version, agent, signed, lease_until, started_at, heartbeat_at, stopped_at)
    SELECT gen_random_uuid(), 'relay-that-stopped', 0, gen_random_uuid(), 0, '0', '', false, '-infinity',
           now() - interval '23 hours', now() - %(silent)s::interval, now() - %(silent)s::interval
"""


async def plant_stopped_relay(connection: Connection, *, silent_for: timedelta) -> None:
    """A relay that stopped `silent_for` ago."""
    await connection.execute(_STOPPED_RELAY, {"silent": silent_for})


async def plant_history(connection: Connection, *, deliveries: int, silent_for: timedelta) -> None:
    """`deliveries` that went well over the last 24 hours, the last of them `silent_for` ago."""
    await connection.execute(_HISTORY, {"count": deliveries, "silent": silent_for})


_FORGET_DESTINATIONS = """
    UPDATE relay.deliveries SET destination = NULL WHERE state IN ('received', 'waiting', 'forwarding')
"""


async def forget_destinations(connection: Connection) -> None:
    """Leave what an earlier demo did not finish to the next one, whose Agent SDK has another port."""
    await connection.execute(_FORGET_DESTINATIONS)


_LAST_WEEK = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)
    SELECT 'support.webhook.retry', 'support',
           '{"attempts": 1, "success": true, "durationMs": 42, "finalStatus": "200"}',
           '{"event": "message_created", "test": false}', at
      FROM generate_series(now() - interval '170 hours', now() - interval '166 hours', interval '1 minute') AS at
"""


async def plant_last_week(connection: Connection) -> None:
    """A webhook every minute around this hour of the week before."""
    await connection.execute(_LAST_WEEK)
