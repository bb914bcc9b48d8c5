"""The spool as the event loop uses it: one thread does all that touches the file, so that no disk delays the loop.

Receipts that are appended at the same time share one transaction, and so one flush to disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import queue
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from relay.dsn import parse
from relay.errors import SpoolError, SpoolFull, SpoolUnwritable
from relay.store.spool_disk import damaged_files
from relay.store.spool_file import SpoolFile, SpoolState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from relay.domain.delivery import Receipt
    from relay.store.spool_file import Appended, AppendResult, Known
    from relay.store.spooled import SpooledReceipt

FILE_NAME = "spool.db"
"""The spool's file in `RELAY_DATA_DIR`."""

_BATCH = 256
_BATCH_BYTES = 8 * 1024 * 1024
_CLOSE_S = 2
_DRAIN_S = 5.0

_log = logging.getLogger(__name__)

T = TypeVar("T")
_Job = tuple["Callable[[SpoolFile], Any] | SpooledReceipt", "asyncio.Future[Any]", asyncio.AbstractEventLoop]


def address_of(dsn: str) -> str:
    """Names the database of `dsn` by where it is. No password is in it."""
    given, _ = parse(dsn)
    place = "\n".join(str(given.get(name) or "") for name in ("host", "hostaddr", "port", "dbname"))
    return "address:" + hashlib.sha256(place.encode()).hexdigest()[:32]


class Spool:
    """The spool in `folder` for receipts of the database `dsn`. With `max_bytes` 0 there is none."""

    def __init__(self, folder: Path, dsn: str, *, max_bytes: int, say: Callable[[str], None] = lambda _: None) -> None:
        self.is_on = max_bytes > 0
        self.path = folder / FILE_NAME
        self._file = SpoolFile(self.path, max_bytes=max_bytes, address=address_of(dsn), say=say)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: str | None = None
        self._full_at: int | None = None
        self.state = SpoolState(max_bytes=max_bytes)
        """What it held when `refresh` was called last."""

    def may_hold(self) -> bool:
        """False if it holds no receipt. Costs no more than reading a byte from memory."""
        return self.is_on and self._file.may_hold()

    async def append(self, item: SpooledReceipt) -> Appended | Known:
        """Make a receipt durable.

        Raises:
            SpoolError: it is full, off, or cannot be written.
        """
        taken: Appended | Known = await self._taken(self._submit(item))
        return taken

    async def append_if_held(self, item: SpooledReceipt) -> Appended | Known | None:
        """Make a receipt durable if the spool has its delivery id, its signature or receipts of its conversation.

        Raises:
            SpoolError: it is full or cannot be written.
        """
        taken: Appended | Known | None = await self._taken(self._submit(lambda file: file.append_if_held(item)))
        return taken

    async def page(
        self,
        *,
        most: int,
        most_bytes: int,
        refused: bool = False,
        left_out: Callable[[SpooledReceipt], bool] = lambda _: False,
    ) -> list[SpooledReceipt]:
        """The oldest receipts, in order. With `refused` those that Postgres refuses, else all others.

        Receipts that are `left_out`, which is called in another thread, are not among them.

        Raises:
            SpoolError: it cannot be read.
        """
        found: list[SpooledReceipt] = await self._submit(
            lambda file: file.page(most=most, most_bytes=most_bytes, refused=refused, left_out=left_out)
        )
        return found

    async def remove(self, items: Sequence[SpooledReceipt]) -> None:
        """Remove receipts that are stored elsewhere by now.

        Raises:
            SpoolError: it cannot be written; they are still there.
        """
        await self._submit(lambda file: file.remove(items))

    async def set_refused(self, item: SpooledReceipt, reason: str) -> None:
        """Mark a receipt that Postgres refuses, so that it delays no other one.

        Raises:
            SpoolError: it cannot be written.
        """
        await self._submit(lambda file: file.set_refused(item, reason))

    async def erase(self, wanted: Callable[[Receipt], bool], *, dry_run: bool = False) -> int:
        """Remove every receipt that is `wanted`, and its bytes from the disk. Returns how many there are.

        `wanted` is called in another thread.

        Raises:
            SpoolError: it cannot be read or written.
        """
        found: int = await self._submit(lambda file: file.erase(wanted, dry_run=dry_run))
        return found

    async def name_target(self, name: str) -> None:
        """Record how the relay's database names itself.

        Raises:
            SpoolError: it cannot be written.
        """
        await self._submit(lambda file: file.name_target(name))

    async def settle(self) -> None:
        """Clear what says that there may be receipts, if there is none.

        Raises:
            SpoolError: it cannot be written.
        """
        await self._submit(lambda file: file.settle())

    async def try_lock(self) -> bool:
        """Take the lock that one relay of the host at a time holds while it drains; False if another one has it.

        Raises:
            SpoolError: the file cannot be opened.
        """
        locked: bool = await self._submit(lambda file: file.try_lock())
        return locked

    async def unlock(self) -> None:
        """Release the lock."""
        await self._submit(lambda file: file.unlock())

    async def refresh(self, *, probe: bool = False) -> SpoolState:
        """What it holds now, also kept in `state`. Never fails: `error` says why nothing can be stored.

        With `probe`, or after an error, it also writes to the disk, to find out whether that works.
        """
        if not self.is_on:
            return self.state

        try:
            self.state = await self._submit(lambda file: file.state())
            if probe or self._error is not None:
                await self._submit(lambda file: file.probe())
        except SpoolError as error:
            self._error = str(error)
        else:
            if self._full_at is None or self.state.bytes < self._full_at:
                self._error = self._full_at = None
        self.state = replace(self.state, error=self._error)
        return self.state

    async def close(self) -> None:
        """Do what is submitted, then close the file."""
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join, _CLOSE_S)
            self._thread = None

    async def _taken(self, appending: Awaitable[AppendResult | None]) -> Any:
        """What became of a receipt. An error is kept until one is taken again, or until `refresh` finds it over."""
        try:
            result = await appending
            if isinstance(result, SpoolFull):
                raise result
        except SpoolError as error:
            self._error = str(error)
            self._full_at = error.holds if isinstance(error, SpoolFull) else None
            raise
        if result is not None:
            self._error = self._full_at = None
        return result

    async def _submit(self, work: Callable[[SpoolFile], Any] | SpooledReceipt) -> Any:
        if not self.is_on:
            raise SpoolUnwritable("The spool is off (RELAY_SPOOL_MAX_BYTES=0)")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="relay spool", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._jobs.put((work, future, loop))
        return await future

    def _work(self) -> None:
        """The thread: take what is submitted, in order, until `close`."""
        stopped = False
        while not stopped:
            taken = [self._jobs.get()]
            while taken[-1] is not None and len(taken) < _BATCH and not self._jobs.empty():
                taken.append(self._jobs.get())
            stopped = taken[-1] is None
            jobs = [job for job in taken if job is not None]
            for is_plain, group in itertools.groupby(jobs, key=lambda job: callable(job[0])):
                if is_plain:
                    for work, future, loop in group:
                        self._do(work, [(future, loop)])  # type: ignore[arg-type]
                else:
                    self._append(list(group))
        self._file.close()

    def _append(self, jobs: Sequence[_Job]) -> None:
        """Append the receipts of `jobs`, as many in one transaction as are no more than `_BATCH_BYTES` together."""
        batch: list[_Job] = []
        weight = 0
        for job in jobs:
            size = job[0].receipt.size  # type: ignore[union-attr]
            if batch and weight + size > _BATCH_BYTES:
                self._append_batch(batch)
                batch, weight = [], 0
            batch.append(job)
            weight += size
        self._append_batch(batch)

    def _append_batch(self, jobs: Sequence[_Job]) -> None:
        items: list[Any] = [job[0] for job in jobs]
        self._do(lambda file: file.append(items), [(future, loop) for _, future, loop in jobs], many=True)

    def _do(
        self,
        work: Callable[[SpoolFile], Any],
        waiters: Sequence[tuple[asyncio.Future[Any], asyncio.AbstractEventLoop]],
        *,
        many: bool = False,
    ) -> None:
        """Run `work` and give its result, or each waiter its own of `many`."""
        try:
            result = work(self._file)
        except SpoolError as error:
            _settle_all(waiters, [error] * len(waiters))
        except Exception as error:  # noqa: BLE001 - the thread's top: every waiter gets an answer
            _log.error("The spool failed by a defect: %s", type(error).__name__, exc_info=error)
            _settle_all(waiters, [SpoolUnwritable("The spool failed by a defect")] * len(waiters))
        else:
            _settle_all(waiters, result if many else [result])


