"""Limits the memory of bodies that are being received: beyond it they are read more slowly, and none is refused.

Small bodies, as nearly all webhooks are, are not limited; large ones share a budget. Knows neither HTTP nor what
becomes of a received body.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL_BYTES = 16 * 1024
"""The first bytes of every body, which are not counted."""

ROOM_BYTES = 256 * 1024 * 1024
"""As large as the largest body that can be allowed."""


class BodyBudget:
    """Counts the bytes of large bodies while they are received.

    When they use all of it, the one that waits first may go beyond it to its end: so one of them always gets on, and
    the memory is bounded by the budget and one body.
    """

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self._left = room_bytes
        self._beyond: BodyShare | None = None
        self._waiting: deque[tuple[BodyShare, int, asyncio.Future[None]]] = deque()

    @contextmanager
    def one(self) -> Iterator[BodyShare]:
        """Yield the share of one body. The end of the block frees it."""
        share = BodyShare(self)
        try:
            yield share
        finally:
            self._left += share.taken
            if self._beyond is share:
                self._beyond = None
            self._pass_on()

    def _take(self, share: BodyShare, more: int) -> bool:
        if share is not self._beyond and more and (self._waiting or more > self._left):
            return False
        self._left -= more
        share.taken += more
        return True

    async def _wait(self, share: BodyShare, more: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((share, more, turn))
        self._pass_on()
        await turn

    def _pass_on(self) -> None:
        while self._waiting:
            share, more, turn = self._waiting[0]
            if not turn.done():
                if more > self._left and self._beyond is not None:
                    return
                if more > self._left:
                    self._beyond = share
                self._left -= more
                share.taken += more
                turn.set_result(None)
            self._waiting.popleft()


class BodyShare:
    """The part of the budget that one body uses; `taken` is in bytes."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.taken = 0

    def take(self, size: int) -> bool:
        """Count a body that has reached `size` bytes. False if there is no room: `wait` for it before reading on."""
        return self._budget._take(self, self._more(size))  # noqa: SLF001 - two parts of one thing

    async def wait(self, size: int) -> None:
        """Count a body that has reached `size` bytes as soon as there is room."""
        await self._budget._wait(self, self._more(size))  # noqa: SLF001

    def _more(self, size: int) -> int:
        return max(0, size - SMALL_BYTES - self.taken)
