"""What the alert rules need of the traffic beyond the figures: minutes at a window's edge, arrivals, usual gaps, tests.

Each statement reads rows only where its answer matters, so that a healthy system pays next to nothing for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from psycopg.sql import SQL, Literal

from relay.domain.alerts import Buckets, Rate
from relay.domain.delivery import FactType

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from relay.store.database import Connection

_MINUTE = timedelta(minutes=1)

# A minute of facts at most for each window: those of its first minute, of which some belong to the calendar minute
# after it. They are read only where the rate may be below `below`: at best all successes of the first calendar minute
# are outside of the window, and all failures inside.
_EDGES = """
    WITH windows AS (
        SELECT n, now() - w AS since, date_trunc('minute', now() - w) + interval '1 minute' AS whole
          FROM unnest(%(windows)s::interval[]) WITH ORDINALITY AS asked(w, n)
    ), low AS (
        SELECT w.* FROM windows w CROSS JOIN LATERAL (
               SELECT coalesce(sum(facts) FILTER (WHERE success AND minute >= w.whole), 0) AS delivered,
                      coalesce(sum(facts) FILTER (WHERE NOT success), 0) AS failed
                 FROM relay.minutes
                WHERE minute >= w.whole - interval '1 minute' AND minute <= now() AND fact_type = %(retry)s
                  AND NOT test) AS run
         WHERE 100 * run.delivered < %(below)s * (run.delivered + run.failed)
    )
    SELECT l.n, count(*) FILTER (WHERE t.success AND f.recorded_at < l.whole),
           count(*) FILTER (WHERE NOT t.success AND f.recorded_at < l.whole), count(*)
      FROM low l
      JOIN dashboard_facts f ON f.fact_type = %(retry)s AND f.recorded_at >= l.since
                            AND f.recorded_at < l.since + interval '1 minute'
     CROSS JOIN LATERAL relay.tally(f.fact_type, relay.json_or_null(f.value), relay.json_or_null(f.metadata)) t
     WHERE NOT t.test GROUP BY l.n
"""


@dataclass(frozen=True, slots=True)
class Edge:
    """What was finished in the first minute of a window.

    `before_whole` is what of it belongs to the calendar minute that the window begins in; `any`: there was something.
    """

    before_whole: Rate
    any: bool


async def edges(connection: Connection, windows: Sequence[timedelta], below: int) -> list[Edge]:
    """The first minute of each window whose success rate may be below `below` per cent; an empty one of others."""
    given = {"windows": list(windows), "below": below, "retry": FactType.RETRY}
    found = {row[0]: row[1:] for row in await (await connection.execute(_EDGES, given)).fetchall()}
    return [_edge(*found.get(n, (0, 0, 0))) for n in range(1, len(windows) + 1)]


def _edge(delivered: int, failed: int, total: int) -> Edge:
    return Edge(Rate(delivered, failed), any=total > 0)


def buckets(edge: Edge, minutes: Sequence[tuple[datetime, int, int]], now: datetime, window: timedelta) -> Buckets:
    """The minutes of the last `window` with finished deliveries. `minutes` are those of longer than that."""
    whole = (now - window).replace(second=0, microsecond=0) + _MINUTE
    rates = [Rate(delivered, failed) for minute, delivered, failed in minutes if minute >= whole]
    return Buckets((edge.before_whole, *rates), reaches_back=edge.any)


# Counted only as far as it matters beside those that were refused.
_ACCEPTED = """
    WITH refused AS (
        SELECT coalesce(sum(facts), 0) AS facts FROM relay.minutes
         WHERE minute >= date_trunc('minute', now() - %(window)s) AND minute <= now() AND fact_type = %(rejected)s
    )
    SELECT count(*) FROM (
        SELECT received_at FROM relay.deliveries WHERE NOT test ORDER BY id DESC
         LIMIT (SELECT CASE WHEN facts >= %(fewest)s THEN greatest(100, 2 * facts) ELSE 0 END FROM refused)) AS d
     WHERE received_at > now() - %(window)s
"""


async def accepted(connection: Connection, window: timedelta, *, fewest: int) -> int:
    """How many webhooks were stored within `window`, if `fewest` were refused in it; else 0.

    Counts 100 of them at most, or twice as many as were refused.
    """
    given = {"window": window, "fewest": fewest, "rejected": FactType.REJECTED}
    row = await (await connection.execute(_ACCEPTED, given)).fetchone()
    return int(row[0]) if row else 0


_ENDED, _BEGUN = 20, 5
# Of the last two minutes in which webhooks were delivered, each by its newest facts.
_DELIVERED = """
    SELECT f.at, f.ms::float8
      FROM (SELECT minute FROM relay.minutes
             WHERE minute >= date_trunc('minute', now() - %(reach)s) AND fact_type = %(retry)s AND success AND NOT test
             GROUP BY minute HAVING sum(facts) > 0 ORDER BY minute DESC LIMIT 2) AS last
     CROSS JOIN LATERAL (
        SELECT f.recorded_at::timestamptz AS at, least(t.duration_ms, 86400000) AS ms
          FROM dashboard_facts f
         CROSS JOIN LATERAL relay.tally(f.fact_type, relay.json_or_null(f.value), relay.json_or_null(f.metadata)) t
         WHERE f.fact_type = %(retry)s AND f.recorded_at >= last.minute
           AND f.recorded_at < last.minute + interval '1 minute' AND t.success AND NOT t.test
         ORDER BY f.recorded_at DESC LIMIT %(ended)s) AS f
     ORDER BY f.at DESC LIMIT %(ended)s
