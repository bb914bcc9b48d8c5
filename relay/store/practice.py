"""A history for practice: what a quiet day leaves behind, planted in a database that is used for nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from relay.store.database import Connection

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


async def plant_history(connection: Connection, *, deliveries: int, silent_for: timedelta) -> None:
    """`deliveries` that went well over the last 24 hours, the last of them `silent_for` ago."""
    await connection.execute(_HISTORY, {"count": deliveries, "silent": silent_for})
