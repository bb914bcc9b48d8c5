"""Evaluates the alert rules that need no database, from memory, while Postgres is away (DESIGN, 7).

What is raised and cleared meanwhile is kept until it is recorded. Counts are this worker's own.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.domain.alerts import ActiveAlert, Measures, Transition, evaluate, sustain
from relay.domain.rejections import REASONS, rejection

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from relay.telemetry.metrics import Counters

RULES = frozenset({"store-down-p0", "refused-p0", "lost-p1", "refused-warning", "spool-p1"})
"""The rules that memory has the measures of."""

_KEPT_S = 3_600
_FIVE_MINUTES_S = 300


@dataclass(frozen=True, slots=True)
class _Sample:
    """The counters at one moment (`time.monotonic()`)."""

    at: float
    refused: Counter[str]
    accepted: int


class StoreOutage:
    """Knows since when Postgres has been away, and which alerts fire because of what this worker has seen.

    `spool_share` says how full the spool is, None where there is none.
    """

    def __init__(
        self,
        counters: Counters,
        spool_share: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = counters
        self._spool_share = spool_share
        self._clock = clock
        self._samples: deque[_Sample] = deque()
        self._began: tuple[datetime, float] | None = None
        self._lost_before = 0
        self.known: Collection[str] = ()
        """The rules that fired when Postgres was last read: what is raised already is not raised again."""
        self.active: dict[str, ActiveAlert] = {}
        self.unrecorded: list[Transition] = []

    @property
    def since(self) -> datetime | None:
        """When Postgres was first missed, None while it is there."""
        return None if self._began is None else self._began[0]

    @property
    def has_news(self) -> bool:
        """True if something was raised or cleared that is not recorded, or an alert is active in memory alone."""
        return bool(self.unrecorded or self.active)

    @property
    def lost(self) -> int:
        """How many webhooks this worker has answered 503 since then."""
        return self._lost(self._refused()) - self._lost_before

    def sample(self) -> None:
        """Keep the counters as they are now, and forget those of more than an hour ago."""
        now = self._clock()
        self._samples.append(_Sample(now, self._refused(), self._accepted()))
        while len(self._samples) > 1 and self._samples[1].at <= now - _KEPT_S:
            self._samples.popleft()

    def missed(self, now: datetime) -> list[Transition]:
        """Evaluate the rules: Postgres is away. Returns what was raised and cleared."""
        if self._began is None:
            self._began = now, self._clock()
        verdicts = [verdict for verdict in evaluate(self._measures()) if verdict.rule.name in RULES]
        changes = []
        for verdict in sustain(verdicts, self.active, now):
            rule = verdict.rule.name
            alert = self.active.get(rule)
            if verdict.holds and alert is None and rule not in self.known:
                changes.append(Transition(verdict, raised=True, at=now, since=now))
            elif alert is not None and not verdict.firing:
                changes.append(Transition(verdict, raised=False, at=now, since=alert.since))
                del self.active[rule]
            if verdict.holds and (alert is not None or rule not in self.known):
                self.active[rule] = ActiveAlert(now if alert is None else alert.since, now)
        self.unrecorded += changes
        return changes

    def over(self, firing: Collection[str]) -> None:
        """Postgres is there, all is recorded, and these rules fire."""
        self._began = None
        self._lost_before = self._lost(self._refused())
        self.active.clear()
        self.unrecorded.clear()
        self.known = firing

    def _measures(self) -> Measures:
        assert self._began is not None
        last_5min, last_1h = self._counted(_FIVE_MINUTES_S), self._counted(_KEPT_S)
        return Measures.of_nothing(
            accepted_5min=last_5min.accepted,
            refused_5min=_with_status(last_5min.refused, 401, 413, 503),
            lost_1h=_with_status(last_1h.refused, 413, 503),
            turned_away_1h=_with_status(last_1h.refused, 401, 404),
            store_away_s=self._clock() - self._began[1],
            spool_share=self._spool_share(),
        )

    def _counted(self, window_s: float) -> _Sample:
        """What was counted within the window."""
        now = self._clock()
        first = next((one for one in self._samples if one.at >= now - window_s), None)
        refused, accepted = self._refused(), self._accepted()
        if first is None:
            return _Sample(now, Counter(), 0)
        return _Sample(now, refused - first.refused, accepted - first.accepted)

    def _refused(self) -> Counter[str]:
        return Counter({reason: self._counters.rejected[reason] for reason in REASONS})

    def _accepted(self) -> int:
        counters = self._counters
        return counters.received + counters.duplicates + counters.ignored

    @staticmethod
    def _lost(refused: Counter[str]) -> int:
        return _with_status(refused, 503)


def _with_status(refused: Counter[str], *statuses: int) -> int:
    reasons = [(rejection(reason), count) for reason, count in refused.items()]
    return sum(count for reason, count in reasons if reason.is_webhook and reason.status in statuses)
