"""Keys in turn: one is done with, and what it brought about is there, before the next one is looked at.

Textual decides whom a key goes to when it is read. Typed ahead, the count that answers a question would so reach the
view that was there before the question, and switch views by its digits. Knows no key and no view.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from textual import events
from textual.app import App
from textual.message import Message

_LAPS = 2
_ECHO_WITHIN_S = 0.5
_SETTLES_WITHIN_S = 1.5
_LOOK_EVERY_S = 0.02


class TypeAhead(App[None]):
    """An app that takes keys and pasted text one after the other, in the order they came.

    Behind each goes an echo, the way that the key itself goes: from who has the focus up to the app. It comes
    last wherever the key has been, and once more behind the messages that the key brought about.
    """

    class Echo(Message):
        """Follows key `number`."""

        def __init__(self, number: int, lap: int) -> None:
            super().__init__()
            self.number = number
            self.lap = lap

    def __init__(self) -> None:
        super().__init__()
        self._number = 0
        self._under_way = False
        self._ahead: deque[events.Key | events.Paste] = deque()

    async def on_event(self, event: events.Event) -> None:
        """Pass a key on, or keep it until it is its turn."""
        if not isinstance(event, (events.Key, events.Paste)):
            await super().on_event(event)
        elif not self.screen_stack:
            return  # the app is about to end
        elif event.is_forwarded:
            await super().on_event(event)
        elif self._under_way:
            self._ahead.append(event)
            if len(self._ahead) == 1:
                self._be_patient()
        else:
            await self._take(event)

    def is_settled(self) -> bool:
        """True once what the last key asked for is there to be seen. A subclass knows."""
        return True

    async def on_type_ahead_echo(self, echo: Echo) -> None:
        """The key is done with, and in the second lap what it brought about: it is the next one's turn."""
        if echo.number != self._number:
            return  # an echo of an earlier key
        if echo.lap < _LAPS:
            self._send_echo(echo.lap + 1)
        else:
            await self._go_on(echo.number, time.monotonic() + _SETTLES_WITHIN_S)

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
            self.post_message(echo)  # who has the focus is about to end

    async def _next(self) -> None:
        self._under_way = False
        if self._ahead and self.screen_stack:
            await self._take(self._ahead.popleft())
            if self._ahead:
                self._be_patient()

    def _be_patient(self) -> None:
        """Wait for the echo, but not for ever: it is lost if who has the focus ends with it."""
        late = time.monotonic() + _ECHO_WITHIN_S + _SETTLES_WITHIN_S
        asyncio.get_running_loop().call_later(_ECHO_WITHIN_S, self.call_next, self._go_on, self._number, late)

    async def _go_on(self, number: int, deadline: float) -> None:
        """Take the next key, now or once what the last one asked for is there; not later than at `deadline`."""
        if not self._under_way or number != self._number:
            return
        if self.is_settled() or time.monotonic() > deadline:
            await self._next()
        else:
            asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self.call_next, self._go_on, number, deadline)
