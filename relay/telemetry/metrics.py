"""Counts of one relay process since its start, and the Prometheus text of counts and gauges. No customer data."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.metrics_core import Metric

    from relay.domain.delivery import Deferred, Outcome
    from relay.telemetry.gauges import Gauge

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Counters:
    """Counts of one relay process. The heartbeat carries `as_dict` to the sibling workers."""

    def __init__(self) -> None:
        self.received = 0
        self.duplicates = 0
        self.ignored = 0
        self.taken_over = 0
        self.spooled = 0
        self.unavailable = 0
        self.overloaded = 0
        self.outcomes: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0

    def finished(self, outcome: Outcome) -> None:
        """Count the end of one run of the retry loop, and its attempts."""
        self.outcomes[outcome.state.value] += 1
        self.attempts.update(attempt.status for attempt in outcome.attempts)
        seconds = outcome.duration_ms / 1000
        self.seconds += seconds
        self.buckets[next((i for i, top in enumerate(BUCKETS_S) if seconds <= top), len(BUCKETS_S))] += 1

    def deferred(self, run: Deferred) -> None:
        """Count the attempts of a run that waits."""
        self.attempts.update(attempt.status for attempt in run.attempts)

    def as_dict(self) -> dict[str, Any]:
        """The counts as JSON can carry them."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}


class _Collector:
    """Yields the metrics of the workers' counts and of the gauges."""

    def __init__(self, workers: Mapping[int, Mapping[str, Any]], gauges: Iterable[Gauge]) -> None:
        self._workers = workers
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        simple = {
            "received": "Webhooks accepted for storing",
            "duplicates": "Webhooks whose delivery was known already",
            "ignored": "Webhooks stored and not forwarded",
            "taken_over": "Deliveries taken over from a relay that is no longer alive",
            "spooled": "Webhooks that went to the spool, since Postgres did not store them",
            "unavailable": "Webhooks refused because Postgres did not store them",
            "overloaded": "Webhooks refused because too many were in flight",
        }
        for name, text in simple.items():
            family = CounterMetricFamily(f"relay_webhooks_{name}", text, labels=["worker"])
            for slot, counts in self._workers.items():
                family.add_metric([str(slot)], counts.get(name, 0))
            yield family
        yield self._labelled("relay_deliveries", "Finished runs of the retry loop", "outcomes", "state")
        yield self._labelled("relay_attempts", "Attempts at the Agent SDK", "attempts", "status")
        yield self._labelled("relay_webhooks_rejected", "Webhooks refused", "rejected", "reason")
        yield self._durations()
        yield from self._shared()

    def _shared(self) -> Iterable[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for gauge in self._gauges:
            family = families.get(gauge.name)
            if family is None:
                family = families[gauge.name] = GaugeMetricFamily(gauge.name, gauge.text, labels=list(gauge.labels))
            family.add_metric(list(gauge.labels.values()), gauge.value)
        return families.values()

    def _labelled(self, name: str, text: str, key: str, label: str) -> Metric:
        family = CounterMetricFamily(name, text, labels=["worker", label])
        for slot, counts in self._workers.items():
            for value, count in counts.get(key, {}).items():
                family.add_metric([str(slot), value], count)
        return family

    def _durations(self) -> Metric:
        family = HistogramMetricFamily(
            "relay_forwarding_seconds", "Length of a run of the retry loop, waits included", labels=["worker"]
        )
        for slot, counts in self._workers.items():
            total, buckets = 0, []
            for top, count in zip((*map(str, BUCKETS_S), "+Inf"), counts.get("buckets", ()), strict=False):
                total += count
                buckets.append((top, total))
            if buckets:
                family.add_metric([str(slot)], buckets, sum_value=counts.get("seconds", 0.0))
        return family


def exposition(workers: Mapping[int, Mapping[str, Any]], gauges: Iterable[Gauge]) -> bytes:
    """The Prometheus text of every worker's counts (by slot) and of `gauges`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(workers, gauges))
    return generate_latest(registry)
