"""Whether this relay may start attempts now, and how fast: holds, the circuit breaker, rates. In memory, no I/O.

The backlog service refreshes it from Postgres; the statements that store, claim and finish read Postgres themselves.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from relay.domain.delivery import WaitReason
from relay.forwarding.concurrency import REPLAY_SHARE

if TYPE_CHECKING:
    from relay.domain.delivery import Delivery
    from relay.store.gate import GateState

RAMP_START = 10.0
"""Deliveries a second over all relays when the breaker has closed; the rate doubles each second."""

_RAMP_END = 10_000.0


_ALL = ""
"""The scope of rates that hold for all destinations together."""


class Gate:
    """The state of holds and breaker as last read.

    `agent_rate` is `RELAY_AGENT_RATE`, the deliveries a second that may start for `destination`; None for no limit.
    Rates are shared by all relays, in Postgres. A fresh webhook does not wait for Postgres: it starts on credit, which
    is what the rates allowed when they were last read, and which is charged with the next turn.
    """

    def __init__(self, destination: str = "", agent_rate: float | None = None) -> None:
        self._destination = destination
        self._agent_rate = agent_rate
        self._held = self._open = False
        self._release_rate: float | None = None
        self._relays = 1
        self._ramp_since: float | None = None
        self._credit = 1  # the first webhook does not wait for the first round
        self.owed = 0  # starts on credit that were not charged yet
        self.live_starts = 0  # since the last start of a replay, while a rate limits both

    def refresh(self, state: GateState) -> None:
        """Take over what Postgres says."""
        self._held, self._open = state.held, state.open
        self._release_rate, self._relays = state.rate, state.relays
        if state.closed_s is None or state.open:
            self._ramp_since = None
        elif self._ramp_since is None and self._ramp(state.closed_s) < _RAMP_END:
            self._ramp_since = time.monotonic() - state.closed_s
        if not self.has_rates:
            self._credit = self.owed = 0

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

    @property
    def has_rates(self) -> bool:
        """True while a rate limits how many deliveries start."""
        return self._agent_rate is not None or self._release_rate is not None or self._ramp_since is not None

    @property
    def rates(self) -> dict[str, float]:
        """The deliveries a second that may start, for this relay's destination and for all together."""
        found = {} if self._agent_rate is None else {self._destination: self._agent_rate}
        shared = [rate for rate in (self._release_rate, self._ramp_rate()) if rate is not None]
        return found | {_ALL: min(shared)} if shared else found

    def take(self) -> bool:
        """Start a fresh webhook. False if the rates do not allow it now."""
        if not self.has_rates:
            return True
        if self._credit < 1:
            return False
        self._credit -= 1
        self.owed += 1
        self.live_starts += 1
        return True

    def give_back(self) -> None:
        """A webhook that `take` allowed was not started."""
        if self.has_rates:
            self.owed -= 1

    @property
    def is_replays_turn(self) -> bool:
        """True once live traffic has had all but the replays' share of what a rate allows."""
        return self.live_starts >= REPLAY_SHARE - 1

    def settle(self, charged: int, allowed: int) -> None:
        """What was owed is charged, and the rates allow so many starts now: this relay has its share as credit."""
        self.owed -= charged
        share = max(allowed // self._relays, min(1, allowed))
        self._credit = max(0, share - max(0, self.owed))  # some may have started meanwhile

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
