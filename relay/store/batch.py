"""Group commit: concurrent callers share one statement, and so one round trip and one flush to disk.

Whatever is submitted while a batch commits becomes the next batch; there is no timer and, when idle, no
added latency. Knows nothing of what it commits.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import psycopg

from relay.errors import EarlierFirst, StatementRefused, StoreUnavailable
from relay.store.failures import NOT_IN_TIME, described, unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
_Waiter = tuple[Item, asyncio.Future[Result], float]
"""An item, the future of its result, and the time after which no commit of it begins."""

_PARTS = 8
"""Into how many parts a batch is split that fails for one of its items."""

_PARTS_AT_ONCE = 2


class Order(Protocol[Item_contra]):
    """Which items must not be committed before others. See `relay.store.arrival_order`."""

    def is_behind(self, item: Item_contra, *, beside: bool = False) -> bool:
        """True if an earlier item must be committed first. With `beside`, those that are apart come before anyway."""

    def submitted(self, item: Item_contra) -> None:
        """`item` waits for the next batch."""

    def committed(self, item: Item_contra) -> None:
        """`item` is committed."""

    def apart(self, item: Item_contra) -> None:
        """`item` is committed beside the batches."""

    def failed(self, item: Item_contra) -> None:
        """`item` was not committed."""


class _NoOrder(Generic[Item]):
    """Items that may be committed in any order."""

    def is_behind(self, _item: Item, *, beside: bool = False) -> bool:  # noqa: ARG002 - as `Order` has it
        return False

    def submitted(self, _item: Item) -> None:
        return

    committed = apart = failed = submitted


class GroupCommit(Generic[Item, Result]):
    """Collects items and commits them batch by batch, in the order they came.

    `commit` takes a batch and returns one result an item, in order; it either commits all of them or
    raises. `size` weighs an item in bytes: a batch stays under `max_bytes`, and an item heavier than `heavy` takes
    part in none.

    `alone` commits one item on a connection of its own, beside the batches, so that it delays none of them:
    heavy items, those submitted so, and each item of a batch that Postgres refused or cancelled, so that a bad item
    fails by itself. Without `alone` that is `commit` with a batch of one. With `part`, such a batch is committed in
    parts instead, and a part that fails in smaller ones: `part` is a `commit` that works beside the batches.

    `late` gets the result of an item whose caller was cancelled while it was being committed. With `order`, an item
    that must wait for an earlier one fails as `EarlierFirst` in place of being committed.
    """

    def __init__(  # noqa: PLR0913 - its parts
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        alone: Callable[[Item], Awaitable[Result]] | None = None,
        part: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]] | None = None,
        size: Callable[[Item], int] = lambda _: 0,
        max_items: int = 256,
        max_bytes: int = 8 * 1024 * 1024,
        heavy: float = math.inf,
        most_alone: int = 3,
        late: Callable[[Result], None] = lambda _: None,
        order: Order[Item] | None = None,
    ) -> None:
        self._commit = commit
        self._alone = alone or self._in_a_batch_of_one
        self._part = part
        self._size = size
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._heavy = heavy
        self._late = late
        self._order: Order[Item] = order or _NoOrder()
        self._waiting: deque[_Waiter[Item, Result]] = deque()
        self._wake = asyncio.Event()
        self._room_alone = asyncio.Semaphore(most_alone)
        self._room_for_parts = asyncio.Semaphore(_PARTS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item, *, by: float = math.inf, alone: bool = False) -> Result:
        """Commit `item` with whatever else is waiting, or by itself if `alone`, and return its result.

        No commit of it begins after `by` (`time.monotonic()`), or after its caller was cancelled if it has such a
        limit; without one it may still be committed then.

        Raises:
            StatementRefused: Postgres cancelled or refused the item's own statement.
            EarlierFirst: an earlier item, which was not committed, must be committed first.
            StoreUnavailable: it was not committed, or whether it was is in doubt.
            psycopg.Error: Postgres refuses a value, or the statement; nothing was committed.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if alone or self._size(item) > self._heavy:
            self._order.apart(item)
            self._start_alone(item, future, by)
        else:
            self._order.submitted(item)
            self._waiting.append((item, future, by))
            self._wake.set()
        return await future

    async def run(self) -> None:
        """Commit what is submitted until cancelled. What then still waits fails as `StoreUnavailable`."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await asyncio.sleep(0)  # what arrives in the same round of the event loop shares the statement
                    if batch := self._take():
                        await self._commit_batch(batch, self._commit)
        finally:
            while self._waiting:
                _fail(self._waiting.popleft()[1], StoreUnavailable("The relay is stopping"))
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self) -> list[_Waiter[Item, Result]]:
        batch: list[_Waiter[Item, Result]] = []
        weight, now = 0, time.monotonic()
        while self._waiting and len(batch) < self._max_items:
            item, _, _ = self._waiting[0]
            if not self._may_commit(self._waiting[0], now):
                self._waiting.popleft()
                continue
            weight += self._size(item)
            if batch and weight > self._max_bytes:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _commit_batch(
        self, batch: list[_Waiter[Item, Result]], commit: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]
    ) -> None:
        try:
            results = await commit([item for item, _, _ in batch])
        except asyncio.CancelledError:
            for _, future, _ in batch:
                _fail(future, StoreUnavailable("The relay is stopping"))
            raise
        except Exception as error:  # noqa: BLE001 - the loop's top: every waiter gets an answer
            reason = _reason(error)
            if len(batch) > 1 and _concerns_one_item(reason):
                if commit is self._part:
                    await self._split(batch)
                else:
                    for item, _, _ in batch:
                        if not self._order.is_behind(item, beside=True):
                            self._order.apart(item)
                    self._start(self._split_beside(batch))
                return
            for item, future, _ in batch:
                self._order.failed(item)
                _fail(future, reason)
        else:
            for (item, future, _), result in zip(batch, results, strict=True):
                self._order.committed(item)
                self._settle(future, result)

    async def _split(self, batch: list[_Waiter[Item, Result]]) -> None:
        """Commit a batch that failed for one of its items: each part in its turn, so that their order stays."""
        if self._part is None:
            for item, future, by in batch:
                self._start_alone(item, future, by)
            return
        size = -(-len(batch) // _PARTS)
        for start in range(0, len(batch), size):
            now = time.monotonic()
            part = batch[start : start + size]
            if left := [waiter for waiter in part if self._may_commit(waiter, now, beside=True)]:
                await self._commit_batch(left, self._part)

    async def _split_beside(self, batch: list[_Waiter[Item, Result]]) -> None:
        try:
            async with self._room_for_parts:
                await self._split(batch)
        except asyncio.CancelledError:
            for _, future, _ in batch:
                _fail(future, StoreUnavailable("The relay is stopping"))
            raise

    def _start_alone(self, item: Item, future: asyncio.Future[Result], by: float) -> None:
        self._start(self._commit_alone(item, future, by))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _commit_alone(self, item: Item, future: asyncio.Future[Result], by: float) -> None:
        try:
            async with self._room_alone:
                if _is_too_late((item, future, by), time.monotonic()):
                    self._order.failed(item)
                    return
                result = await self._alone(item)
        except asyncio.CancelledError:
            _fail(future, StoreUnavailable("The relay is stopping"))
            raise
        except Exception as error:  # noqa: BLE001 - the task's top: its waiter gets an answer
            self._order.failed(item)
            _fail(future, _reason(error))
        else:
            self._order.committed(item)
            self._settle(future, result)

    def _may_commit(self, waiter: _Waiter[Item, Result], now: float, *, beside: bool = False) -> bool:
        """False if no commit of it may begin now; its waiter then gets an error."""
        item, future, _ = waiter
        if _is_too_late(waiter, now):
            self._order.failed(item)
            return False
        if self._order.is_behind(item, beside=beside):
            self._order.failed(item)
            _fail(future, EarlierFirst("An earlier webhook of the conversation is not stored yet"))
            return False
        return True

    def _settle(self, future: asyncio.Future[Result], result: Result) -> None:
        if future.cancelled():
            self._late(result)
        elif not future.done():
            future.set_result(result)

    async def _in_a_batch_of_one(self, item: Item) -> Result:
        return (await self._commit([item]))[0]


def _reason(error: Exception) -> Exception:
    """What a waiter gets: Postgres's refusal as it is, all else as `StoreUnavailable`."""
    if isinstance(error, StoreUnavailable):
        return error
    if isinstance(error, psycopg.Error):
        if error.sqlstate is not None and not isinstance(error, psycopg.OperationalError):
            return error
        if isinstance(error, (psycopg.DataError, psycopg.IntegrityError)):
            return error
        return unavailable(error)
    _log.error("A batch failed by a defect: %s", described(error))
    return unavailable(error)


def _concerns_one_item(error: Exception) -> bool:
    """True if the batch may commit without one of its items. Missing rights and tables concern all alike."""
    return isinstance(error, (psycopg.Error, StatementRefused)) and not isinstance(error, psycopg.ProgrammingError)


def _is_too_late(waiter: _Waiter[Any, Any], now: float) -> bool:
    """True if no commit of it may begin any more; its waiter then gets an error."""
    _, future, by = waiter
    is_too_late = by < now or (by < math.inf and future.cancelled())  # its caller has stored it elsewhere
    if is_too_late:
        _fail(future, StoreUnavailable(NOT_IN_TIME))
    return is_too_late


def _fail(future: asyncio.Future[Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
