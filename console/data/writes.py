"""Confirmed writes that are under way. Each is carried out to its end, also when the operator quits meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.errors import RelayError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_PATIENCE_S = 2.0


class Writes:
    """Tasks of writes. `say` shows an error that the operator can act on, `fail` gets the task of any other one."""

    def __init__(self, say: Callable[[RelayError], None], fail: Callable[[asyncio.Task[None]], None]) -> None:
        self._say = say
        self._fail = fail
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, write: Callable[[], Coroutine[None, None, None]]) -> None:
        """Carry out a write in a task of its own."""
        task = asyncio.get_running_loop().create_task(self._run(write), name="write")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def finish(self) -> None:
        """Wait for the writes under way, if Postgres takes them in time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_PATIENCE_S)

    async def _run(self, write: Callable[[], Coroutine[None, None, None]]) -> None:
        try:
            await write()
        except RelayError as error:
            self._say(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._fail(task)
