"""How many deliveries a rate allows: a bucket of a tenth of a second's worth, one at least. Pure; keeps no time.

The bucket's level is a time: how long ago the next delivery was allowed (`since_s`, negative for later). Each start
moves that on by 1 / rate, whichever relay starts it, so that all relays together keep the rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_BURST_S = 0.1
CATCH_UP_S = 0.5
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A rate in deliveries a second, and how long ago it allowed the next one.

    `reserve` deliveries are left to others. While `catching_up`, what a delayed round missed is made up for.
    """

    rate: float
    since_s: float
    reserve: int = 0
    catching_up: bool = False

    @property
    def _level_s(self) -> float:
        """`since_s`, at most what the bucket holds."""
        holds = max(1.0, self.rate * (CATCH_UP_S if self.catching_up else _BURST_S))
        return min(self.since_s, (holds - 1 + self.reserve) / self.rate)

    @property
    def allowed(self) -> int:
        """How many may start now."""
        return max(0, math.floor(self._level_s * self.rate + _ROUNDING) + 1 - self.reserve)

    @property
    def due_s(self) -> float:
        """Seconds until one may start; 0 if one may start now."""
        return max(0.0, self.reserve / self.rate - self._level_s)

    def after(self, starts: int) -> RateLimit:
        """The limit after so many starts; a negative number is of starts that were charged and not made."""
        return RateLimit(self.rate, self._level_s - starts / self.rate, self.reserve, self.catching_up)