"""


@dataclass(frozen=True, slots=True)
class LastDeliveries:
    """When the last webhook was delivered, and how long the last few that were begun took, in ms, newest first."""

    at: datetime | None = None
    took_ms: tuple[float, ...] = ()


async def last_deliveries(connection: Connection, reach: timedelta) -> LastDeliveries:
    """The last deliveries within `reach`, without replays.

    Those that began last count: when the agent is fast again, slow deliveries still end for a while.
    """
    given = {"reach": reach, "retry": FactType.RETRY, "ended": _ENDED}
    rows = await (await connection.execute(_DELIVERED, given)).fetchall()
    if not rows:
        return LastDeliveries()
    begun = sorted(rows, key=lambda row: row[0] - timedelta(milliseconds=row[1]), reverse=True)
    return LastDeliveries(rows[0][0], tuple(ms for _, ms in begun[:_BEGUN]))


_WEEKS = 4
_HOURS = SQL("""
    SELECT date_trunc('hour', now(), 'UTC') - make_interval(hours => 168 * n) AS hour
      FROM generate_series(1, {weeks}) AS n
""").format(weeks=Literal(_WEEKS))
_USUAL = SQL("""
    SELECT g.longest_gap_s FROM relay.usual_gaps g JOIN ({hours}) AS wanted USING (hour) ORDER BY 1
""").format(hours=_HOURS)


async def usual_gap_s(connection: Connection) -> float | None:
    """The longest gap usual at this hour of the week: the middle one of the last weeks', the longer of two."""
    rows = await (await connection.execute(_USUAL)).fetchall()
    return float(rows[len(rows) // 2][0]) if rows else None


# Gaps that reach into the hour count whole, so that an hour of the night has the whole night's gap. Nothing is known of
# an hour before which no webhook is on record.
_LEARN = SQL("""
    WITH missing AS (
        SELECT hour FROM ({hours}) AS wanted
         WHERE NOT EXISTS (SELECT FROM relay.usual_gaps g WHERE g.hour = wanted.hour)
    ), gone AS (
        DELETE FROM relay.usual_gaps WHERE hour < now() - make_interval(weeks => {weeks})
    )
    INSERT INTO relay.usual_gaps (hour, longest_gap_s)
    SELECT m.hour, extract(epoch FROM found.gap)::float8
      FROM missing m CROSS JOIN LATERAL (
           SELECT max(gap) AS gap FROM (
               SELECT at - lag(at) OVER (ORDER BY at) AS gap FROM (
                   (SELECT f.recorded_at AS at FROM dashboard_facts f
                     WHERE f.fact_type = %(retry)s AND f.recorded_at >= '0001-01-02'
                       AND f.recorded_at < m.hour
                       AND coalesce(relay.json_or_null(f.metadata) ->> 'test', '') <> 'true'
                     ORDER BY f.recorded_at DESC LIMIT 1)
                    UNION ALL
                   (SELECT f.recorded_at FROM dashboard_facts f
                     WHERE f.fact_type = %(retry)s AND f.recorded_at >= m.hour
                       AND f.recorded_at < m.hour + interval '1 hour'
                       AND coalesce(relay.json_or_null(f.metadata) ->> 'test', '') <> 'true')
                    UNION ALL
                   (SELECT f.recorded_at FROM dashboard_facts f
                     WHERE f.fact_type = %(retry)s AND f.recorded_at >= m.hour + interval '1 hour'
                       AND f.recorded_at <= now()
                       AND coalesce(relay.json_or_null(f.metadata) ->> 'test', '') <> 'true'
                     ORDER BY f.recorded_at LIMIT 1)) AS moments) AS gaps
            WHERE EXISTS (SELECT FROM dashboard_facts f
                           WHERE f.fact_type = %(retry)s AND f.recorded_at >= '0001-01-02'
                             AND f.recorded_at < m.hour)) AS found
     WHERE found.gap IS NOT NULL
        ON CONFLICT DO NOTHING
""").format(hours=_HOURS, weeks=Literal(_WEEKS + 1))


async def learn_usual_gaps(connection: Connection) -> None:
    """Add what is missing of this hour in the last weeks. Costs nothing once all of it is there."""
    await connection.execute(_LEARN, {"retry": FactType.RETRY})


_TESTS = """
    SELECT coalesce(sum(facts) FILTER (WHERE minute > now() - interval '15 minutes'), 0)::bigint,
           coalesce(sum(facts), 0)::bigint
      FROM relay.minutes WHERE minute > now() - interval '1 hour' AND fact_type = %(retry)s AND test
"""


async def tests(connection: Connection) -> tuple[int, int]:
    """How many runs of test webhooks the last 15 minutes and the last hour hold, counted by whole minutes."""
    row = await (await connection.execute(_TESTS, {"retry": FactType.RETRY})).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
