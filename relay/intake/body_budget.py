"""The memory of bodies that are still coming in: whoever begins many large ones and ends none must not have it all.

Small bodies, as nearly all webhooks are, have room always; the large ones share what there is. Knows neither HTTP
nor what becomes of a body that has come.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from relay.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL_BYTES = 16 * 1024
"""So much of every body is not counted."""

ROOM_BYTES = 256 * 1024 * 1024
"""As large as the largest body that can be allowed."""


class BodyBudget:
    """Counts the bytes of large bodies while they come in."""

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self._left = room_bytes

    @contextmanager
    def one(self) -> Iterator[Callable[[int], None]]:
        """Gives a function to call with the size that a body has reached, in bytes; what it took is free at the end.

        That function raises:
            Overloaded: there is no room for so much.
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
