"""Counts of one relay process since its start. No customer data. What Prometheus reads of them is in `exposition`."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.telemetry.counts import PART_BYTES, Counts, parts, read

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.domain.delivery import Deferred, Outcome

_SHORT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_LONG_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0)

COUNTS = {
    "received": "Webhooks accepted for storing",
    "duplicates": "Webhooks whose delivery was known already",
    "ignored": "Webhooks stored and not forwarded",
    "taken_over": "Deliveries taken over from a relay that is no longer alive",
    "spooled": "Webhooks that went to the spool, since Postgres did not store them",
    "unavailable": "Webhooks refused because neither Postgres nor the spool took them",
}
"""Counts without labels, by the attribute of `Counters`; a metric is `relay_webhooks_NAME_total`."""

LABELLED = {
    "outcomes": ("relay_deliveries", "state", "Finished runs of the retry loop"),
    "attempts": ("relay_attempts", "status", "Attempts at the Agent SDK"),
    "rejected": ("relay_webhooks_rejected", "reason", "Webhooks refused"),
}
"""Counts by one label, by the attribute of `Counters`: metric, label, help text."""

HISTOGRAMS = {
    "forwarding": ("relay_forwarding_seconds", _SHORT_S, "Length of a run of the retry loop, waits included"),
    "attempt": ("relay_attempt_seconds", _SHORT_S, "Length of one attempt at the Agent SDK, its answer included"),
    "delivery": ("relay_delivery_seconds", _LONG_S, "Time from the receipt of a webhook to its delivery"),
}
"""Histograms, by the key of their counts: metric, upper limits of the buckets in seconds, help text."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """An observation with the trace that was recorded for it: its length, and when it was made (a Unix time)."""

    trace_id: str
    seconds: float
    at: float


class _Count:
    """A count without labels as an attribute of `Counters`: `counters.received += 1`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, counters: Counters, owner: type) -> int:
        return round(counters.counts[self._name])

    def __set__(self, counters: Counters, value: int) -> None:
        counters.counts.add(self._name, value - counters.counts[self._name])


class _Labels:
    """A count for each value of one label: `counters.rejected["not_an_object"] += 1`."""

    def __init__(self, counts: Counts, name: str) -> None:
        self._counts = counts
        self._name = name

    def __getitem__(self, value: str) -> int:
        return round(self._counts[f"{self._name} {value}"])

    def __setitem__(self, value: str, count: int) -> None:
        name = f"{self._name} {value}"
        self._counts.add(name, count - self._counts[name])

    def update(self, values: Iterable[str]) -> None:
        """Add one to the count of each of `values`."""
        for value in values:
            self._counts.add(f"{self._name} {value}")


class Counters:
    """Counts of one worker. Its siblings read them where they are written: see `counts`.

    `memory` is what all workers of one relay share, and `slot` this worker's part of it. `exemplars` has this worker's
    last observation with a trace, by histogram and index of the bucket.
    """

    received = _Count()
    duplicates = _Count()
    ignored = _Count()
    taken_over = _Count()
    spooled = _Count()
    unavailable = _Count()

    def __init__(self, memory: memoryview | None = None, slot: int = 0) -> None:
        self._memory = memoryview(bytearray((slot + 1) * PART_BYTES)) if memory is None else memory
        self.counts = Counts(parts(self._memory)[slot])
        self.outcomes = _Labels(self.counts, "outcomes")
        self.attempts = _Labels(self.counts, "attempts")
        self.rejected = _Labels(self.counts, "rejected")
        self.slot = slot
        self.exemplars: dict[tuple[str, int], Exemplar] = {}
        for name in COUNTS:
            self.counts.add(name, 0)

    def finished(self, outcome: Outcome, *, since_receipt_s: float | None = None, trace_id: str | None = None) -> None:
        """Count the end of one run of the retry loop, and its attempts.

        `since_receipt_s` is the time since the webhook came in; None if this relay does not know it. `trace_id` is the
        trace that was recorded, None if none was.
        """
        self.outcomes.update([outcome.state.value])
        self.attempts.update(attempt.status for attempt in outcome.attempts)
        self._observe("forwarding", outcome.duration_ms / 1000, trace_id)
        for attempt in outcome.attempts:
            self._observe("attempt", attempt.duration_ms / 1000, trace_id)
        if outcome.success and since_receipt_s is not None:
            self._observe("delivery", since_receipt_s, trace_id)

    def deferred(self, run: Deferred, *, trace_id: str | None = None) -> None:
        """Count the attempts of a run that waits; `trace_id` as in `finished`."""
        self.attempts.update(attempt.status for attempt in run.attempts)
        for attempt in run.attempts:
            self._observe("attempt", attempt.duration_ms / 1000, trace_id)

    def of_all_workers(self) -> dict[int, dict[str, float]]:
        """What every worker of this relay has counted by now, by slot."""
        return {slot: counts for slot, part in enumerate(parts(self._memory)) if (counts := read(part))}

    def _observe(self, key: str, seconds: float, trace_id: str | None) -> None:
        limits = HISTOGRAMS[key][1]
        index = bisect_left(limits, seconds)
        self.counts.add(f"{key}_sum", seconds)
        self.counts.add(f"{key}_bucket {index}")
        if trace_id is not None:
            self.exemplars[key, index] = Exemplar(trace_id, seconds, time.time())
