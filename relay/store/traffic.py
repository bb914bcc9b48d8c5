"""What the alert rules need of the traffic beyond the figures: minutes at a window's edge, arrivals, usual gaps, tests.

Each statement is run only where its answer matters, so that a healthy system pays nothing for it.
"""

from __future__ import annotations

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

# A minute of facts at most: those of the window's first minute, of which some belong to the calendar minute after it.
_EDGE = """
    SELECT count(*) FILTER (WHERE t.success AND f.recorded_at < %(whole)s),
           count(*) FILTER (WHERE NOT t.success AND f.recorded_at < %(whole)s), count(*)
      FROM dashboard_facts f
     CROSS JOIN LATERAL relay.tally(f.fact_type, relay.json_or_null(f.value), relay.json_or_null(f.metadata)) t
     WHERE f.fact_type = %(retry)s AND f.recorded_at >= %(since)s AND f.recorded_at < %(until)s AND NOT t.test
"""


async def buckets(
    connection: Connection, minutes: Sequence[tuple[datetime, int, int]], now: datetime, window: timedelta
) -> Buckets:
    """The minutes of the last `window` with finished deliveries. `minutes` are those of longer than that."""
    since = now - window
    whole = since.replace(second=0, microsecond=0) + _MINUTE
    given = {"retry": FactType.RETRY, "since": since, "until": since + _MINUTE, "whole": whole}
    edge = await (await connection.execute(_EDGE, given)).fetchone()
    assert edge is not None
    rates = [Rate(delivered, failed) for minute, delivered, failed in minutes if minute >= whole]
    return Buckets((Rate(edge[0], edge[1]), *rates), reaches_back=edge[2] > 0)


_ACCEPTED = """
    SELECT count(*) FROM (SELECT received_at FROM relay.deliveries WHERE NOT test ORDER BY id DESC LIMIT %(most)s) AS d
     WHERE received_at > now() - %(window)s
"""


async def accepted(connection: Connection, window: timedelta, most: int) -> int:
    """How many webhooks were stored within `window`; counts `most` of them at most."""
    cursor = await connection.execute(_ACCEPTED, {"window": window, "most": most})
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


_LAST_RUN = """
    SELECT extract(epoch FROM now() - recorded_at)::float8 FROM dashboard_facts
     WHERE fact_type = 'support.webhook.retry' AND coalesce(relay.json_or_null(metadata) ->> 'test', '') <> 'true'
     ORDER BY recorded_at DESC LIMIT 1
"""


async def last_run_age_s(connection: Connection) -> float | None:
    """How long ago a run was recorded: for a database whose deliveries are gone."""
    row = await (await connection.execute(_LAST_RUN)).fetchone()
    return None if row is None else float(row[0])


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
                     WHERE f.fact_type = %(retry)s AND f.recorded_at < m.hour
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
                       AND coalesce(relay.json_or_null(f.metadata) ->> 'test', '') <> 'true'
                     ORDER BY f.recorded_at LIMIT 1)) AS moments) AS gaps
            WHERE EXISTS (SELECT FROM dashboard_facts f
                           WHERE f.fact_type = %(retry)s AND f.recorded_at < m.hour)) AS found
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
