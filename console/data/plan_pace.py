"""Measures how fast running replays settle their deliveries, so that the time left is measured and not computed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.store.replays import PlanState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from relay.store.replays import Plan

_WINDOW_S = 10.0
_LEAST_S = 1.0


@dataclass(slots=True)
class PlanPace:
    """What was seen of each running plan within the last seconds: moments, and how many deliveries were settled."""

    _seen: dict[int, deque[tuple[datetime, int]]] = field(default_factory=dict)

    def take(self, plans: Sequence[Plan], at: datetime, *, is_stopped: bool = False) -> None:
        """Take the plans as they were at one moment. A plan that does not run is measured anew once it does.

        None runs while forwarding `is_stopped`, by a hold or the circuit breaker.
        """
        running = {plan.id: plan for plan in plans if plan.state is PlanState.RUNNING and not is_stopped}
        self._seen = {plan_id: seen for plan_id, seen in self._seen.items() if plan_id in running}
        for plan_id, plan in running.items():
            seen = self._seen.setdefault(plan_id, deque())
            seen.append((at, plan.total - plan.left))
            while (at - seen[0][0]).total_seconds() > _WINDOW_S:
                seen.popleft()

    def left_s(self, plan: Plan) -> float | None:
        """Return the seconds that the rest takes at the pace of the last ones; None while no pace is known.

        A console that has just been opened takes the pace since the plan began.
        """
        seen = self._seen.get(plan.id)
        if not seen:
            return None
        (first_at, before), (last_at, settled) = seen[0], seen[-1]
        if (last_at - first_at).total_seconds() < _LEAST_S and plan.started_at is not None:
            first_at, before = plan.started_at, 0
        if settled <= before:
            return None
        return plan.left * (last_at - first_at).total_seconds() / (settled - before)
