"""The signals that end the console: a hang-up of its terminal, and the request of a service or a shell."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_GRACE_S = 2.5


class EndSignals:
    """Ends the console on SIGTERM and SIGHUP, from `take` to `give_back`."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def take(self, end: Callable[[], object]) -> None:
        """Call `end` in this loop when a signal comes."""
        loop = asyncio.get_running_loop()
        self._before = {
            number: signal.signal(number, lambda number, _: _end(loop, end, number))
            for number in (signal.SIGTERM, signal.SIGHUP)
        }

    def give_back(self) -> None:
        """Restore the handlers from before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _end(loop: asyncio.AbstractEventLoop, end: Callable[[], object], number: int) -> None:
    """End by force if the app does not end in time.

    Textual writes through a thread that ends with the terminal; a write after that never returns.
    """
    last_resort = threading.Timer(_GRACE_S, os._exit, [128 + number])
    last_resort.daemon = True
    last_resort.start()
    loop.call_soon_threadsafe(end)
