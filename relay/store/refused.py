"""Webhooks that were refused in the last hour, by reason: how many, since when, and when the last one was.

Counts come from the minutes' roll-ups; the exact moments from the facts of a run's first and last minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from relay.domain.delivery import FactType
from relay.store.database import rows_of

if TYPE_CHECKING:
    from datetime import datetime

    from relay.store.database import Connection

_PAUSE = timedelta(minutes=5)

_REFUSED = """
    WITH minutes AS (
        SELECT final_status AS reason, minute, sum(facts)::bigint AS facts,
               minute - lag(minute) OVER (PARTITION BY final_status ORDER BY minute) > %(pause)s AS paused
          FROM relay.minutes
         WHERE minute > now() - interval '1 hour' AND minute <= now() AND fact_type = %(rejected)s AND NOT test
           AND final_status <> ''
         GROUP BY 1, 2 HAVING sum(facts) > 0
    ), starts AS (
        SELECT reason, max(minute) FILTER (WHERE paused IS DISTINCT FROM false) AS since FROM minutes GROUP BY 1
    ), runs AS (
        SELECT m.reason, sum(m.facts)::bigint AS count, min(m.minute) AS first, max(m.minute) AS last, s.since,
               sum(m.facts) FILTER (WHERE m.minute >= s.since)::bigint AS in_run
          FROM minutes m JOIN starts s USING (reason) GROUP BY m.reason, s.since
    )
    SELECT r.reason, r.count, coalesce(oldest.at, r.first) AS first, coalesce(newest.at, r.last) AS last,
           coalesce(began.at, r.since) AS since, r.in_run
      FROM runs r
      LEFT JOIN LATERAL (
        SELECT f.recorded_at::timestamptz AS at FROM dashboard_facts f
         WHERE f.fact_type = %(rejected)s AND f.recorded_at >= r.first AND f.recorded_at < r.first + interval '1 minute'
           AND relay.json_or_null(f.value) ->> 'reason' = r.reason ORDER BY f.recorded_at LIMIT 1) AS oldest ON true
      LEFT JOIN LATERAL (
        SELECT f.recorded_at::timestamptz AS at FROM dashboard_facts f
         WHERE f.fact_type = %(rejected)s AND f.recorded_at >= r.since AND f.recorded_at < r.since + interval '1 minute'
           AND relay.json_or_null(f.value) ->> 'reason' = r.reason ORDER BY f.recorded_at LIMIT 1) AS began ON true
      LEFT JOIN LATERAL (
        SELECT f.recorded_at::timestamptz AS at FROM dashboard_facts f
         WHERE f.fact_type = %(rejected)s AND f.recorded_at >= r.last AND f.recorded_at < r.last + interval '1 minute'
           AND relay.json_or_null(f.value) ->> 'reason' = r.reason
         ORDER BY f.recorded_at DESC LIMIT 1) AS newest ON true
     ORDER BY r.count DESC, r.reason LIMIT 50
"""


@dataclass(frozen=True, slots=True)
class Refused:
    """Webhooks that were refused for one reason in the last hour: `count` of them, from `first` to `last`.

    The latest run of them began at `since` and has `in_run`. Five minutes without a refusal end a run.
    """

    reason: str
    count: int
    first: datetime
    last: datetime
    since: datetime
    in_run: int


async def refused(connection: Connection) -> list[Refused]:
    """What was refused in the last hour, by reason, the most frequent first."""
    cursor = await rows_of(connection, Refused).execute(_REFUSED, {"rejected": FactType.REJECTED, "pause": _PAUSE})
    return await cursor.fetchall()
