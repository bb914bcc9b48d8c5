"""A token bucket: how many deliveries may start now at a rate that can change."""

from __future__ import annotations

import time


class RateLimit:
    """Allows `rate` starts a second, None for no limit. At most a tenth of a second's worth is saved up."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._tokens = 1.0
        self._at = time.monotonic()

    def set(self, rate: float | None) -> None:
        """Change the rate."""
        self._refill()
        self._rate = rate

    def take(self, most: int) -> int:
        """How many of `most` may start now; they count as started."""
        if self._rate is None:
            return most
        self._refill()
        allowed = min(most, int(self._tokens))
        self._tokens -= allowed
        return allowed

    def give_back(self, number: int) -> None:
        """Of what `take` allowed, `number` were not started."""
        if self._rate is not None:
            self._tokens += number

    def _refill(self) -> None:
        now = time.monotonic()
        if self._rate is not None:
            self._tokens = min(max(1.0, self._rate / 10), self._tokens + (now - self._at) * self._rate)
        self._at = now
