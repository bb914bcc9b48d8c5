"""Whether this relay may start attempts now, and how fast: holds, the circuit breaker, rates. In memory, no I/O.

The backlog service refreshes it from Postgres; the statements that store, claim and finish read Postgres themselves.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from relay.domain.delivery import WaitReason
from relay.forwarding.rate_limit import RateLimit

if TYPE_CHECKING:
    from relay.domain.delivery import Delivery
    from relay.store.gate import GateState

RAMP_START = 10.0
"""Deliveries a second over all relays when the breaker has closed; the rate doubles each second."""

_RAMP_END = 10_000.0


class Gate:
    """The state of holds and breaker as last read. `agent_rate` is `RELAY_AGENT_RATE`, None for no limit."""

    def __init__(self, agent_rate: float | None = None) -> None:
        self._agent_rate = agent_rate
        self._held = self._open = False
        self._release_rate: float | None = None
        self._relays = 1
        self._ramp_since: float | None = None
        self._limit = RateLimit(agent_rate)

    def refresh(self, state: GateState) -> None:
        """Take over what Postgres says."""
        self._held, self._open = state.held, state.open
        self._release_rate, self._relays = state.rate, state.relays
        if state.closed_s is None or state.open:
            self._ramp_since = None
        elif self._ramp_since is None and self._ramp(state.closed_s) < _RAMP_END:
            self._ramp_since = time.monotonic() - state.closed_s
        self._adjust()

    def why_closed(self, delivery: Delivery) -> WaitReason | None:
        """Why no further attempt of `delivery` may start now; None if one may. Test webhooks pass."""
        if delivery.test:
            return None
        if self._held:
            return WaitReason.HOLD
        return WaitReason.BREAKER if self._open else None

    @property
    def is_open(self) -> bool:
        """True while attempts may start."""
        return not (self._held or self._open)

    @property
    def breaker_is_open(self) -> bool:
        """True while the circuit breaker is open."""
        return self._open

    def opened(self) -> None:
        """The breaker has just opened."""
        self._open = True

    def attempt_failed(self) -> None:
        """A failure that is retried: while the backlog drains after an outage, the rate starts from the beginning."""
        if self._ramp_since is not None:
            self._ramp_since = time.monotonic()

    def take(self, most: int) -> int:
        """Start up to `most` deliveries: returns how many the rates allow now."""
        if self._ramp_since is not None:
            self._adjust()
        return self._limit.take(most)

    def give_back(self, number: int) -> None:
        """Deliveries that `take` allowed and that were not started."""
        self._limit.give_back(number)

    def _adjust(self) -> None:
        rates = [rate for rate in (self._agent_rate, self._release_rate, self._ramp_rate()) if rate is not None]
        self._limit.set(min(rates) / self._relays if rates else None)

    def _ramp_rate(self) -> float | None:
        if self._ramp_since is None:
            return None
        rate = self._ramp(time.monotonic() - self._ramp_since)
        if rate >= _RAMP_END:
            self._ramp_since = None
            return None
        return rate

    @staticmethod
    def _ramp(seconds: float) -> float:
        return float(RAMP_START * 2 ** min(seconds, 30))
