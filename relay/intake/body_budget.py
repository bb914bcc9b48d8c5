"""Limits the memory of bodies that are being received, so that many large unfinished bodies cannot exhaust it.

Small bodies, as nearly all webhooks are, are not limited; large ones share a budget. Knows neither HTTP nor what
becomes of a received body.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from relay.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL_BYTES = 16 * 1024
"""The first bytes of every body, which are not counted."""

ROOM_BYTES = 256 * 1024 * 1024
"""As large as the largest body that can be allowed."""


class BodyBudget:
    """Counts the bytes of large bodies while they are received."""

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self._left = room_bytes

    @contextmanager
    def one(self) -> Iterator[Callable[[int], None]]:
        """Yields a function to call with the size that a body has reached, in bytes; the end of the block frees them.

        That function raises:
            Overloaded: the budget is exhausted.
        """
        taken = 0

        def reached(size: int) -> None:
            nonlocal taken
            more = max(0, size - SMALL_BYTES) - taken
            if more > self._left:
                raise Overloaded("Too many large webhooks are coming in")
            self._left -= more
            taken += more

        try:
            yield reached
        finally:
            self._left += taken
