"""Handles keys one at a time: the next key waits until the effect of the last one is on the screen.

Textual chooses the receiver of a key when it reads the key. Without this module, a count typed ahead to answer a
question would reach the view below it, where digits switch views. The module knows no key and no view.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from textual import events
from textual.app import App
from textual.message import Message

if TYPE_CHECKING:
    from textual.driver import Driver

_LAPS = 2
_ECHO_WITHIN_S = 0.5
_SETTLES_WITHIN_S = 1.5
_CHECK_EVERY_S = 0.02


class TypeAhead(App[None]):
    """An app that handles keys and pastes one after the other, in the order they were typed.

    An echo follows each key from the focused widget up to the app, so it arrives after every handler of the key. A
    second echo arrives after the messages that those handlers posted.
    """

    class Echo(Message):
        """Follows key `number`."""

        def __init__(self, number: int, lap: int) -> None:
            super().__init__()
            self.number = number
            self.lap = lap

    def __init__(self, driver_class: type[Driver] | None = None) -> None:
        super().__init__(driver_class=driver_class)
        self._number = 0
        self._under_way = False
        self._ahead: deque[events.Key | events.Paste] = deque()

    async def on_event(self, event: events.Event) -> None:
        """Pass a key on, or queue it until its turn."""
        if not isinstance(event, (events.Key, events.Paste)):
            await super().on_event(event)
        elif not self.screen_stack:
            return  # the app is about to end
        elif event.is_forwarded:
            await super().on_event(event)
        elif self._under_way:
            self._ahead.append(event)
            if len(self._ahead) == 1:
                self._limit_wait()
        else:
            await self._take(event)

    def is_settled(self) -> bool:
        """Return True once the effect of the last key is on the screen. Subclasses override this."""
        return True

    async def on_type_ahead_echo(self, echo: Echo) -> None:
        """Send the second echo after the first; after the second, take the next key."""
        if echo.number != self._number:
            return  # an echo of an earlier key
        if echo.lap < _LAPS:
            self._send_echo(echo.lap + 1)
        else:
            await self._advance(echo.number, time.monotonic() + _SETTLES_WITHIN_S)

    async def _take(self, event: events.Key | events.Paste) -> None:
        self._number += 1
        self._under_way = True
        await super().on_event(event)
        self._send_echo(1)

    def _send_echo(self, lap: int) -> None:
        if not self.screen_stack:
            return
        echo = self.Echo(self._number, lap)
        if not (self.focused or self.screen).post_message(echo):
            self.post_message(echo)  # the focused widget is about to close

    async def _next(self) -> None:
        self._under_way = False
        if self._ahead and self.screen_stack:
            await self._take(self._ahead.popleft())
            if self._ahead:
                self._limit_wait()

    def _limit_wait(self) -> None:
        """Limit the wait for the echo: it is lost if the focused widget closes first.

        The wait is counted in turns of the event loop. A slow screen that blocks the loop does not use it up.
        """
        self._wait_on(self._number, round(_ECHO_WITHIN_S / _CHECK_EVERY_S))

    def _wait_on(self, number: int, turns: int) -> None:
        if not self._under_way or number != self._number:
            return
        if turns:
            asyncio.get_running_loop().call_later(_CHECK_EVERY_S, self._wait_on, number, turns - 1)
        else:
            self.call_next(self._advance, number, time.monotonic() + _SETTLES_WITHIN_S)

    async def _advance(self, number: int, deadline: float) -> None:
        """Take the next key once the effect of the last one is on the screen, or at `deadline`."""
        if not self._under_way or number != self._number:
            return
        if self.is_settled() or time.monotonic() > deadline:
            await self._next()
        else:
            asyncio.get_running_loop().call_later(_CHECK_EVERY_S, self.call_next, self._advance, number, deadline)
