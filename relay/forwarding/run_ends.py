"""Reports the end of a run, once it is recorded: in the counts for `/metrics` and in the forwarding log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from relay.domain.delivery import Deferred, State, WaitReason

if TYPE_CHECKING:
    from relay.domain.delivery import Delivery, Outcome
    from relay.store.deliveries import Finished
    from relay.telemetry.forwarding_log import ForwardingLog
    from relay.telemetry.metrics import Counters


class RunEnds:
    """Counts and logs what became of runs."""

    def __init__(self, counters: Counters, forwarding_log: ForwardingLog) -> None:
        self._counters = counters
        self._forwarding_log = forwarding_log

    def report(
        self,
        delivery: Delivery,
        run: Outcome | Deferred,
        finished: Finished,
        *,
        came_at: float | None,
        trace_id: str | None,
    ) -> Outcome | WaitReason:
        """Report one run; returns its outcome, or why the delivery waits.

        `came_at` is when its webhook came in (`time.monotonic()`), None for one that was stored earlier.
        """
        if isinstance(run, Deferred):
            self._counters.deferred(run, trace_id=trace_id)
            self._forwarding_log.deferred(delivery, run.reason, run.pause_ms)
            return run.reason
        if finished.state is State.WAITING:
            self._forwarding_log.deferred(delivery, WaitReason.BREAKER, 0)
            return WaitReason.BREAKER
        since_receipt_s = _since_receipt_s(delivery, run, came_at)
        self._counters.finished(run, since_receipt_s=since_receipt_s, trace_id=trace_id)
        if run.success:
            self._forwarding_log.delivered(delivery, run)
        else:
            self._forwarding_log.dead_lettered(delivery, run)
        return run


def _since_receipt_s(delivery: Delivery, outcome: Outcome, came_at: float | None) -> float | None:
    """The time since the webhook came in, as far as this relay knows it: not that of a replay."""
    if came_at is not None:
        return time.monotonic() - came_at
    return None if delivery.plan_id is not None else (delivery.waited_ms + outcome.duration_ms) / 1000
