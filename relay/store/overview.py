"""The state of everything, in one read transaction: what `relay status`, `/metrics` and the console show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL

from relay.domain.alerts import LEAST_DELIVERIES, Buckets, Measures, Rate, Verdict, evaluate, sustain
from relay.domain.delivery import FactType
from relay.domain.rejections import rejection
from relay.domain.stats import FailureStreak, Figures, failing_since_s, figures
from relay.store import alerts, aside, backlog, facts, instances, refused, spools, traffic
from relay.store.database import rows_of
from relay.store.demo_history import IS_DEMO
from relay.store.round_trip import together

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from psycopg.abc import Query

    from relay.store.aside import Waiting
    from relay.store.backlog import BacklogState
    from relay.store.database import Connection
    from relay.store.facts import Health
    from relay.store.instances import Liveness
    from relay.store.refused import Refused
    from relay.store.spools import SpoolReport
    from relay.store.traffic import Edge

_WINDOWS = tuple(timedelta(minutes=minutes) for minutes in (5, 10, 15, 30, 60, 6 * 60, 24 * 60))
_SUSTAINED = timedelta(hours=2)
_FIVE_MINUTES = timedelta(minutes=5)
_EDGES = tuple(timedelta(minutes=minutes) for minutes in (10, 15))
"""Windows of which an alert needs each minute."""
_WELL_PERCENT = 80
_FEWEST_REFUSED = 3
"""Fewer refused webhooks in five minutes are not more than half of five."""

_PAUSE = timedelta(minutes=15)

# What is in flight is read once: while a snapshot is held, its index keeps every delivery that was in flight since.
_NOW = SQL("""
    WITH flying AS MATERIALIZED (
        SELECT count(*) AS number,
               count(*) FILTER (WHERE run = 1 AND NOT test
                                  AND received_at >= date_trunc('minute', now()) - interval '1 minute') AS of_late,
               min(CASE WHEN run = 1 THEN received_at ELSE claimed_at END) AS oldest,
               min(received_at) FILTER (WHERE customer AND NOT test) AS customers
          FROM relay.deliveries WHERE state = 'forwarding'
    )
    SELECT now(),
           (SELECT coalesce(sum(letters), 0)::bigint FROM relay.dead_causes),
           f.number, f.of_late, extract(epoch FROM now() - f.oldest)::float8,
           (SELECT extract(epoch FROM now() - received_at)::float8 FROM relay.deliveries
             WHERE NOT test ORDER BY id DESC LIMIT 1),
           (SELECT extract(epoch FROM now() - min(received_at))::float8 FROM (
               (SELECT received_at FROM relay.deliveries
                 WHERE state = 'dead' AND customer AND NOT test ORDER BY received_at OFFSET 1 LIMIT 1)
               UNION ALL
               SELECT customers FROM flying
               UNION ALL
               (SELECT received_at FROM relay.deliveries
                 WHERE state IN ('received', 'waiting') AND customer AND NOT test ORDER BY received_at LIMIT 1))
               AS waiting),
           (SELECT extract(epoch FROM now() - max({heard_at}))::float8 FROM relay.instances),
           (SELECT recorded_at::timestamptz AS at FROM dashboard_facts
             WHERE fact_type = 'support.webhook.dead_letter' AND recorded_at BETWEEN '0001-01-02' AND now()
               AND coalesce(relay.json_or_null(metadata) ->> 'test', '') <> 'true'
             ORDER BY recorded_at DESC LIMIT 1),
            {is_demo}, pg_is_in_recovery(),
           CASE WHEN (SELECT id FROM relay.deliveries WHERE NOT test ORDER BY id DESC LIMIT 1) IS NULL THEN (
               SELECT extract(epoch FROM now() - recorded_at)::float8 FROM dashboard_facts
                WHERE fact_type = 'support.webhook.retry' AND recorded_at BETWEEN '0001-01-02' AND now()
                  AND coalesce(relay.json_or_null(metadata) ->> 'test', '') <> 'true'
                ORDER BY recorded_at DESC LIMIT 1) END
      FROM flying f
""").format(heard_at=instances.HEARD_AT, is_demo=IS_DEMO)
_AGENT_FAILING = """
    SELECT extract(epoch FROM now() - min(at) FILTER (WHERE at > coalesce(well_at, '-infinity')))::float8,
           max(at) FILTER (WHERE NOT ok)
      FROM (SELECT at, ok, max(at) FILTER (WHERE ok) OVER () AS well_at
              FROM (SELECT recorded_at::timestamptz AS at, coalesce(value ->> 'ok', '') = 'true' AS ok
                      FROM dashboard_facts
                     WHERE fact_type = 'support.health' AND recorded_at > now() - interval '2 hours'
                       AND recorded_at <= now() AND value ->> 'target' = 'agent') AS probes) AS seen
