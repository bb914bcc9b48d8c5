"""What an incident left in Postgres, kind by kind, for the timeline. `relay.incident.timeline` makes one list of it.

Failures and relays are kept for two days; the rest as long as `RELAY_RETENTION_DAYS`, the audit for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from relay.domain.delivery import FactType
from relay.store.actions import OperatorAction
from relay.store.database import as_object, one_moment, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from relay.store.database import Connection

Row = TypeVar("Row")

MOST = 1_000
"""Of each kind, the newest so many are read."""

_PAUSE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Failures:
    """`count` runs that failed with `status`, or webhooks refused for that reason; 15 min without one end them."""

    refused: bool
    status: str
    first: datetime
    last: datetime
    count: int


_FAILURES = """
    WITH minutes AS (
        SELECT fact_type, final_status AS status, minute, sum(facts)::bigint AS facts,
               minute - lag(minute) OVER (PARTITION BY fact_type, final_status ORDER BY minute) > %(pause)s AS paused
          FROM relay.minutes
         WHERE fact_type IN (%(retry)s, %(rejected)s) AND NOT test AND NOT success AND minute <= now()
         GROUP BY 1, 2, 3 HAVING sum(facts) > 0
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE paused) OVER (PARTITION BY fact_type, status ORDER BY minute) AS n
          FROM minutes
    ), runs AS (
        SELECT fact_type, status, min(minute) AS first, max(minute) AS last, sum(facts)::bigint AS count
          FROM numbered GROUP BY fact_type, status, n
        HAVING max(minute) >= date_trunc('minute', %(since)s::timestamptz)
         ORDER BY last DESC LIMIT %(most)s
    )
    SELECT r.fact_type = %(rejected)s AS refused, r.status, coalesce(oldest.at, r.first) AS first,
           coalesce(newest.at, r.last) AS last, r.count
      FROM runs r
      LEFT JOIN LATERAL (
        SELECT f.recorded_at::timestamptz AS at FROM dashboard_facts f
         WHERE f.fact_type = r.fact_type AND f.recorded_at >= r.first AND f.recorded_at < r.first + interval '1 minute'
           AND coalesce(relay.json_or_null(f.value) ->> 'finalStatus', relay.json_or_null(f.value) ->> 'reason')
               = r.status ORDER BY f.recorded_at LIMIT 1) AS oldest ON true
      LEFT JOIN LATERAL (
        SELECT f.recorded_at::timestamptz AS at FROM dashboard_facts f
         WHERE f.fact_type = r.fact_type AND f.recorded_at >= r.last AND f.recorded_at < r.last + interval '1 minute'
           AND coalesce(relay.json_or_null(f.value) ->> 'finalStatus', relay.json_or_null(f.value) ->> 'reason')
               = r.status ORDER BY f.recorded_at DESC LIMIT 1) AS newest ON true
"""


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert that was raised or cleared. `said_at` is when, as text, where it was recorded later."""

    at: datetime
    said_at: str | None
    rule: str
    severity: str
    state: str
    value: str | None
    threshold: str | None


_ALERTS = """
    SELECT f.recorded_at::timestamptz AS at, relay.json_or_null(f.metadata) ->> 'timestamp' AS said_at,
           coalesce(v.value ->> 'rule', '') AS rule, coalesce(v.value ->> 'severity', '') AS severity,
           coalesce(v.value ->> 'state', '') AS state, v.value ->> 'value' AS value,
           v.value ->> 'threshold' AS threshold
      FROM dashboard_facts f CROSS JOIN LATERAL (SELECT relay.json_or_null(f.value) AS value) AS v
     WHERE f.fact_type = %(alert)s AND f.recorded_at >= %(since)s AND f.recorded_at <= now()
     ORDER BY f.recorded_at DESC LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class HealthChange:
    """A probe with another result than the one before it, or the first one if it failed."""

    at: datetime
    target: str
    ok: bool
    error: str | None


_HEALTH = """
    WITH probes AS (
        SELECT f.recorded_at::timestamptz AS at, coalesce(v.value ->> 'target', '') AS target,
               coalesce(v.value ->> 'ok', '') = 'true' AS ok,
               coalesce(v.value ->> 'error', v.value ->> 'status') AS error
          FROM dashboard_facts f CROSS JOIN LATERAL (SELECT relay.json_or_null(f.value) AS value) AS v
         WHERE f.fact_type = %(health)s AND f.recorded_at >= %(since)s::timestamptz - interval '10 minutes'
           AND f.recorded_at <= now()
    ), changes AS (
        SELECT *, lag(ok) OVER (PARTITION BY target ORDER BY at) AS before FROM probes
    )
    SELECT at, target, ok, error FROM changes
     WHERE at >= %(since)s AND ok IS DISTINCT FROM coalesce(before, true) ORDER BY at DESC LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class RelayRun:
    """One start of a relay with so many `workers`. `earlier` is the version of the relay that started before it.

    `ended_at` is None while it runs; else when it stopped or, if it did not do so `in_order`, its last heartbeat.
    """

    name: str
    version: str
    earlier: str | None
    workers: int
    started_at: datetime
    ended_at: datetime | None
    in_order: bool


