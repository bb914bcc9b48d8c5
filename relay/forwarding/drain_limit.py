"""How much of the backlog is forwarded at the same time, so that its drain does not slow live traffic. No I/O.

The drain takes all the CPU that it gets. Where that delays live webhooks, fewer deliveries of the backlog are in
progress; where it does not, for example because the Agent SDK is what is slow, more are.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST = 64
LEAST = 16
"""So many deliveries of the backlog may be in progress in each relay at first, and at least."""

_MOST_AT_ONCE = 16
_STEP_S = 0.1
_GROWS, _SHRINKS = 1.1, 0.7
_TIMES_USUAL = 3
_LEAST_LIMIT_S = 0.010
_LIMIT_S = 0.030
"""What counts as a delay while it is not known how long storing usually takes."""


class DrainLimit:
    """Limits the deliveries of the backlog in progress by the delays that live traffic has meanwhile.

    A delay is one that is three times what storing a webhook usually takes, 10 ms at least. Ten times a second the
    limit shrinks by 30 % if there was one, or grows by 10 % if there was none and the limit was reached.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._usual: deque[float] = deque(maxlen=64)
        self._worst_s = 0.0
        self._step_at = clock()
        self._limit = float(FIRST)
        self._reached = False
        self.in_progress = 0

    @property
    def limit(self) -> int:
        """How many may be in progress."""
        return int(self._limit)

    @property
    def delay_s(self) -> float:
        """From how many seconds on a wait counts as a delay."""
        if not self._usual:
            return _LIMIT_S
        return max(_LEAST_LIMIT_S, _TIMES_USUAL * statistics.median(self._usual))

    def stored(self, seconds: float) -> None:
        """Count a live webhook that was stored within `seconds`."""
        if self.in_progress:
            self._worst_s = max(self._worst_s, seconds)
        else:
            self._usual.append(seconds)

    def delayed(self, seconds: float) -> None:
        """Count a pause of the event loop that took `seconds` longer than it had to."""
        self._worst_s = max(self._worst_s, seconds)

    def room(self) -> int:
        """How many more of the backlog may start now: none or several, since several cost little more than one."""
        if self._clock() - self._step_at >= _STEP_S:
            self._step()
        room = self.limit - self.in_progress
        if room >= min(self.limit // 2, _MOST_AT_ONCE):
            return room
        self._reached = True
        return 0

    def _step(self) -> None:
        if self._worst_s >= self.delay_s:
            self._limit = max(float(LEAST), self._limit * _SHRINKS)
        elif self._reached:
            self._limit = self._limit * _GROWS + 1
        self._step_at, self._worst_s, self._reached = self._clock(), 0.0, False