"""

_FAILED_SO = SQL("""coalesce(relay.json_or_null(f.value) ->> 'success', '') <> 'true'
           AND coalesce(relay.json_or_null(f.value) ->> 'finalStatus', '') = s.final_status
           AND coalesce(relay.json_or_null(f.metadata) ->> 'test', '') <> 'true'""")
# A minute in which webhooks were delivered and none failed so ends a streak, and so does a pause.
# From the minutes' roll-ups of two hours, and only if a streak goes back to where they begin from those of the hours;
# facts of the first and the last minute of each then give the exact moment.
_STREAKS = SQL("""
    WITH recent AS (
        SELECT EXISTS (SELECT FROM relay.hours WHERE hour >= date_trunc('hour', now() - interval '1 day', 'UTC')
                          AND hour <= now() AND fact_type = ANY(%(runs)s) AND NOT success AND NOT test
                          AND facts > 0) AS has_failures
    ), good AS (
        SELECT DISTINCT minute FROM relay.minutes
         WHERE minute >= date_trunc('minute', now() - %(window)s) AND minute <= now()
           AND fact_type = %(retry)s AND success AND NOT test AND facts > 0
    ), failing AS (
        SELECT fact_type, final_status, minute, sum(facts) AS facts,
               lag(minute) OVER (PARTITION BY fact_type, final_status ORDER BY minute) AS before
          FROM relay.minutes
         WHERE minute >= date_trunc('minute', now() - %(window)s) AND minute <= now()
           AND fact_type = ANY(%(runs)s) AND NOT success AND NOT test AND (SELECT has_failures FROM recent)
         GROUP BY 1, 2, 3 HAVING sum(facts) > 0
    ), parted AS (
        SELECT f.*, f.minute - f.before > %(pause)s
                    OR EXISTS (SELECT FROM good g WHERE g.minute > f.before AND g.minute < f.minute) AS paused
          FROM failing f
    ), streaks AS (
        SELECT fact_type, final_status, max(minute) FILTER (WHERE paused IS DISTINCT FROM false) AS first,
               max(minute) FILTER (WHERE paused) AS parted, max(minute) AS last,
               coalesce(sum(facts) FILTER (WHERE minute > now() - interval '3 minutes'), 0) AS lately
          FROM parted GROUP BY 1, 2 ORDER BY sum(facts) DESC LIMIT 20
    ), found AS MATERIALIZED (
    SELECT s.final_status AS status, s.fact_type = %(replay)s AS replayed, began.at AS first,
           coalesce(newest.at, s.last) AS last, s.lately::bigint AS lately
      FROM streaks s
     CROSS JOIN LATERAL (
        SELECT CASE WHEN s.first = s.parted OR s.first - %(pause)s > date_trunc('minute', now() - %(window)s)
                    THEN s.first ELSE (
            SELECT min(m.minute) FROM relay.minutes m, (
                SELECT max(g.hour) + interval '1 hour' AS hour
                  FROM (SELECT date_trunc('hour', s.first, 'UTC') - make_interval(hours => n)
                          FROM generate_series(1, 24) AS n) AS g(hour)
                 WHERE coalesce((SELECT sum(h.facts) FROM relay.hours h
                        WHERE h.hour = g.hour AND h.fact_type = s.fact_type AND NOT h.test AND NOT h.success
                          AND h.final_status = s.final_status), 0) <= 0) AS bad
             WHERE m.minute >= bad.hour AND m.minute < bad.hour + interval '1 hour' AND m.fact_type = s.fact_type
               AND NOT m.test AND NOT m.success AND m.final_status = s.final_status) END AS minute OFFSET 0) AS start
     CROSS JOIN LATERAL (SELECT coalesce((
        SELECT f.recorded_at FROM dashboard_facts f
         WHERE f.fact_type = s.fact_type AND f.recorded_at >= start.minute
           AND f.recorded_at < start.minute + interval '1 minute' AND {failed_so}
         ORDER BY f.recorded_at LIMIT 1), start.minute) AS at) AS began
      LEFT JOIN LATERAL (
        SELECT f.recorded_at::timestamptz AS at FROM dashboard_facts f
         WHERE f.fact_type = s.fact_type AND f.recorded_at >= s.last
           AND f.recorded_at < s.last + interval '1 minute' AND {failed_so}
         ORDER BY f.recorded_at DESC LIMIT 1) AS newest ON true
    )
    SELECT f.*, (SELECT recorded_at::timestamptz FROM dashboard_facts
                  WHERE fact_type = %(retry)s AND recorded_at <= now()
                    AND recorded_at > (SELECT max(last) FROM found WHERE NOT replayed)
                    AND relay.json_or_null(value) ->> 'success' = 'true'
                    AND coalesce(relay.json_or_null(metadata) ->> 'test', '') <> 'true'
                  ORDER BY recorded_at LIMIT 1) AS answers_since
      FROM found f ORDER BY replayed, lately DESC
