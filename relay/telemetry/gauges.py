"""The gauges that all relays share, as Prometheus names them: base units, labels instead of names."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from relay.domain.alerts import Severity
from relay.domain.delivery import WaitReason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.domain.alerts import Rate
    from relay.store.backlog import BacklogState
    from relay.store.overview import Overview
    from relay.store.spool_file import SpoolState


@dataclass(frozen=True, slots=True)
class Gauge:
    """One sample: metric name, value, help text and labels."""

    name: str
    value: float
    text: str
    labels: dict[str, str] = field(default_factory=dict)


def gauges_of(state: Overview) -> Iterator[Gauge]:
    """The gauges of the overview. A figure without data yields none."""
    yield Gauge("relay_dead_letters_open", state.open_dead_letters, "Dead letters that wait for an operator")
    yield Gauge("relay_dead_letters", state.last_1h.dead_letters, "New dead letters of a window", {"window": "1h"})
    yield from _success(state.last_15min.rate, "15m")
    yield from _success(state.last_1h.rate, "1h")
    if state.last_1h.average_attempts is not None:
        yield Gauge(
            "relay_attempts_average", state.last_1h.average_attempts, "Attempts of a delivery, mean", {"window": "1h"}
        )
    yield Gauge("relay_deliveries_in_flight", state.in_flight, "Deliveries that some relay forwards now")
    yield Gauge("relay_instances_alive", len(state.alive), "Relay workers with a current heartbeat")
    aside = state.facts_aside.facts if state.facts_aside is not None else 0
    yield Gauge("relay_facts_aside", aside, "Facts that dashboard_facts has not accepted")
    yield from _backlog(state.backlog)
    for health in state.health:
        yield Gauge("relay_target_healthy", float(health.ok), "Result of the last probe", {"target": health.target})
    for severity in Severity:
        firing = sum(verdict.rule.severity is severity for verdict in state.firing)
        yield Gauge("relay_alerts_firing", firing, "Alerts that fire", {"severity": severity.value})
    for verdict in state.verdicts:
        labels = {"rule": verdict.rule.name, "severity": verdict.rule.severity.value}
        yield Gauge("relay_alert_firing", float(verdict.firing), "1 while the alert fires", labels)


def spool_gauges(state: SpoolState) -> Iterator[Gauge]:
    """The gauges of this host's spool, which are known without Postgres too."""
    yield Gauge("relay_spool_receipts", state.receipts, "Receipts in this host's spool")
    yield Gauge("relay_spool_bytes", state.bytes, "Bytes in this host's spool")
    yield Gauge("relay_spool_max_bytes", state.max_bytes, "The most that this host's spool may hold")
    oldest = 0.0 if state.oldest_at is None else (datetime.now(UTC) - state.oldest_at).total_seconds()
    yield Gauge("relay_spool_oldest_seconds", max(0.0, oldest), "Age of the oldest receipt in this host's spool")
    yield Gauge("relay_spool_writable", float(state.can_store), "1 while this host's spool takes receipts")


def _backlog(backlog: BacklogState) -> Iterator[Gauge]:
    for reason in WaitReason:
        yield Gauge("relay_backlog", backlog.by_reason.get(reason, 0), "Deliveries that wait", {"reason": reason.value})
    yield Gauge("relay_backlog_size", backlog.size, "Deliveries that wait, order and retries apart")
    yield Gauge("relay_backlog_oldest_seconds", backlog.oldest_s or 0, "Age of the oldest delivery that waits")
    yield Gauge("relay_backlog_drain_per_second", backlog.drain_per_s, "Deliveries that finish a second")
    yield Gauge("relay_destinations_without_relay", len(backlog.gone), "Destinations without a live relay")
    if backlog.empty_in_s is not None:
        yield Gauge("relay_backlog_empty_in_seconds", backlog.empty_in_s, "Time until the backlog is empty")
    yield Gauge("relay_forwarding_held", float(backlog.hold is not None), "1 while forwarding is held")
    yield Gauge("relay_breaker_open", float(backlog.breaker is not None), "1 while the circuit breaker is open")


def _success(rate: Rate, window: str) -> Iterator[Gauge]:
    if rate.percent is not None:
        yield Gauge("relay_success_ratio", rate.percent / 100, "Share of deliveries that succeeded", {"window": window})
