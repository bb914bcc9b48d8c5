"""The state of everything, in one read transaction: what `relay status`, `/metrics` and the console show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from relay.alerts import Measures, Severity, Verdict, evaluate, sustain
from relay.figures import Figures, failing_since_s, figures
from relay.store import alerts, facts, instances
from relay.store.database import one_moment

if TYPE_CHECKING:
    from datetime import datetime

    from relay.store.database import Connection
    from relay.store.facts import Health
    from relay.store.instances import Liveness

_WINDOWS = tuple(timedelta(minutes=minutes) for minutes in (10, 15, 30, 60, 6 * 60, 24 * 60))
_SUSTAINED = timedelta(hours=2)

_NOW = f"""
    SELECT now(),
           (SELECT coalesce(sum(letters), 0)::bigint FROM relay.dead_causes),
           (SELECT count(*) FROM relay.deliveries WHERE state IN ('received', 'forwarding')),
           (SELECT extract(epoch FROM now() - min(CASE WHEN run = 1 THEN received_at ELSE claimed_at END))::float8
              FROM relay.deliveries WHERE state IN ('received', 'forwarding')),
           (SELECT extract(epoch FROM now() - received_at)::float8 FROM relay.deliveries
             WHERE NOT test ORDER BY id DESC LIMIT 1),
           (SELECT extract(epoch FROM now() - min(received_at))::float8 FROM (
               SELECT min(received_at) AS received_at FROM relay.deliveries
                WHERE state = 'dead' AND customer AND NOT test
               UNION ALL
               SELECT min(received_at) FROM relay.deliveries
                WHERE state IN ('received', 'forwarding') AND customer AND NOT test) AS waiting),
           (SELECT extract(epoch FROM now() - max({instances.HEARD_AT}))::float8 FROM relay.instances)
"""  # noqa: S608 - constants
_AGENT_FAILING = """
    SELECT extract(epoch FROM now() - min(f.recorded_at))::float8
      FROM dashboard_facts f
     WHERE f.fact_type = 'support.health' AND f.recorded_at > now() - interval '2 hours'
       AND f.value ->> 'target' = 'agent'
       AND f.recorded_at > coalesce((
           SELECT max(o.recorded_at) FROM dashboard_facts o
            WHERE o.fact_type = 'support.health' AND o.recorded_at > now() - interval '2 hours'
              AND o.value ->> 'target' = 'agent' AND o.value ->> 'ok' = 'true'), '-infinity')
"""


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at one moment. `last_*` are figures of that window; ages in seconds.

    `minutes` are `(minute, delivered, failed)` of each minute in which something was, oldest first.
    """

    at: datetime
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
    oldest_in_flight_s: float | None
    last_webhook_age_s: float | None
    health: list[Health]
    relays: list[Liveness]

    @property
    def firing(self) -> list[Verdict]:
        """The alerts that fire, worst first."""
        return [verdict for verdict in self.verdicts if verdict.firing]

    @property
    def alive(self) -> list[Liveness]:
        """The relays that are alive."""
        return [relay for relay in self.relays if relay.alive]


async def read(connection: Connection) -> Overview:
    """Read the overview, in one transaction that sees one moment."""
    async with one_moment(connection):
        return await read_within(connection)


async def read_within(connection: Connection, *, minutes_of: timedelta = _SUSTAINED) -> Overview:
    """Read the overview inside the caller's `one_moment`; `minutes` reach back `minutes_of`, two hours at least."""
    cursor = await connection.execute(_NOW.encode())
    row = await cursor.fetchone()
    assert row is not None
    now, dead, in_flight, oldest_s, webhook_s, waiting_s, heartbeat_s = row
    windows = [figures(tallies) for tallies in await facts.tallies(connection, _WINDOWS)]
    minutes = await facts.per_minute(connection, max(minutes_of, _SUSTAINED))
    cursor = await connection.execute(_AGENT_FAILING)
    failing = await cursor.fetchone()
    health = await facts.last_health(connection)
    relays = await instances.liveness(connection)
    last_10min, last_15min, last_30min, last_1h, last_6h, last_24h = windows
    measures = Measures(
        rate_10min=last_10min.rate,
        rate_15min=last_15min.rate,
        rate_30min=last_30min.rate,
        failing_s=failing_since_s([m for m in minutes if now - m[0] <= _SUSTAINED], now),
        dead_letters_1h=last_1h.dead_letters,
        average_attempts_1h=last_1h.average_attempts,
        average_ms_15min=last_15min.average_ms,
        agent_failing_s=failing[0] if failing else None,
        oldest_customer_wait_s=waiting_s,
        heartbeat_age_s=heartbeat_s,
        last_webhook_age_s=webhook_s,
        webhooks_24h=last_24h.rate.delivered + last_24h.rate.failed,
    )
    return Overview(
        at=now,
        verdicts=sustain(evaluate(measures), await alerts.standing(connection), now),
        last_10min=last_10min,
        last_15min=last_15min,
        last_30min=last_30min,
        last_1h=last_1h,
        last_6h=last_6h,
        last_24h=last_24h,
        minutes=minutes,
        open_dead_letters=dead,
        in_flight=in_flight,
        oldest_in_flight_s=oldest_s,
        last_webhook_age_s=webhook_s,
        health=health,
        relays=relays,
    )


async def gauges(connection: Connection) -> dict[str, float]:
    """The overview's figures as Prometheus gauges, by metric name."""
    state = await read(connection)
    values: dict[str, float | None] = {
        "relay_dead_letters_open": state.open_dead_letters,
        "relay_dead_letters_1h": state.last_1h.dead_letters,
        "relay_success_rate_percent_15min": state.last_15min.rate.percent,
        "relay_success_rate_percent_1h": state.last_1h.rate.percent,
        "relay_average_attempts_1h": state.last_1h.average_attempts,
        "relay_deliveries_in_flight": state.in_flight,
        "relay_instances_alive": len(state.alive),
    }
    for health in state.health:
        values[f"relay_{health.target}_healthy"] = float(health.ok)
    for severity in Severity:
        name = severity.value.lower()
        values[f"relay_alerts_firing_{name}"] = sum(v.rule.severity is severity for v in state.firing)
    for verdict in state.verdicts:
        values[f"relay_alert_firing_{verdict.rule.name.replace('-', '_')}"] = float(verdict.firing)
    return {name: float(value) for name, value in values.items() if value is not None}