""").format(failed_so=_FAILED_SO)


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at one moment, invented if `demo`. `last_*` are figures of that window; ages in seconds.

    `replica` is true if Postgres is a hot standby, which lags behind its primary and takes no writes.

    `minutes` are `(minute, delivered, failed)` of each minute in which something was, oldest first. `streaks` are
    the latest failures by status, `last_failure_at` is when the last webhook was dead-lettered, `last_success_at` when
    the last was delivered, `answers_since` when the first was after the latest failure, `latest_ms` how long the last
    few that were begun took, `agent_failed_at` when the agent's health last failed within two hours. Test webhooks are
    in none of them. `in_flight_of_late` are those in flight for the first time that came in this minute or the last
    one. `facts_aside` is None while `dashboard_facts` takes every fact. `refused` are the webhooks that were refused in
    the last hour, by reason. `relay_seen_s` is how long ago any relay was last known to run; `unattended` are the
    windows of the last day in which none ran.
    `spools` are those of the relays' hosts.
    `tests_*` count runs of test webhooks, which are in no other figure.
    """

    at: datetime
    demo: bool
    replica: bool
    verdicts: list[Verdict]
    last_10min: Figures
    last_15min: Figures
    last_30min: Figures
    last_1h: Figures
    last_6h: Figures
    last_24h: Figures
    minutes: list[tuple[datetime, int, int]]
    open_dead_letters: int
    in_flight: int
    in_flight_of_late: int
    oldest_in_flight_s: float | None
    last_webhook_age_s: float | None
    health: list[Health]
    relays: list[Liveness]
    streaks: list[FailureStreak]
    last_failure_at: datetime | None
    last_success_at: datetime | None
    agent_failed_at: datetime | None
    backlog: BacklogState
    spools: list[SpoolReport]
    facts_aside: Waiting | None = None
    answers_since: datetime | None = None
    latest_ms: Sequence[float] = ()
    refused: Sequence[Refused] = ()
    relay_seen_s: float | None = None
    unattended: Sequence[tuple[datetime, datetime]] = ()
    tests_15min: int = 0
    tests_1h: int = 0

    @property
    def firing(self) -> list[Verdict]:
        """The alerts that fire, worst first."""
        return [verdict for verdict in self.verdicts if verdict.firing]

    @property
    def alive(self) -> list[Liveness]:
        """The relays that are alive."""
        return [relay for relay in self.relays if relay.alive]


async def read(connection: Connection) -> Overview:
    """Read the overview, in one transaction that sees one moment, and in one round trip."""
    (found,) = await together(connection, read_within(connection), one_moment=True)
    assert isinstance(found, Overview)
    return found


