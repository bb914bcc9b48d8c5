"""Computes figures from tallies of facts: rates, averages, percentiles, histograms. No I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.domain.alerts import SUSTAINED_PERCENT, Rate
from relay.domain.delivery import FactType
from relay.domain.rejections import rejection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


_SLOTS_PER_DOUBLING = 8


@dataclass(frozen=True, slots=True)
class Tally:
    """A count of like facts within a window, without test webhooks.

    `slot` is the bucket of the forwarding time in the roll-ups; `duration_ms` is the sum of the forwarding times.
    """

    fact_type: FactType
    success: bool
    attempts: int
    final_status: str
    slot: int
    facts: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class FailureStreak:
    """The latest failures of one final status, without test webhooks, from `first` to `last`.

    The pause between two of them is never longer than the caller allowed. `first` is None if they go back further
    than a day. `lately` counts those of the last three minutes. `replayed` is True for failures of replays.
    """

    status: str
    replayed: bool
    first: datetime | None
    last: datetime
    lately: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one window, without test webhooks.

    Averages are over first runs, not replays. Times, in ms, span the whole retry loop; `average_ms` (the runbook's
    "Average Response Time") and `p95_ms` are of successful runs. `histogram` maps a number of attempts to
    `(delivered, dead)`, `failures` a final status to a count.
    """

    rate: Rate
    dead_letters: int
    average_attempts: float | None
    average_ms: float | None
    p95_ms: float | None
    histogram: dict[int, tuple[int, int]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    replayed: Rate = field(default_factory=lambda: Rate(0, 0))

    def refused_with(self, *statuses: int) -> int:
        """How many webhooks were refused with one of these HTTP statuses, without what scanners cause."""
        reasons = [(rejection(reason), count) for reason, count in self.rejected.items()]
        return sum(count for reason, count in reasons if reason.is_webhook and reason.status in statuses)


def figures(tallies: Sequence[Tally]) -> Figures:
    """The figures of a window, from its tallies."""
    runs = [tally for tally in tallies if tally.fact_type is FactType.RETRY]
    good = [tally for tally in runs if tally.success]
    failed = [tally for tally in runs if not tally.success]
    replays = [tally for tally in tallies if tally.fact_type is FactType.REPLAY]
    histogram: dict[int, tuple[int, int]] = {}
    failures: Counter[str] = Counter()
    for tally in runs:
        delivered, dead = histogram.get(tally.attempts, (0, 0))
        histogram[tally.attempts] = (
            delivered + tally.facts * tally.success,
            dead + tally.facts * (not tally.success),
        )
    for tally in failed:
        failures[tally.final_status] += tally.facts
    rejected: Counter[str] = Counter()
    for tally in tallies:
        if tally.fact_type is FactType.REJECTED:
            rejected[tally.final_status] += tally.facts
    return Figures(
        rate=Rate(_count(good), _count(failed)),
        dead_letters=_count([tally for tally in tallies if tally.fact_type is FactType.DEAD_LETTER]),
        average_attempts=_mean(sum(tally.attempts * tally.facts for tally in runs), _count(runs)),
        average_ms=_mean(sum(tally.duration_ms for tally in good), _count(good)),
        p95_ms=_percentile(good, 0.95),
        histogram=dict(sorted(histogram.items())),
        failures=dict(failures.most_common()),
        rejected=dict(rejected.most_common()),
        replayed=Rate(
            _count([tally for tally in replays if tally.success]),
            _count([tally for tally in replays if not tally.success]),
        ),
    )


def failing_since_s(minutes: Sequence[tuple[datetime, int, int]], now: datetime) -> float | None:
    """Seconds since a minute last reached the sustained rate; None if the last minute with data did.

    `minutes` are `(minute, delivered, failed)`, oldest first. Minutes without data are skipped.
    """
    since: datetime | None = None
    for minute, delivered, failed in reversed(minutes):
        percent = Rate(delivered, failed).percent
        if percent is None:
            continue
        if percent >= SUSTAINED_PERCENT:
            break
        since = minute
    return None if since is None else (now - since).total_seconds()


def _count(tallies: Sequence[Tally]) -> int:
    return sum(tally.facts for tally in tallies)


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None


def _percentile(tallies: Sequence[Tally], share: float) -> float | None:
    """The duration in ms below which `share` of the deliveries lie, interpolated within its slot."""
    slots: Counter[int] = Counter()
    for tally in tallies:
        slots[tally.slot] += tally.facts
    wanted = share * slots.total()
    if not wanted:
        return None
    passed = 0
    for slot, count in sorted(slots.items()):
        if passed + count >= wanted:
            within = (wanted - passed) / count
            return float(2 ** ((slot + within) / _SLOTS_PER_DOUBLING) - 1)
        passed += count
    return None
