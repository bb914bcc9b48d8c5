"""Logs a kind of event that any client can cause as often as it likes: the first at once, a burst as one line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE_S = 10
"""How long after a line the next one of its kind is written at the earliest."""


class Burst:
    """Counts the events of one kind, and calls `write` with the fields of the last and, if there were more, a `count`.

    `write` is called for the first event at once, then once in `PAUSE_S` while events come.
    """

    def __init__(self, write: Callable[..., object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._next_at = float("-inf")
        self._count = 0
        self._last: dict[str, Any] = {}

    def add(self, **fields: Any) -> None:
        """Count an event."""
        self._count += 1
        self._last = fields
        self.flush()

    def flush(self, *, at_once: bool = False) -> None:
        """Write what was counted if it is time, or `at_once`. Called regularly, so that the last events are logged."""
        now = self._clock()
        if self._count == 0 or (now < self._next_at and not at_once):
            return
        count = {"count": self._count} if self._count > 1 else {}
        self._write(**self._last, **count)
        self._count, self._next_at = 0, now + PAUSE_S