def _settle_all(
    waiters: Sequence[tuple[asyncio.Future[Any], asyncio.AbstractEventLoop]], results: Sequence[Any]
) -> None:
    def settle(future: asyncio.Future[Any], result: Any) -> None:
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    for (future, loop), result in zip(waiters, results, strict=True):
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, future, result)


def _local(folder: Path, dsn: str) -> SpoolFile | None:
    """The spool in `folder`, if there is one."""
    path = folder / FILE_NAME
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SpoolUnwritable(f"{path} cannot be read: {error.strerror}") from error
    return SpoolFile(path, max_bytes=0, address=address_of(dsn))


def local_state(folder: Path, dsn: str) -> SpoolState | None:
    """What the spool in `folder` holds for the database `dsn`; None if there is none.

    Raises:
        SpoolError: it cannot be read.
    """
    file = _local(folder, dsn)
    if file is None:
        return None
    try:
        return file.state()
    finally:
        file.close()


def damaged_local(folder: Path) -> tuple[str, ...]:
    """The names of the damaged files in `folder` that relays have moved aside. They may hold receipts."""
    return damaged_files(folder / FILE_NAME)


def erase_local(folder: Path, dsn: str, wanted: Callable[[Receipt], bool], *, dry_run: bool) -> int:
    """Erase the receipts in the spool in `folder` for the database `dsn` that are `wanted`. Returns how many there are.

    Waits up to `_DRAIN_S` for a relay that drains, so that what it has read is in Postgres on return. Blocking.

    Raises:
        SpoolError: it cannot be read or written.
    """
    file = _local(folder, dsn)
    if file is None:
        return 0
    try:
        by = time.monotonic() + _DRAIN_S
        while not dry_run and not file.try_lock() and time.monotonic() < by:
            time.sleep(0.1)
        return file.erase(wanted, dry_run=dry_run)
    finally:
        file.close()
