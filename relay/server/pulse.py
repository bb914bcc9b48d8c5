"""Detects a worker whose event loop has stalled: the process is stopped (SIGSTOP) or the loop is blocked.

Each worker changes a byte of memory that it shares with the supervisor, which checks that the byte keeps changing.
"""

from __future__ import annotations

import asyncio
import time

PULSE_BYTES = 1
"""The shared bytes of one worker."""

STALLED_AFTER_S = 10.0
"""A worker whose byte does not change for this long has stalled."""

_START_S = 60.0
_EVERY_S = 0.5
_LONGEST_ROUND_S = 1.0


async def beat(pulses: memoryview, slot: int) -> None:
    """Change the byte of `slot` every half second, for ever."""
    while True:
        pulses[slot] = pulses[slot] % 255 + 1
        await asyncio.sleep(_EVERY_S)


class StallWatch:
    """The supervisor's side. A worker that has not begun to beat has a minute to start.

    Only the supervisor's own rounds count, a second each at most: after the whole machine was asleep, no worker has
    stood still.
    """

    def __init__(self, pulses: memoryview) -> None:
        self._pulses = pulses
        self._seen = [0] * len(pulses)
        self._still_s = [0.0] * len(pulses)
        self._looked_at = [0.0] * len(pulses)

    def started(self, slot: int) -> None:
        """A worker begins in `slot`."""
        self._pulses[slot] = self._seen[slot] = 0
        self._still_s[slot] = 0.0
        self._looked_at[slot] = time.monotonic()

    def is_stalled(self, slot: int) -> bool:
        """Return True if the worker in `slot` has stalled. Call it about twice a second."""
        now, pulse = time.monotonic(), self._pulses[slot]
        self._still_s[slot] += min(now - self._looked_at[slot], _LONGEST_ROUND_S)
        self._looked_at[slot] = now
        if pulse != self._seen[slot]:
            self._seen[slot] = pulse
            self._still_s[slot] = 0.0
        return self._still_s[slot] > (STALLED_AFTER_S if pulse else _START_S)
