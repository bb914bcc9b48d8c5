"""The forwarding log in Postgres: written in batches with one NOTIFY a batch, read by the live tail."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.store.database import as_object, rows_of

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
        SELECT l.at, l.level, l.scope, l.message, l.fields, l.delivery_id, %(instance)s
          FROM (SELECT set_config('synchronous_commit', 'off', true)) AS no_wait,
               jsonb_to_recordset(%(lines)s::jsonb) AS l(
               at timestamptz, level text, scope text, message text, fields jsonb, delivery_id text)
        RETURNING id
    )
    SELECT pg_notify(%(channel)s, max(id)::text) FROM lines
"""


async def append(connection: Connection, instance: UUID, lines: Sequence[LogLine]) -> None:
    """Write `lines` in one statement and notify listeners once.

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
    await connection.execute(_APPEND, {"instance": instance, "lines": json.dumps(rows), "channel": CHANNEL})


_LOG_AFTER = """
    SELECT id, at, level, scope, message, fields, delivery_id FROM relay.log WHERE id = ANY(%(missing)s)
    UNION ALL
    (SELECT id, at, level, scope, message, fields, delivery_id FROM relay.log
      WHERE id > %(id)s ORDER BY id LIMIT %(most)s)
    ORDER BY id
"""
_LOG_BEFORE = """
    SELECT id, at, level, scope, message, fields, delivery_id FROM relay.log
     WHERE id < %(id)s ORDER BY id DESC LIMIT %(most)s
"""
_NEWEST = 2**63 - 1


def _line(*, id: int, fields: Any, **columns: Any) -> tuple[int, LogLine]:  # noqa: A002 - the column's name
    return id, LogLine(fields=as_object(fields), **columns)


async def after(
    connection: Connection, line_id: int, limit: int, missing: Sequence[int] = ()
) -> list[tuple[int, LogLine]]:
    """Up to `limit` lines after the line `line_id`, oldest first, with their ids.

    Lines of `missing` that exist by now come before them: two relays commit their lines in any order.
    """
    given = {"id": line_id, "most": limit, "missing": list(missing)}
    cursor = await rows_of(connection, _line).execute(_LOG_AFTER, given)
    return await cursor.fetchall()


async def before(connection: Connection, line_id: int | None, limit: int) -> list[tuple[int, LogLine]]:
    """The `limit` lines before the line `line_id` (None: the newest), oldest first, with their ids."""
    given = {"id": _NEWEST if line_id is None else line_id, "most": limit}
    cursor = await rows_of(connection, _line).execute(_LOG_BEFORE, given)
    return (await cursor.fetchall())[::-1]