async def read_within(connection: Connection, *, minutes_of: timedelta = _SUSTAINED) -> Overview:
    """Read the overview inside the caller's moment; `minutes` reach back `minutes_of`, two hours at least."""
    reach = max(minutes_of, _SUSTAINED)
    (
        row, facts_aside, waits, spooled, tallied, minutes, agent_failing, health, relays, tests, usual_gap_s, active,
        acknowledged, unattended, (failed, answers_since), delivered, turned_away, edges, accepted_5min,
    ) = await together(
        connection,
        _one(connection, _NOW),
        aside.waiting(connection),
        backlog.read(connection),
        spools.reports(connection),
        facts.tallies(connection, _WINDOWS),
        facts.per_minute(connection, reach),
        _one(connection, _AGENT_FAILING),
        facts.last_health(connection),
        instances.liveness(connection),
        traffic.tests(connection),
        traffic.usual_gap_s(connection),
        alerts.active(connection),
        alerts.acknowledged(connection),
        instances.unattended(connection),
        _streaks(connection, _PAUSE),
        traffic.last_deliveries(connection, reach),
        refused.refused(connection),
        traffic.edges(connection, _EDGES, _WELL_PERCENT),
        traffic.accepted(connection, _FIVE_MINUTES, fewest=_FEWEST_REFUSED),
    )  # fmt: skip
    now, dead, in_flight, of_late, oldest_s, webhook_s, waiting_s, heartbeat_s, failure_at, demo, replica, run_s = row
    agent_failing_s, agent_failed_at = agent_failing
    last_5min, last_10min, last_15min, last_30min, last_1h, last_6h, last_24h = (
        figures(tallies) for tallies in tallied
    )
    minutes_10, minutes_15 = (
        _buckets(edge, minutes, now, of.rate, window)
        for edge, of, window in zip(edges, (last_10min, last_15min), _EDGES, strict=True)
    )
    measures = Measures(
        rate_10min=last_10min.rate,
        rate_15min=last_15min.rate,
        rate_30min=last_30min.rate,
        failing_s=failing_since_s([m for m in minutes if now - m[0] <= _SUSTAINED], now),
        dead_letters_1h=last_1h.dead_letters,
        average_attempts_1h=last_1h.average_attempts,
        average_ms_15min=last_15min.average_ms,
        agent_failing_s=agent_failing_s,
        oldest_customer_wait_s=waiting_s,
        heartbeat_age_s=heartbeat_s,
        last_webhook_age_s=webhook_s,
        webhooks_24h=last_24h.rate.delivered + last_24h.rate.failed,
        facts_aside=facts_aside.facts if facts_aside is not None else 0,
        backlog_overdue_s=waits.overdue_s,
        minutes_10=minutes_10,
        minutes_15=minutes_15,
        accepted_5min=accepted_5min,
        refused_5min=last_5min.refused_with(401, 413, 503),
        lost_1h=last_1h.refused_with(413, 503),
        turned_away_1h=last_1h.refused_with(401, 404),
        arrival_age_s=_arrival_age_s(run_s if webhook_s is None else webhook_s, turned_away, now),
        usual_gap_s=usual_gap_s,
        spool_waits_s=max((one.waiting_s or 0 for one in spooled), default=None),
        spool_share=max((one.share for one in spooled), default=None),
    )
    return Overview(
        at=now,
        demo=demo,
        replica=replica,
        verdicts=sustain(evaluate(measures), active, now, acknowledged),
        last_10min=last_10min,
        last_15min=last_15min,
        last_30min=last_30min,
        last_1h=last_1h,
        last_6h=last_6h,
        last_24h=last_24h,
        minutes=minutes,
        open_dead_letters=dead,
        in_flight=in_flight,
        in_flight_of_late=of_late,
        oldest_in_flight_s=oldest_s,
        last_webhook_age_s=webhook_s,
        health=health,
        relays=relays,
        streaks=failed,
        last_failure_at=failure_at,
        last_success_at=delivered.at,
        latest_ms=delivered.took_ms,
        agent_failed_at=agent_failed_at,
        backlog=waits,
        spools=spooled,
        facts_aside=facts_aside,
        answers_since=answers_since,
        refused=turned_away,
        relay_seen_s=heartbeat_s,
        unattended=unattended,
        tests_15min=tests[0],
        tests_1h=tests[1],
    )


async def _one(connection: Connection, statement: Query) -> Sequence[Any]:
    """The one row of a statement."""
    row = await (await connection.execute(statement)).fetchone()
    assert row is not None
    return row


def _buckets(
    edge: Edge, minutes: Sequence[tuple[datetime, int, int]], now: datetime, rate: Rate, window: timedelta
) -> Buckets:
    """The minutes of `window`, if the rate of all of it may raise an alert."""
    if rate.percent is None or rate.percent >= _WELL_PERCENT or rate.total < LEAST_DELIVERIES:
        return Buckets()
    return traffic.buckets(edge, minutes, now, window)


def _arrival_age_s(stored_s: float | None, turned_away: Sequence[Refused], now: datetime) -> float | None:
    """How long ago a webhook came, be it that it was refused."""
    ages = [(now - one.last).total_seconds() for one in turned_away if rejection(one.reason).is_webhook]
    return min([*ages, *([] if stored_s is None else [stored_s])], default=None)


async def streaks(connection: Connection, *, pause: timedelta = _PAUSE) -> list[FailureStreak]:
    """What failed in the last two hours, by status, each from when it began after a `pause` without it.

    Replays come last. What began before that is followed back through the hours that it was in.
    """
    return (await _streaks(connection, pause))[0]


async def _streaks(connection: Connection, pause: timedelta) -> tuple[list[FailureStreak], datetime | None]:
    """The streaks, and when the first webhook was delivered after the latest of them; None if none was."""
    given = {
        "pause": pause,
        "window": _SUSTAINED,
        "runs": [FactType.RETRY, FactType.REPLAY],
        "replay": FactType.REPLAY,
        "retry": FactType.RETRY,
    }
    found = await (await rows_of(connection, _streak).execute(_STREAKS, given)).fetchall()
    return [streak for streak, _ in found], next((since for _, since in found), None)


def _streak(*, answers_since: datetime | None, **columns: Any) -> tuple[FailureStreak, datetime | None]:
    return FailureStreak(**columns), answers_since
