"""The circuit breaker's view of one relay's attempts: when it must open, and for how long. Pure, but for the clock."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.domain.retry import without_agents_error

if TYPE_CHECKING:
    from relay.domain.delivery import Attempt

LEAST_ATTEMPTS = 20
FAILED_SHARE = 0.9
FIRST_PAUSE_S = 5.0
MOST_PAUSE_S = 60.0
_WINDOW_S = 60.0
_ASKING_TO_WAIT = frozenset({"429", "503"})


@dataclass(frozen=True, slots=True)
class Opening:
    """Why the breaker opens, and the pause before its first probe in seconds."""

    why: str
    pause_s: float


def verdict(attempts: int, failed: int) -> Opening | None:
    """Whether the last `attempts`, `failed` of them in a retryable way, open the breaker."""
    if attempts < LEAST_ATTEMPTS or failed < FAILED_SHARE * attempts:
        return None
    return Opening(f"{failed} of the last {attempts} attempts failed", FIRST_PAUSE_S)


class AttemptWindow:
    """The last attempts, all within a minute: success before an outage does not delay the opening.

    `most_pause_ms` caps a `Retry-After` that opens the breaker.
    """

    def __init__(self, most_pause_ms: float) -> None:
        self._most_pause_ms = most_pause_ms
        self._ended: deque[tuple[float, bool]] = deque(maxlen=LEAST_ATTEMPTS)
        self.asked: Opening | None = None
        self.last_error: str | None = None

    def add(self, attempt: Attempt) -> None:
        """Count an attempt that has ended."""
        failed, error = attempt.retryable, without_agents_error(attempt.error)
        self._ended.append((time.monotonic(), failed))
        if failed:
            self.last_error = error
        if attempt.retry_after_ms and attempt.status in _ASKING_TO_WAIT:
            pause_ms = min(attempt.retry_after_ms, self._most_pause_ms)
            self.asked = Opening(f"{error}, Retry-After {pause_ms / 1000:g} s", pause_ms / 1000)

    @property
    def counts(self) -> tuple[int, int]:
        """How many attempts these are, and how many of them failed in a retryable way."""
        since = time.monotonic() - _WINDOW_S
        while self._ended and self._ended[0][0] < since:
            self._ended.popleft()
        return len(self._ended), sum(failed for _, failed in self._ended)

    @property
    def is_suspicious(self) -> bool:
        """True if this relay's attempts alone open the breaker."""
        return self.asked is not None or verdict(*self.counts) is not None

    def clear(self) -> None:
        """Forget every attempt: the breaker has opened or closed."""
        self._ended.clear()
        self.asked = None