# A relay that took the place of another one marked it as stopped at the moment of its own start.
_RELAYS = """
    WITH runs AS (
        SELECT boot, min(name) AS name, max(version) AS version, count(*) AS workers, min(started_at) AS started_at,
               max(heartbeat_at) AS heartbeat_at, bool_and(stopped_at IS NOT NULL) AS stopped,
               max(stopped_at) AS stopped_at
          FROM relay.instances GROUP BY boot
    ), ordered AS (
        SELECT *, lag(version) OVER (ORDER BY started_at) AS earlier FROM runs
    ), ended AS (
        SELECT o.*, o.stopped AND NOT EXISTS (
                        SELECT FROM relay.instances i
                         WHERE i.started_at = o.stopped_at AND i.boot <> o.boot) AS in_order,
               o.stopped OR o.heartbeat_at < now() - interval '60 s' AS over
          FROM ordered o
    )
    SELECT name, version, earlier, workers::integer, started_at,
           CASE WHEN NOT over THEN NULL WHEN in_order THEN stopped_at ELSE heartbeat_at END AS ended_at, in_order
      FROM ended WHERE started_at >= %(since)s OR over AND greatest(stopped_at, heartbeat_at) >= %(since)s
     ORDER BY started_at DESC LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class PlanRun:
    """A replay plan that has started. `stopped_why` is None unless it was stopped."""

    id: int
    total: int
    delivered: int
    dead: int
    skipped: int
    stopped_why: str | None
    started_at: datetime | None
    finished_at: datetime | None


_PLANS = """
    SELECT id, total, delivered, dead, skipped, stopped_why, started_at, finished_at
      FROM (SELECT * FROM relay.replay_plans ORDER BY id DESC LIMIT %(most)s) AS newest
     WHERE greatest(started_at, finished_at) >= %(since)s
"""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the circuit breaker or of a spool: `breaker.opened`, `breaker.closed`, `spool.filled`, …"""

    at: datetime
    kind: str
    detail: str


_EVENTS = "SELECT at, kind, detail FROM relay.events WHERE at >= %(since)s ORDER BY at DESC LIMIT %(most)s"

_ACTIONS = """
    SELECT a.id, a.at, a.operator, a.login, a.action, a.plan_id, a.reason, a.details,
           coalesce(d.result, a.result) AS result
      FROM (SELECT * FROM relay.operator_actions ORDER BY id DESC LIMIT %(most)s) AS a
      LEFT JOIN relay.discards d ON d.action = a.id
     WHERE a.at >= %(since)s
"""


@dataclass(frozen=True, slots=True)
class History:
    """What was between `since` and `at`, in no particular order."""

    since: datetime
    at: datetime
    failures: Sequence[Failures]
    alerts: Sequence[AlertChange]
    health: Sequence[HealthChange]
    relays: Sequence[RelayRun]
    plans: Sequence[PlanRun]
    events: Sequence[Event]
    actions: Sequence[OperatorAction]

    @property
    def is_cut(self) -> bool:
        """True if there was more than is read of one kind, so that the oldest of it is missing."""
        kinds = (self.failures, self.alerts, self.health, self.relays, self.plans, self.events, self.actions)
        return any(len(rows) >= MOST for rows in kinds)


async def read(connection: Connection, since: datetime) -> History:
    """Read what was since then, at one moment.

    Raises:
        StoreUnavailable: Postgres is away.
    """
    async with one_moment(connection):
        return await read_within(connection, since)


async def read_within(connection: Connection, since: datetime) -> History:
    """The same inside the caller's `one_moment`."""
    row = await (await connection.execute("SELECT now()")).fetchone()
    assert row is not None
    given: dict[str, object] = {
        "since": since, "most": MOST, "pause": _PAUSE, "retry": FactType.RETRY, "rejected": FactType.REJECTED,
        "alert": FactType.ALERT, "health": FactType.HEALTH,
    }  # fmt: skip
    return History(
        since=since,
        at=row[0],
        failures=await _rows(connection, _FAILURES, given, Failures),
        alerts=await _rows(connection, _ALERTS, given, AlertChange),
        health=await _rows(connection, _HEALTH, given, HealthChange),
        relays=await _rows(connection, _RELAYS, given, RelayRun),
        plans=await _rows(connection, _PLANS, given, PlanRun),
        events=await _rows(connection, _EVENTS, given, Event),
        actions=await _rows(connection, _ACTIONS, given, _action),
    )


async def _rows(
    connection: Connection, statement: str, given: Mapping[str, object], make: Callable[..., Row]
) -> list[Row]:
    cursor = await rows_of(connection, make).execute(statement.encode(), given)
    return await cursor.fetchall()


def _action(*, details: Any, result: Any, **columns: Any) -> OperatorAction:
    done = None if result is None else as_object(result)
    return OperatorAction(details=as_object(details), result=done, **columns)
