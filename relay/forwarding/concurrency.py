"""Slots: how many deliveries this relay forwards at the same time, and what is kept for replays."""

from __future__ import annotations

import asyncio
from collections import deque

REPLAY_SHARE = 20
"""Replays get at least one slot in so many (DESIGN, 1.1), and one start in so many that a rate allows."""


class Slots:
    """Counts deliveries in progress. `most` is `RELAY_MAX_IN_FLIGHT`.

    `limit_agent` is set to the slots that this relay holds of `RELAY_AGENT_CONCURRENCY`; None for no such limit.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._agent: int | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.used = 0

    def limit_agent(self, slots: int | None) -> None:
        """Use at most so many from now on. Attempts in progress finish."""
        self._agent = slots
        self._pass_on()

    @property
    def agent_limit(self) -> int | None:
        """The slots of `RELAY_AGENT_CONCURRENCY` that this relay may use."""
        return self._agent

    @property
    def limit(self) -> int:
        """Deliveries that may be in progress at the same time."""
        return self._most if self._agent is None else min(self._most, self._agent)

    @property
    def free(self) -> int:
        """How many more may start."""
        return max(0, self.limit - self.used)

    @property
    def reserve(self) -> int:
        """The slots that replays get however much live traffic waits."""
        return max(1, self.limit // REPLAY_SHARE)

    def take(self) -> None:
        """Use a slot, whatever the limit."""
        self.used += 1

    async def acquire(self) -> None:
        """Use a slot as soon as one is free, before any delivery that comes later."""
        if self.free:
            self.used += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Free a slot."""
        self.used -= 1
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting and self.free:
            turn = self._waiting.popleft()
            if not turn.done():
                self.used += 1
                turn.set_result(None)
