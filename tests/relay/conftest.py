"""Fixtures that one module's tests share: an agent, a database and relays, started once, for tests that only read
the deliveries they made themselves. Such a module runs in one loop: `pytestmark = shared_loop`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from tests.servers import HeldAgent, Rows, RunningRelay, database_like, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator


@pytest.fixture(scope="module")
def shared_rows(postgres: str) -> Iterator[Rows]:
    """Plain SQL against the module's database."""
    with database_like("migrated", postgres) as dsn, Rows(dsn).connected() as rows:
        yield rows


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_agent() -> AsyncIterator[HeldAgent]:
    """The module's Agent SDK. A test begins by telling it how to behave."""
    agent = HeldAgent()
    await agent.start()
    yield agent
    await agent.stop()


@asynccontextmanager
async def _starting(rows: Rows, agent: HeldAgent) -> AsyncIterator[Callable[..., Awaitable[RunningRelay]]]:
    """Starts relays on a database; settings as keyword arguments. They end with the block."""
    relays: list[RunningRelay] = []

    async def start(**settings: Any) -> RunningRelay:
        relays.append(RunningRelay(relay_settings(settings.pop("agent", agent), **settings), rows.dsn))
        return await relays[-1].ready()

    yield start
    for relay in relays:
        await relay.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def start_shared(
    shared_rows: Rows, shared_agent: HeldAgent
) -> AsyncIterator[Callable[..., Awaitable[RunningRelay]]]:
    """Starts relays that last as long as the module; settings as keyword arguments."""
    async with _starting(shared_rows, shared_agent) as start:
        yield start


@pytest_asyncio.fixture(loop_scope="module")
async def start_one(
    shared_rows: Rows, shared_agent: HeldAgent
) -> AsyncIterator[Callable[..., Awaitable[RunningRelay]]]:
    """Starts relays on the module's database that end with the test: each that runs on costs all later tests time."""
    async with _starting(shared_rows, shared_agent) as start:
        yield start


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_relay(start_shared: Callable[..., Awaitable[RunningRelay]]) -> RunningRelay:
    """The module's relay, with a test's ordinary settings."""
    return await start_shared()


_MADE = ("relay.deliveries", "relay.signatures", "relay.conversations", "dashboard_facts")


@pytest.fixture
def emptied_rows(shared_rows: Rows) -> Rows:
    """The module's database without what its earlier tests stored. Modules name it `rows`."""
    for table in _MADE:
        shared_rows(f"DELETE FROM {table}")
    return shared_rows


@pytest_asyncio.fixture(loop_scope="module")
async def emptied_agent(shared_agent: HeldAgent, emptied_rows: Rows) -> HeldAgent:
    """The module's agent, which has seen nothing and answers 200; the database is empty. Modules name it `agent`."""
    shared_agent.seen.clear()
    shared_agent.behave()
    return shared_agent


class Outage:
    """Takes the test's database away from every program, and gives it back."""

    def __init__(self, admin_dsn: str, dsn: str) -> None:
        self._admin = Rows(admin_dsn)
        self._name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]

    def begin(self) -> None:
        """Cut every connection and allow no new one."""
        self._allow_connections("false")
        self._admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (self._name,))

    def end(self) -> None:
        """Allow connections again."""
        self._allow_connections("true")

    def _allow_connections(self, allowed: str) -> None:
        statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(
            sql.Identifier(self._name), sql.SQL(allowed)
        )
        self._admin(statement.as_string())


@pytest.fixture
def outage(postgres: str, dsn: str) -> Outage:
    """An outage to begin and end."""
    return Outage(postgres, dsn)
