"""Figures drawn from tallies of facts: rates, averages, percentiles, histograms. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.domain.alerts import SUSTAINED_PERCENT, Rate
from relay.domain.delivery import FactType

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


_SLOTS_PER_DOUBLING = 8
_PASSING_4XX = frozenset({408, 429})


def retry_helps(status: str) -> bool:
    """True if what ended with this final status may get through when it is sent again (DESIGN, 3).

    A refusal (any other 4xx, a redirect) is the same however often the same payload is sent.
    """
    if status.isdigit():
        return int(status) >= 500 or int(status) in _PASSING_4XX
    return bool(status)


@dataclass(frozen=True, slots=True)
class Tally:
    """So many facts of one kind within a window, the tests left out.

    `slot` is the forwarding time's place on the roll-ups' scale; `duration_ms` the sum of those times.
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
    """The latest failures of one final status, test webhooks left out, from `first` to `last`.

    No longer pause than the reader asked for lies within. `first` is None if they go back further than a day.
    `lately` is how many there were in the last three minutes. `replayed`: they are those of replays.
    """

    status: str
    replayed: bool
    first: datetime | None
    last: datetime
    lately: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What one window of time holds, test webhooks left out.

    Averages are over first-hand runs; times, in ms, are whole loops, those of the runbook's "Average Response
    Time" being the successful ones. `histogram` maps a number of attempts to `(delivered, dead)`;
    `failures` a final status to a count.
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
    """How long no minute has reached the sustained rate; None if the last minute with data did.

    `minutes` are `(minute, delivered, failed)`, oldest first; minutes without data say nothing.
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
    """The duration in ms that `share` of the deliveries stay within, interpolated in its slot."""
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
