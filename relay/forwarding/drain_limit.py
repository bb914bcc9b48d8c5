"""How much of the backlog is forwarded at the same time, so that its drain does not slow live traffic. No I/O.

The drain takes all the CPU that it gets. Where that delays live webhooks, fewer deliveries of the backlog are in
progress; where it does not, for example because the Agent SDK is what is slow, more are.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST = 16
LEAST = 8
"""So many deliveries of the backlog may be in progress in each relay at first, and at least."""

_MOST_AT_ONCE = 4
_STEP_S = 0.1
_SHRINKS = 0.5
_GROWS = 1.03
_CAREFUL_S = 30
_GROWS_CAREFULLY, _GROWS_A_COMMIT = 1.002, 0.002
_TIMES_USUAL = 1.5
_LEAST_LIMIT_S = 0.005
_LIMIT_S = 0.030
"""What counts as a delay while it is not known how long a commit usually takes."""


class DrainLimit:
    """Limits the deliveries of the backlog in progress by the delays that live traffic has meanwhile.

    A delay is one and a half times what all but two of the last 128 commits of live webhooks and their outcomes took
    before the drain, 5 ms at least. Ten times a second the limit is halved if there was one, or grows if there
    was none and the limit was reached: at first by 3 %; within 30 s of a delay by 0.2 %, and by 0.2 % for each such
    commit, so that about one in four hundred is delayed whatever their rate.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._usual: deque[float] = deque(maxlen=128)
        self._worst_s = 0.0
        self._committed = 0
        self._step_at = clock()
        self._careful_until = float("-inf")
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
        if len(self._usual) < 3:
            return _LIMIT_S
        return max(_LEAST_LIMIT_S, _TIMES_USUAL * sorted(self._usual)[-3])

    def committed(self, seconds: float) -> None:
        """Count a live webhook, or the outcome of one, that was committed within `seconds`."""
        if self.in_progress:
            self._worst_s = max(self._worst_s, seconds)
            self._committed += 1
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
        now = self._clock()
        if self._worst_s >= self.delay_s:
            self._limit = max(float(LEAST), self._limit * _SHRINKS)
            self._careful_until = now + _CAREFUL_S
        elif self._reached:
            careful = _GROWS_CAREFULLY + _GROWS_A_COMMIT * self._committed
            self._limit *= careful if now < self._careful_until else _GROWS
        self._step_at, self._worst_s, self._committed, self._reached = now, 0.0, 0, False
