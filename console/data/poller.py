"""The one poller: a connection of its own, a read transaction a tick, NOTIFY to wake it early.

It survives whatever happens to Postgres: says what is wrong, and goes on when it is back. Knows no widget.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import psycopg

from console.data import snapshot
from relay.store import log, replays
from relay.store.database import heeding_cancellation, no_longer_than
from relay.store.sessions import open_session, trouble

if TYPE_CHECKING:
    from datetime import timedelta

    from console.data.snapshot import Reading, Snapshot
    from relay.store.database import Connection

TICK_S = 1.0
_SOONEST_S = 0.25
_RECONNECT_S = 1.0
_STATEMENT_TIMEOUT_MS = 1000
_SILENCE_S = 5.0


class Front(Protocol):
    """Who watches: says what to read beside the overview, and is told what was read or went wrong."""

    def reading(self) -> tuple[Reading | None, timedelta]:
        """What the view in front wants, and how far back the minutes reach."""

    @property
    def watched_plan(self) -> int | None:
        """The replay that is being watched."""

    def show(self, snapshot: Snapshot) -> None:
        """A new snapshot."""

    def disconnected(self, reason: str) -> None:
        """Postgres is away."""


class Poller:
    """Reads for `front` until cancelled."""

    def __init__(self, dsn: str, front: Front, *, read_only: bool) -> None:
        self._dsn = dsn
        self._front = front
        self._read_only = read_only
        self._wake = asyncio.Event()
        self._afresh = False

    def wake(self, *, afresh: bool = False) -> None:
        """Read now rather than at the next tick; `afresh` also what rests because it took long."""
        self._afresh = self._afresh or afresh
        self._wake.set()

    async def run(self) -> None:
        """Connect, read, wait, for ever."""
        while True:
            try:
                with heeding_cancellation():
                    await self._connect_and_watch()
            except (psycopg.Error, OSError) as error:
                self._front.disconnected(str(trouble(error)))
            await asyncio.sleep(_RECONNECT_S)

    async def _connect_and_watch(self) -> None:
        connection = await open_session(
            self._dsn,
            read_only=self._read_only,
            application="hotdash console",
            timeout_ms=_STATEMENT_TIMEOUT_MS,
            listen=(log.CHANNEL, replays.CHANNEL),
        )
        async with connection:
            await self._watch(connection)

    async def _watch(self, connection: Connection) -> None:
        last: Snapshot | None = None
        while True:
            self._wake.clear()
            if self._afresh:
                self._afresh, last = False, None
            reading, minutes_of = self._front.reading()
            began = time.monotonic()
            with no_longer_than(_SILENCE_S, connection):
                last = await snapshot.read(
                    connection, reading, minutes_of=minutes_of, watched=self._front.watched_plan, last=last
                )
            self._front.show(last)
            await self._rest(connection, began)

    async def _rest(self, connection: Connection, began: float) -> None:
        """Until the next tick, or sooner when asked or notified; never sooner than a quarter of a second."""
        loop = asyncio.get_running_loop()
        notified = asyncio.Event()

        def hear() -> None:
            loop.remove_reader(connection.fileno())  # what came stays unread: it would be heard on and on
            notified.set()

        async for _ in connection.notifies(timeout=0):
            notified.set()
        loop.add_reader(connection.fileno(), hear)
        waiting = [asyncio.create_task(self._wake.wait()), asyncio.create_task(notified.wait())]
        try:
            await asyncio.wait(waiting, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
            if notified.is_set() and not self._wake.is_set():
                spent = time.monotonic() - began
                await asyncio.wait(waiting[:1], timeout=max(0.0, _SOONEST_S - spent))
        finally:
            loop.remove_reader(connection.fileno())
            for task in waiting:
                task.cancel()
