"""`dashboard_facts`: facts that come without a delivery, and the figures drawn from all of them.

Figures come from the roll-ups of hours, from those of minutes for the hour that a window begins in, and from the
facts themselves for the minute that it begins in: so a window is exact and costs the same whatever the table holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.domain.delivery import FactType
from relay.domain.facts import SCOPE
from relay.domain.stats import Tally
from relay.domain.targets import Target
from relay.store.database import rows_of, time_limit
from relay.store.deliveries import FactsAside
from relay.store.finishing import fact_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from relay.domain.facts import Fact
    from relay.store.database import Connection

_RECORD = """
    SELECT w.refused, w.late, w.reason FROM relay.write_facts(ARRAY[%(facts)s::jsonb], %(scope)s, true) AS w
"""
RECORD_LIMIT_MS = 2_000


async def record(connection: Connection, facts: Sequence[Fact]) -> FactsAside:
    """Write facts that belong to no delivery's end: rejections, health, alerts.

    Those that `dashboard_facts` does not take within 2 s go to `relay.facts_aside`; returns how many did.
    """
    if not facts:
        return FactsAside()
    rows = json.dumps([fact_row(fact) for fact in facts])
    async with time_limit(connection, RECORD_LIMIT_MS):
        cursor = await connection.execute(_RECORD, {"scope": SCOPE, "facts": rows})
    return FactsAside(*(await cursor.fetchone() or ()))


# Between two bounds, so that Postgres uses the roll-ups' indexes however many days they hold. Of the minute
# that a window begins in, the facts of its shorter part are read: they are added, or taken from the whole minute.
_TALLIES = """
    WITH windows AS (
        SELECT n, since, minute, since < minute + interval '30 seconds' AS early,
               date_trunc('hour', since, 'UTC') + interval '1 hour' AS hour
          FROM (SELECT n, now() - w AS since, date_trunc('minute', now() - w) AS minute
                  FROM unnest(%(windows)s::interval[]) WITH ORDINALITY AS asked(w, n)) AS begun
    ), parts AS (
        SELECT n, hour, CASE WHEN early THEN minute ELSE minute + interval '1 minute' END AS whole,
               CASE WHEN early THEN minute ELSE since END AS first,
               CASE WHEN early THEN since ELSE minute + interval '1 minute' END AS last,
               CASE WHEN early THEN -1 ELSE 1 END AS sign
          FROM windows
    ), tallies AS (
        SELECT w.n, h.fact_type, h.success, h.attempts, h.final_status, h.slot, h.facts, h.duration_ms
          FROM parts w CROSS JOIN LATERAL (
               SELECT * FROM relay.hours WHERE hour >= w.hour AND hour <= now() AND NOT test OFFSET 0) AS h
        UNION ALL
        SELECT w.n, m.fact_type, m.success, m.attempts, m.final_status, m.slot, m.facts, m.duration_ms
          FROM parts w CROSS JOIN LATERAL (
               SELECT * FROM relay.minutes WHERE minute >= w.whole AND minute < w.hour AND NOT test OFFSET 0) AS m
        UNION ALL
        SELECT w.n, f.fact_type, t.success, t.attempts, t.final_status, t.slot, w.sign * t.facts, w.sign * t.duration_ms
          FROM parts w
          JOIN dashboard_facts f ON f.recorded_at >= w.first AND f.recorded_at < w.last
         CROSS JOIN LATERAL relay.tally(f.fact_type, relay.json_or_null(f.value), relay.json_or_null(f.metadata)) t
         WHERE f.fact_type = ANY(%(rolled_up)s) AND NOT t.test
           AND (f.value IS NULL OR relay.json_or_null(f.value) IS NOT NULL)
    )
    SELECT n, fact_type, success, attempts, final_status, slot, sum(facts)::bigint, sum(duration_ms)::bigint
      FROM tallies GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(facts) > 0
"""
_ROLLED_UP = [FactType.RETRY, FactType.DEAD_LETTER, FactType.REPLAY, FactType.REJECTED]


async def tallies(connection: Connection, windows: Sequence[timedelta]) -> list[list[Tally]]:
    """What each of the last `windows` holds, exact to its edge, without the test webhooks."""
    cursor = await connection.execute(_TALLIES, {"windows": list(windows), "rolled_up": _ROLLED_UP})
    found: list[list[Tally]] = [[] for _ in windows]
    for n, fact_type, *figures in await cursor.fetchall():
        if fact_type in _ROLLED_UP:
            found[n - 1].append(Tally(FactType(fact_type), *figures))
    return found


_MINUTES = """
    SELECT minute, greatest(sum(facts) FILTER (WHERE success), 0)::bigint,
           greatest(sum(facts) FILTER (WHERE NOT success), 0)::bigint
      FROM relay.minutes
     WHERE minute >= date_trunc('minute', now() - %(window)s) AND fact_type = %(retry)s AND NOT test
     GROUP BY minute HAVING sum(facts) FILTER (WHERE success) > 0 OR sum(facts) FILTER (WHERE NOT success) > 0
     ORDER BY minute
"""


async def per_minute(connection: Connection, window: timedelta) -> list[tuple[datetime, int, int]]:
    """`(minute, delivered, failed)` of every minute of the last `window` in which something was."""
    cursor = await connection.execute(_MINUTES, {"window": window, "retry": FactType.RETRY})
    return [(row[0], row[1] or 0, row[2] or 0) for row in await cursor.fetchall()]


# Values are checked, because other applications may write to this table as well. So are times, wherever facts are
# read: one in the future, or 'infinity', is no news, and some of them fit neither an interval nor a datetime.
_HEALTH = """
    SELECT DISTINCT ON (value ->> 'target')
           value ->> 'target' AS target, coalesce(value ->> 'ok', '') = 'true' AS ok, value ->> 'status' AS status,
           CASE WHEN value ->> 'latencyMs' ~ '^[0-9]{1,12}(\\.[0-9]{1,20})?$' THEN (value ->> 'latencyMs')::float8 END
               AS latency_ms,
           value ->> 'error' AS error, recorded_at::timestamptz AS at,
           extract(epoch FROM now() - recorded_at)::float8 AS age_s
      FROM dashboard_facts
     WHERE fact_type = %(health)s AND recorded_at > now() - interval '1 hour' AND recorded_at <= now()
       AND value ->> 'target' = ANY(%(targets)s)
     ORDER BY value ->> 'target', recorded_at DESC
"""


@dataclass(frozen=True, slots=True)
class Health:
    """The last probe of one `Target`, `age_s` seconds ago."""

    target: str
    ok: bool
    status: str | None
    latency_ms: float | None
    error: str | None
    at: datetime
    age_s: float


async def last_health(connection: Connection) -> list[Health]:
    """The last probe of each target within the hour."""
    cursor = await rows_of(connection, Health).execute(_HEALTH, {"health": FactType.HEALTH, "targets": list(Target)})
    return await cursor.fetchall()
