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
from typing import TYPE_CHECKING, Generic, TypeVar

import psycopg

from relay.errors import StoreUnavailable
from relay.store.database import unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Collects items and commits them batch by batch, in the order they came.

    `commit` takes a batch and returns one result an item, in order; it either commits all of them or
    raises. When Postgres refuses a value, the batch is committed item by item, so that one bad item fails
    alone. `size` weighs an item in bytes, to keep a batch under `max_bytes`.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        size: Callable[[Item], int] = lambda _: 0,
        max_items: int = 256,
        max_bytes: int = 8 * 1024 * 1024,
    ) -> None:
        self._commit = commit
        self._size = size
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[Item, asyncio.Future[Result], float]] = deque()
        self._wake = asyncio.Event()

    async def submit(self, item: Item, *, by: float = math.inf) -> Result:
        """Commit `item` with whatever else is waiting and return its result.

        Cancelling the caller does not take the item out: it may still be committed. But no commit of it begins
        after `by` (`time.monotonic()`).

        Raises:
            StoreUnavailable: it was not committed, or whether it was is in doubt.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
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
                    if batch := self._take():
                        await self._commit_one(batch)
        finally:
            while self._waiting:
                _fail(self._waiting.popleft()[1], StoreUnavailable("The relay is stopping"))

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        weight, now = 0, time.monotonic()
        while self._waiting and len(batch) < self._max_items:
            item, future, by = self._waiting[0]
            if by < now:
                _fail(future, StoreUnavailable("Postgres did not answer in time"))
                self._waiting.popleft()
                continue
            weight += self._size(item)
            if batch and weight > self._max_bytes:
                break
            self._waiting.popleft()
            batch.append((item, future))
        return batch

    async def _commit_one(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._commit([item for item, _ in batch])
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return
            for pair in batch:
                await self._commit_one([pair])
        except asyncio.CancelledError:
            for _, future in batch:
                _fail(future, StoreUnavailable("The relay is stopping"))
            raise
        except Exception as error:  # noqa: BLE001 - the loop's top: every waiter is told, none is left hanging
            reason = error if isinstance(error, StoreUnavailable) else unavailable(error)
            if reason is not error:
                _log.error("A batch failed by a defect: %s: %s", type(error).__name__, reason)
            for _, future in batch:
                _fail(future, reason)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _fail(future: asyncio.Future[Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
