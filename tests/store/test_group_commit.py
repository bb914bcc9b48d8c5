"""Group commit: callers who submit at once share one statement, and each of them gets its own result."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from relay.errors import StatementRefused, StoreUnavailable
from relay.store.batch import GroupCommit
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from relay.store.database import Connection
    from tests.servers import Rows

_SQUARES = "INSERT INTO numbers SELECT n::int FROM unnest(%s::text[]) n RETURNING n * n"


class Numbers:
    """Commits texts as numbers into a table and answers with their squares; keeps what it was given."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, batch: Sequence[str]) -> list[int]:
        self.batches.append(list(batch))
        await self.gate.wait()
        cursor = await self._connection.execute(_SQUARES, (list(batch),))
        return [row[0] for row in await cursor.fetchall()]


@pytest.fixture
def numbers(connection: Connection, rows: Rows) -> Numbers:
    rows("CREATE TABLE numbers (n int CHECK (n < 1000))")
    return Numbers(connection)


@asynccontextmanager
async def running(group: GroupCommit[str, int]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(group.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def submit_while_busy(numbers: Numbers, group: GroupCommit[str, int], items: Sequence[str]) -> list[int | object]:
    """Submit `items` at once while a batch is under way, and return their results."""
    numbers.gate.clear()
    first = asyncio.create_task(group.submit("0"))
    await until(lambda: numbers.batches)
    waiting = [asyncio.create_task(group.submit(item)) for item in items]
    await asyncio.sleep(0)  # they are submitted
    numbers.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    await first
    return list(results)


async def test_what_is_submitted_while_a_batch_commits_becomes_the_next_batch(numbers: Numbers) -> None:
    group = GroupCommit(numbers)
    async with running(group):
        results = await submit_while_busy(numbers, group, [str(n) for n in range(1, 101)])
    assert results == [n * n for n in range(1, 101)]
    assert [len(batch) for batch in numbers.batches] == [1, 100]


async def test_a_lone_item_is_committed_at_once(numbers: Numbers) -> None:
    group = GroupCommit(numbers)
    async with running(group):
        assert await group.submit("7") == 49
        assert await group.submit("8") == 64
    assert numbers.batches == [["7"], ["8"]]


@pytest.mark.parametrize("bad", ["seven", "9999999999999", "1001"])
async def test_an_item_that_postgres_refuses_fails_alone(numbers: Numbers, rows: Rows, bad: str) -> None:
    group = GroupCommit(numbers)
    async with running(group):
        results = await submit_while_busy(numbers, group, ["1", "2", bad, "3"])
    assert results[:2] + results[3:] == [1, 4, 9]
    assert isinstance(results[2], (psycopg.DataError, psycopg.IntegrityError))
    assert sorted(rows("SELECT n FROM numbers")) == [0, 1, 2, 3]


async def test_a_lost_connection_reaches_every_waiter_as_unavailable(numbers: Numbers, connection: Connection) -> None:
    group = GroupCommit(numbers)
    async with running(group):
        await group.submit("1")
        await connection.close()
        results = await asyncio.gather(*(group.submit(str(n)) for n in range(20)), return_exceptions=True)
    assert len(results) == 20
    assert all(isinstance(result, StoreUnavailable) for result in results)


async def test_a_defect_in_the_commit_fails_its_waiters_and_the_next_batch_commits(
    connection: Connection, rows: Rows
) -> None:
    rows("CREATE TABLE numbers (n int)")
    numbers = Numbers(connection)

    async def defective_at_first(batch: Sequence[str]) -> list[int]:
        if not numbers.batches:
            numbers.batches.append([])
            raise ZeroDivisionError("a defect")
        return await numbers(batch)

    group = GroupCommit(defective_at_first)
    async with running(group):
        with pytest.raises(StoreUnavailable, match="ZeroDivisionError"):
            await group.submit("1")
        assert await group.submit("2") == 4


async def test_a_batch_holds_no_more_items_than_it_may(numbers: Numbers) -> None:
    group = GroupCommit(numbers, max_items=4)
    async with running(group):
        await submit_while_busy(numbers, group, [str(n) for n in range(10)])
    assert [len(batch) for batch in numbers.batches] == [1, 4, 4, 2]


async def test_a_batch_holds_no_more_bytes_than_it_may_but_a_huge_item_still_goes(numbers: Numbers) -> None:
    group = GroupCommit(numbers, size=int, max_bytes=10)
    async with running(group):
        await submit_while_busy(numbers, group, ["4", "5", "6", "500", "1", "9"])
    assert numbers.batches[1:] == [["4", "5"], ["6"], ["500"], ["1", "9"]]


async def test_a_caller_who_gives_up_does_not_remove_the_item(numbers: Numbers, rows: Rows) -> None:
    group = GroupCommit(numbers)
    numbers.gate.clear()
    async with running(group):
        impatient = asyncio.create_task(group.submit("5"))
        await until(lambda: numbers.batches)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        numbers.gate.set()
        assert await group.submit("6") == 36
    assert rows("SELECT n FROM numbers") == [5, 6]


async def test_stopping_fails_items_under_way_and_items_that_wait(numbers: Numbers) -> None:
    group = GroupCommit(numbers, max_items=1)
    numbers.gate.clear()
    async with running(group) as task:
        callers = [asyncio.create_task(group.submit(str(n))) for n in range(3)]
        await until(lambda: numbers.batches)
        task.cancel()
        results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 3


class Beside(Numbers):
    """`Numbers`, and a way to commit one item alone that waits at a gate of its own for the item `stuck`."""

    def __init__(self, connection: Connection, stuck: str = "") -> None:
        super().__init__(connection)
        self.stuck = stuck
        self.alone: list[str] = []
        self.way_free = asyncio.Event()

    async def one(self, item: str) -> int:
        """Commit one item."""
        self.alone.append(item)
        if item == self.stuck:
            await self.way_free.wait()
        cursor = await self._connection.execute(_SQUARES, ([item],))
        (square,) = await cursor.fetchone() or ()
        return int(square)


@pytest.fixture
def beside(connection: Connection, rows: Rows) -> Beside:
    rows("CREATE TABLE numbers (n int CHECK (n < 1000))")
    return Beside(connection)


async def test_a_heavy_item_commits_alone_and_batches_continue_beside_it(beside: Beside) -> None:
    group = GroupCommit(beside, alone=beside.one, size=int, heavy=500)
    beside.stuck = "501"
    async with running(group):
        heavy = asyncio.create_task(group.submit("501"))
        await until(lambda: beside.alone)
        assert [await group.submit("500"), await group.submit("2")] == [250_000, 4]
        assert not heavy.done()
        beside.way_free.set()
        assert await heavy == 251_001
    assert beside.batches == [["500"], ["2"]]


async def test_the_others_of_a_cancelled_batch_are_committed_while_the_bad_one_still_waits(
    beside: Beside, connection: Connection, rows: Rows
) -> None:
    rows("CREATE TABLE taken (n int PRIMARY KEY)")
    beside.stuck = "13"

    async def cancelled_by_13(batch: Sequence[str]) -> list[int]:
        if "13" in batch:
            async with connection.transaction():
                await connection.execute("SET LOCAL statement_timeout = '1ms'")
                await connection.execute("SELECT pg_sleep(60)")
        return await beside(batch)

    group = GroupCommit(cancelled_by_13, alone=beside.one)
    async with running(group):
        await submit_while_busy(beside, group, [])
        beside.gate.clear()
        first = asyncio.create_task(group.submit("1"))
        await until(lambda: beside.batches[-1] == ["1"])
        waiting = {item: asyncio.create_task(group.submit(item)) for item in ("13", "2", "3", "4")}
        await asyncio.sleep(0)  # they are submitted
        beside.gate.set()
        assert await first == 1
        assert [await waiting[item] for item in ("2", "3", "4")] == [4, 9, 16]
        assert await group.submit("5") == 25
        assert not waiting["13"].done()
        beside.way_free.set()
        assert await waiting["13"] == 169


async def test_a_lone_item_that_postgres_cancels_fails_as_refused_and_not_as_postgres_away(
    connection: Connection,
) -> None:
    async def slow(_: Sequence[str]) -> list[int]:
        async with connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = '1ms'")
            await connection.execute("SELECT pg_sleep(60)")
        return []

    group: GroupCommit[str, int] = GroupCommit(slow)
    async with running(group):
        with pytest.raises(StatementRefused, match="canceling statement due to statement timeout"):
            await group.submit("1")


async def test_what_concerns_every_item_alike_splits_no_batch(numbers: Numbers, rows: Rows) -> None:
    group = GroupCommit(numbers)
    async with running(group):
        rows("DROP TABLE numbers")
        numbers.gate.clear()
        waiting = [asyncio.create_task(group.submit(str(n))) for n in range(20)]
        await until(lambda: numbers.batches)
        numbers.gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {psycopg.errors.UndefinedTable}
    assert len(numbers.batches) <= 2


async def test_a_batch_that_fails_for_one_item_commits_in_parts_and_only_that_item_fails(
    numbers: Numbers, rows: Rows
) -> None:
    parts: list[list[str]] = []

    async def part(batch: Sequence[str]) -> list[int]:
        parts.append(list(batch))
        return await numbers(batch)

    group = GroupCommit(numbers, part=part)
    items = [str(n) for n in range(1, 65)]
    items[40] = "1001"
    async with running(group):
        results = await submit_while_busy(numbers, group, items)
    assert isinstance(results.pop(40), psycopg.IntegrityError)
    assert results == [n * n for n in range(1, 65) if n != 41]
    assert [len(batch) for batch in parts] == [8] * 6 + [1] * 8 + [8] * 2
    assert rows("SELECT count(*) FROM numbers") == [64]
