"""The text that Prometheus reads: the counts of every worker, and gauges. No customer data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, samples
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder

from relay.telemetry.metrics import COUNTS, HISTOGRAMS, LABELLED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from relay.telemetry.gauges import Gauge
    from relay.telemetry.metrics import Counters, Exemplar


class _Collector:
    """Yields the metrics of the workers' counts and of the gauges."""

    def __init__(self, counters: Counters, gauges: Iterable[Gauge]) -> None:
        self._counters = counters
        self._workers = counters.of_all_workers()
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        for name, text in COUNTS.items():
            family = CounterMetricFamily(f"relay_webhooks_{name}", text, labels=["worker"])
            for slot, counts in self._workers.items():
                family.add_metric([str(slot)], counts.get(name, 0))
            yield family
        for name, (metric, label, text) in LABELLED.items():
            family = CounterMetricFamily(metric, text, labels=["worker", label])
            for slot, counts in self._workers.items():
                for value, count in _under(counts, name):
                    family.add_metric([str(slot), value], count)
            yield family
        for key in HISTOGRAMS:
            yield self._histogram(key)
        yield from self._shared()

    def _shared(self) -> Iterable[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for gauge in self._gauges:
            family = families.get(gauge.name)
            if family is None:
                family = families[gauge.name] = GaugeMetricFamily(gauge.name, gauge.text, labels=list(gauge.labels))
            family.add_metric(list(gauge.labels.values()), gauge.value)
        return families.values()

    def _histogram(self, key: str) -> Metric:
        metric, limits, text = HISTOGRAMS[key]
        family = HistogramMetricFamily(metric, text, labels=["worker"])
        for slot, counts in self._workers.items():
            found = {int(index): count for index, count in _under(counts, f"{key}_bucket")}
            known = self._counters.exemplars if slot == self._counters.slot else {}
            total = 0.0
            buckets: list[tuple[str, float] | tuple[str, float, samples.Exemplar]] = []
            for index, top in enumerate((*map(str, limits), "+Inf")):
                total += found.get(index, 0)
                exemplar = known.get((key, index))
                buckets.append((top, total) if exemplar is None else (top, total, _sample(exemplar)))
            family.add_metric([str(slot)], buckets, sum_value=counts.get(f"{key}_sum", 0.0))
        return family


def _sample(exemplar: Exemplar) -> samples.Exemplar:
    return samples.Exemplar({"trace_id": exemplar.trace_id}, exemplar.seconds, exemplar.at)


def _under(counts: Mapping[str, float], name: str) -> Iterator[tuple[str, float]]:
    """The counts of `name` by the value of its label."""
    for key, count in counts.items():
        found, _, value = key.partition(" ")
        if found == name and value:
            yield value, count


def exposition(counters: Counters, gauges: Iterable[Gauge], accept: str = "") -> tuple[bytes, str]:
    """The text of every worker's counts and of `gauges`, and its content type.

    It is OpenMetrics with exemplars where the header `accept` asks for that, else Prometheus' own format. Exemplars are
    those of the worker that answers.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(counters, gauges))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
