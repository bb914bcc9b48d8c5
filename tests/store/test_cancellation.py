"""A task that is cancelled while it uses Postgres ends, at whatever moment that comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest
import pytest_asyncio

from relay.errors import StoreUnavailable
from relay.store.database import Database, DedicatedConnection
from tests.servers import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

STEPS = 40


@pytest_asyncio.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A database with one connection, for which tasks have to wait."""
    opened = Database(dsn, max_size=1)
    await opened.open()
    yield opened
    await opened.close()


async def use_again_and_again(users: Database | DedicatedConnection, used: asyncio.Event) -> None:
    """What every service of a relay does: continue after a failure, until cancelled."""
    while True:
        try:
            async with users.connection() as connection:
                await connection.execute("SELECT 1")
        except StoreUnavailable:
            pass
        used.set()
        await asyncio.sleep(0)


async def ends(task: asyncio.Task[None]) -> bool:
    """True if `task`, which was cancelled, ends as cancelled."""
    await asyncio.wait((task,), timeout=PATIENCE_S)
    ended = task.cancelled()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.01)
    return ended


@pytest.mark.parametrize(
    "through", [lambda database: database, DedicatedConnection], ids=["the pool", "a dedicated connection"]
)
async def test_a_task_cancelled_while_it_gets_its_connection_ends(
    dsn: str, through: Callable[[Database], Database | DedicatedConnection]
) -> None:
    continued = []
    for steps in range(STEPS):
        database = Database(dsn, max_size=1)
        await database.open()
        used, way = asyncio.Event(), through(database)
        async with database.connection():
            task = asyncio.create_task(use_again_and_again(way, used))
            await asyncio.sleep(0.01)
            assert not used.is_set(), "it waits for the connection"
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        if not await ends(task):
            continued.append(steps)
        if isinstance(way, DedicatedConnection):
            await way.close()
        await database.close()
    assert continued == [], "steps of the loop between the connection and the cancellation"


async def test_a_connection_that_breaks_as_its_user_is_cancelled_does_not_hide_the_cancellation(
    database: Database,
) -> None:
    used = asyncio.Event()

    async def break_off() -> None:
        async with database.connection():
            used.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as cancelled:
                raise psycopg.OperationalError("the connection is lost") from cancelled

    task = asyncio.create_task(break_off())
    await used.wait()
    task.cancel()
    assert await ends(task)


async def test_a_time_out_within_is_a_time_out_and_no_cancellation(database: Database) -> None:
    with pytest.raises(StoreUnavailable, match="did not answer in time"):
        async with database.connection(), asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_who_was_cancelled_before_can_still_say_goodbye(database: Database) -> None:
    said: list[object] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            async with database.connection() as connection:
                cursor = await connection.execute("SELECT 'goodbye'")
                said.append(await cursor.fetchone())
            said.append("and on")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    assert await ends(task)
    assert said == [("goodbye",), "and on"]
