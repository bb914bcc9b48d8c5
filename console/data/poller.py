"""Polls Postgres on its own connection: one read transaction a tick, earlier when a NOTIFY arrives.

It outlives any failure of Postgres: it reports what that means and reconnects. It does not know any widget.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import psycopg

from console.data import snapshot
from console.data.first_connection import STATEMENT_TIMEOUT_MS, open_reader
from relay.errors import StatementRefused, StoreUnavailable
from relay.store import log, replays
from relay.store.cancellation import heeding_cancellation, no_longer_than
from relay.store.sessions import listen, times_in, trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta, tzinfo

    from console.data.first_connection import FirstConnection
    from console.data.snapshot import Reading, Snapshot
    from relay.errors import RelayError
    from relay.store.database import Connection

TICK_S = 1.0
_SOONEST_S = 0.5
_RECONNECT_S = 1.0
_STATEMENT_TIMEOUT_MS = STATEMENT_TIMEOUT_MS
_SILENCE_S = 5.0
_FIRST_SILENCE_S = 10.0
"""The same while it is not known how long a round trip takes."""
_TRIPS = 10
"""A snapshot takes fewer round trips than this; one may take so many longer than `_SILENCE_S`."""


class Front(Protocol):
    """What the poller needs of the app: which rows to read, and where to send snapshots and failures."""

    round_trip_s: float
    """How long Postgres takes to answer nothing, measured once the first figures are there."""

    @property
    def zone(self) -> tzinfo | None:
        """The zone in which times are shown; None is this machine's."""

    def reading(self) -> tuple[Reading | None, timedelta]:
        """Return what the view in front reads, and how far back the minutes reach."""

    @property
    def watched_plan(self) -> int | None:
        """Id of the replay that the view in front watches."""

    def show(self, snapshot: Snapshot) -> None:
        """Show a new snapshot."""

    def disconnected(self, reason: str, *, is_away: bool, headline: str | None = None) -> None:
        """Show that Postgres cannot be read, and why.

        `is_away`: it does not answer, or takes no session; `headline` is what that means, once it is known.
        """


class Poller:
    """Reads for `front` until cancelled. `outage` returns in a sentence what it means that Postgres is away.

    `first` is a connection that is being opened already.
    """

    def __init__(
        self,
        dsn: str,
        front: Front,
        *,
        read_only: bool,
        outage: Callable[[], Awaitable[str]],
        first: FirstConnection | None = None,
    ) -> None:
        self._first = first
        self._dsn = dsn
        self._outage = outage
        self._fault = ""
        self._meaning: str | None = None
        self._asking: asyncio.Task[None] | None = None
        self._front = front
        self._read_only = read_only
        self._wake = asyncio.Event()
        self._afresh = False

    def wake(self, *, afresh: bool = False) -> None:
        """Read now rather than at the next tick; with `afresh` also repeat a slow reading that is skipped for now."""
        self._afresh = self._afresh or afresh
        self._wake.set()

    async def run(self) -> None:
        """Connect, read and wait until cancelled."""
        try:
            while True:
                try:
                    with heeding_cancellation():
                        await self._connect_and_watch()
                except (psycopg.Error, OSError) as error:
                    self._disconnected(trouble(error))
                await asyncio.sleep(_RECONNECT_S)
        finally:
            self._reconnected()

    def _disconnected(self, fault: RelayError) -> None:
        """Report the fault; of an outage what it means, once that is known."""
        if isinstance(fault, StoreUnavailable) and not isinstance(fault, StatementRefused):
            self._fault = str(fault)
            self._front.disconnected(self._fault, is_away=True, headline=self._meaning)
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask(), name="outage")
        else:
            self._reconnected()
            self._front.disconnected(str(fault), is_away=False)

    async def _ask(self) -> None:
        self._meaning = await self._outage()
        self._front.disconnected(self._fault, is_away=True, headline=self._meaning)

    def _reconnected(self) -> None:
        """Forget what the outage means."""
        self._meaning = None
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    async def _connect_and_watch(self) -> None:
        connection = None if self._first is None else await self._first.take()
        if connection is None:
            connection = await open_reader(self._dsn, read_only=self._read_only, timeout_ms=_STATEMENT_TIMEOUT_MS)
        times_in(connection, lambda: self._front.zone)
        async with connection:
            await self._watch(connection)

    async def _watch(self, connection: Connection) -> None:
        last: Snapshot | None = None
        silence_s = _FIRST_SILENCE_S
        while True:
            self._wake.clear()
            if self._afresh:
                self._afresh, last = False, None
            reading, minutes_of = self._front.reading()
            began = time.monotonic()
            with no_longer_than(silence_s, connection):
                last = await snapshot.read(
                    connection, reading, minutes_of=minutes_of, watched=self._front.watched_plan, last=last
                )
            self._reconnected()
            is_first = silence_s == _FIRST_SILENCE_S
            self._front.show(last)
            if is_first:  # the first figures do not wait for this
                with no_longer_than(silence_s, connection):
                    self._front.round_trip_s = await listen(connection, (log.CHANNEL, replays.CHANNEL))
                silence_s = _SILENCE_S + _TRIPS * self._front.round_trip_s
            await self._rest(connection, began)

    async def _rest(self, connection: Connection, began: float) -> None:
        """Wait for the next tick, a `wake` or a NOTIFY; a NOTIFY never ends the wait within half a second."""
        loop = asyncio.get_running_loop()
        notified = asyncio.Event()

        def readable() -> None:
            loop.remove_reader(connection.fileno())  # the notification stays unread, so this would run again at once
            notified.set()

        async for _ in connection.notifies(timeout=0):
            notified.set()
        loop.add_reader(connection.fileno(), readable)
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
