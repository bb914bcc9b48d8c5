"""Drains the spool into Postgres, oldest receipt first, and reports what it holds (DESIGN, 1.3)."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import psycopg

from relay.errors import SpoolError, StatementRefused, StoreUnavailable
from relay.store import spools
from relay.store.database import DEDICATED_SILENCE_S
from relay.store.deliveries import Duplicate, Incoming
from relay.store.failures import described, webhooks_refused
from relay.store.storing import store_drained

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from relay.forwarding.pipeline import Pipeline
    from relay.forwarding.spooling import Spooling
    from relay.store.database import Database
    from relay.store.deliveries import Stored
    from relay.store.spool import Spool
    from relay.store.spool_file import SpoolState
    from relay.store.spooled import SpooledReceipt
    from relay.telemetry.forwarding_log import ForwardingLog

_BATCH = 256
_BATCH_BYTES = 8 * 1024 * 1024
_STALLED_S = 10
_REFUSED_AGAIN_S = 60
_LEFT_AGAIN_S = 5
_PAGE_LOCK_MS = 50
_ITEM_LOCK_MS = 10
_CONVERSATION_LOCK_MS = 250


class SpoolDrain:
    """Stores what is in the spool, in order, and removes it there.

    One relay of the host drains at a time. Two at once would store nothing twice and in no other order, for each begins
    with the oldest and leaves out what Postgres knows; the lock only spares the work. So a relay that holds the lock
    and does nothing, because it is stopped, is not waited for.

    A receipt that Postgres cannot store now, since another session holds a row that it needs, delays no other but those
    of its conversation.
    """

    name = "spool"
    interval_s = 0.5

    def __init__(
        self,
        spool: Spool,
        spooling: Spooling,
        database: Database,
        owner: UUID,
        *,
        pipeline: Pipeline,
        forwarding_log: ForwardingLog,
    ) -> None:
        self._spool = spool
        self._spooling = spooling
        self._database = database
        self._owner = owner
        self._pipeline = pipeline
        self._forwarding_log = forwarding_log
        self._oldest: int | None = None
        self._oldest_at = 0.0
        self._tried_refused_at = float("-inf")
        self._left: dict[str | UUID, float] = {}  # conversations, or claims, and until when they are left out

    async def run_once(self) -> None:
        """Drain until nothing is left.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        if not self._spool.may_hold():
            self._spooling.committed()  # another relay of this host has drained it, so Postgres commits
            return
        try:
            if not await self._spool.try_lock():
                if await self._other_drains():
                    return
                await self._drain()
                return
            try:
                await self._drain()
            finally:
                await self._spool.unlock()
        except SpoolError as error:
            raise StoreUnavailable(f"The spool cannot be drained now: {error}") from error

    async def _other_drains(self) -> bool:
        """True unless the oldest receipt has been the same for `_STALLED_S`. New ones say nothing about the drain."""
        page = await self._spool.page(most=1, most_bytes=0)
        oldest = page[0].seq if page else None
        if oldest != self._oldest:
            self._oldest, self._oldest_at = oldest, time.monotonic()
        return time.monotonic() - self._oldest_at < _STALLED_S

    async def _drain(self) -> None:
        drained = 0
        try:
            self._left = {line: until for line, until in self._left.items() if until > time.monotonic()}
            while page := await self._spool.page(most=_BATCH, most_bytes=_BATCH_BYTES, left_out=self._is_left):
                drained += await self._store_page(page)
            await self._retry_refused()
            await self._spool.settle()
        finally:
            if drained:
                self._forwarding_log.drained(drained)

    async def _store_page(self, page: Sequence[SpooledReceipt]) -> int:
        """Store a page and remove it from the spool. Returns how many of it were not known in Postgres."""
        try:
            stored = await self._store(page, _PAGE_LOCK_MS)
        except StatementRefused:
            return await self._store_one_by_one(page)
        except psycopg.Error as error:
            if isinstance(error, psycopg.ProgrammingError):
                raise StoreUnavailable(webhooks_refused(described(error))) from error
            return await self._store_one_by_one(page)
        self._spooling.committed()
        await self._spool.remove(page)
        return self._begun(stored)

    async def _store_one_by_one(self, page: Sequence[SpooledReceipt]) -> int:
        drained = 0
        for item in page:
            if self._is_left(item):
                continue
            try:
                stored = await self._store([item], _ITEM_LOCK_MS)
            except StatementRefused as error:
                self._left[_line_of(item)] = time.monotonic() + _LEFT_AGAIN_S
                self._forwarding_log.not_stored(item.receipt.delivery_id, str(error))
            except psycopg.Error as error:
                await self._spool.set_refused(item, described(error))
                self._forwarding_log.not_stored(item.receipt.delivery_id, described(error))
            else:
                self._spooling.committed()
                await self._spool.remove([item])
                drained += self._begun(stored)
        return drained

    def _is_left(self, item: SpooledReceipt) -> bool:
        """True for a receipt that waits for a row, and for what comes after it in its conversation."""
        return _line_of(item) in self._left

    async def _retry_refused(self) -> None:
        """Try again what Postgres refused, now and then: its tables may have changed."""
        if time.monotonic() - self._tried_refused_at < _REFUSED_AGAIN_S:
            return
        self._tried_refused_at = time.monotonic()
        if refused := await self._spool.page(most=_BATCH, most_bytes=_BATCH_BYTES, refused=True):
            await self._store_one_by_one(refused)

    async def _store(self, page: Sequence[SpooledReceipt], lock_ms: int) -> list[Stored]:
        batch = [
            Incoming(item.claim, item.receipt, item.order_key, item.receipt.test, item.received_at) for item in page
        ]
        async with self._database.connection(DEDICATED_SILENCE_S) as connection:
            return await store_drained(
                connection, self._owner, batch, lock_ms=lock_ms, conversation_ms=_CONVERSATION_LOCK_MS
            )

    def _begun(self, stored: Sequence[Stored]) -> int:
        for one in stored:
            if isinstance(one, Duplicate):
                self._forwarding_log.duplicate(one.delivery_id, one)
            else:
                self._pipeline.adopt(one)
        self._pipeline.wake()
        return sum(not isinstance(one, Duplicate) for one in stored)


def _line_of(item: SpooledReceipt) -> str | UUID:
    """The conversation whose order a receipt keeps; its claim, if it keeps none."""
    return item.order_key or item.claim


class SpoolReporter:
    """Keeps the state of the spool current, and reports it to Postgres: on a change, and else now and then."""

    name = "spool report"
    interval_s = 1.0

    def __init__(self, spool: Spool, database: Database) -> None:
        self._spool = spool
        self._database = database
        self._reported: tuple[object, ...] = ()
        self._reported_at = float("-inf")

    async def run_once(self) -> None:
        """Read the spool and report it if that is due.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        state = self._spool.state  # as it was read last: it may have been drained since
        if state.receipts or self._spool.may_hold() or self._is_due(60):
            state = await self._spool.refresh()
        seen = (state.receipts, state.bytes, state.refused, state.error)
        if seen == self._reported and not self._is_due(5 if state.receipts else 60):
            return
        if state.id:
            await self._report(state)
        self._reported, self._reported_at = seen, time.monotonic()

    def _is_due(self, every_s: float) -> bool:
        return time.monotonic() - self._reported_at >= every_s

    async def _report(self, state: SpoolState) -> None:
        try:
            async with self._database.connection() as connection:
                await spools.report(connection, state, host=socket.gethostname(), path=str(self._spool.path))
        except psycopg.Error as error:
            raise StatementRefused(f"The spool cannot be reported: {described(error)}") from error
