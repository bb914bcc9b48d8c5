"""What became of the attempts to store webhooks, as far as `/health` needs it. Kept in memory, by one process."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LASTS_AFTER_S = 3.0
"""Storing that has failed for so long fails: a shorter fault is one that the next attempt may survive."""

_RECENT_S = 300.0
_MOST_COUNTED = 10_000
_OVER_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class NotStored:
    """Webhooks that were not stored in the last five minutes, and why the last one was not."""

    count: int
    reason: str


class StoreFaults:
    """Collects what was stored and what was not. Reasons quote no value of a webhook."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=_MOST_COUNTED)
        self._reason = ""
        self._last_failed_at = float("-inf")
        self._stored_at = float("-inf")
        self._failing: set[str] = set()
        self._failing_since = float("inf")
        self._failing_why = ""
        self._failed_at = float("-inf")

    def stored(self) -> None:
        """Record that a webhook was stored."""
        self._stored_at = self._clock()
        self._failing.clear()
        self._failing_since = float("inf")

    def failed(self, delivery_id: str, reason: str, *, one_only: bool = False, is_spooled: bool = False) -> None:
        """Record that a webhook was not stored. With `one_only` that says nothing about other webhooks.

        One that `is_spooled` is not lost: it is not counted in `recent`.
        """
        now = self._clock()
        self._last_failed_at = now
        if not is_spooled:
            self._times.append(now)
            self._reason = reason
        if one_only:
            return
        if len(self._failing) < _MOST_COUNTED:
            self._failing.add(delivery_id)
        self._failing_since = min(self._failing_since, now)
        self._failing_why = reason
        self._failed_at = now

    def stored_within(self, seconds: float) -> bool:
        """True if a webhook was stored in the last `seconds`."""
        return self._clock() - self._stored_at <= seconds

    def failed_since(self, moment: float) -> bool:
        """True if a webhook was not stored after `moment` (`time.monotonic()`)."""
        return self._last_failed_at > moment

    @property
    def lasting(self) -> str | None:
        """Why no webhook is stored, if several failed and none was stored for `LASTS_AFTER_S`; else None."""
        now = self._clock()
        lasts = now - self._failing_since >= LASTS_AFTER_S and now - self._failed_at <= _OVER_AFTER_S
        return self._failing_why if lasts and len(self._failing) > 1 else None

    @property
    def recent(self) -> NotStored | None:
        """What was not stored in the last five minutes, or None."""
        while self._times and self._clock() - self._times[0] > _RECENT_S:
            self._times.popleft()
        return NotStored(len(self._times), self._reason) if self._times else None
