"""The forwarding log in Postgres, for the live tail: written in batches, one NOTIFY a batch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from relay.store.database import Connection

CHANNEL = "relay_log"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the forwarding log: what, when, of which delivery, with which fields (in order)."""

    at: datetime
    level: str
    scope: str
    message: str
    fields: dict[str, Any]
    delivery_id: str | None = None


_APPEND = """
    WITH lines AS (
        INSERT INTO relay.log (at, level, scope, message, fields, delivery_id, instance)
        SELECT l.*, %(instance)s
          FROM jsonb_to_recordset(%(lines)s::jsonb) AS l(
               at timestamptz, level text, scope text, message text, fields jsonb, delivery_id text)
        RETURNING id
    )
    SELECT pg_notify(%(channel)s, max(id)::text) FROM lines
"""


async def append(connection: Connection, instance: UUID, lines: Sequence[LogLine]) -> None:
    """Write `lines` in one transaction and notify listeners once.

    The commit does not wait for the disk: these lines are for watching; the facts are the record.
    """
    rows = [
        {
            "at": line.at.isoformat(),
            "level": line.level,
            "scope": line.scope,
            "message": line.message,
            "fields": line.fields,
            "delivery_id": line.delivery_id,
        }
        for line in lines
    ]
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = off")
        await connection.execute(_APPEND, {"instance": instance, "lines": json.dumps(rows), "channel": CHANNEL})
