"""Fixtures of the store's tests: a connection, rows planted as history, and every PostgreSQL that can be started."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import pytest_asyncio

from relay.store.database import connection_parameters
from relay.store.migrate import migrate
from tests.servers import (
    AgentStandIn,
    Rows,
    RunningRelay,
    database_like,
    folder_in_memory,
    free_port,
    relay_settings,
    wait_for,
)
from tests.store.plant import Plant
from tests.store.spooling import Spools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from relay.store.database import Connection


@pytest_asyncio.fixture
async def connection(dsn: str) -> AsyncIterator[Connection]:
    """A connection to the test's database, as the store's functions take it."""
    async with await psycopg.AsyncConnection.connect(autocommit=True, **connection_parameters(dsn, "tests")) as opened:
        yield opened


@pytest.fixture
def plant(rows: Rows) -> Plant:
    """Plants rows in the test's database."""
    return Plant(rows)


@pytest_asyncio.fixture
async def serve(agent: AgentStandIn) -> AsyncIterator[Callable[..., RunningRelay]]:
    """Starts relays on any DSN, not waiting until they are ready. Tests name it after the database's fixture."""
    relays: list[RunningRelay] = []

    def start(dsn: str, **settings: Any) -> RunningRelay:
        relays.append(RunningRelay(relay_settings(agent, **settings), dsn))
        return relays[-1]

    yield start
    for relay in relays:
        await relay.stop()


@pytest_asyncio.fixture
async def make_spool(tmp_path: Path) -> AsyncIterator[Spools]:
    """Makes spools in `tmp_path / "data"`, which does not exist yet."""
    spools = Spools(tmp_path / "data")
    yield spools
    await spools.close()


def _installed() -> list[Path]:
    """The directories of the machine's own PostgreSQL programs, and those that RELAY_TEST_POSTGRES names."""
    found = {folder.resolve() for folder in Path("/usr/lib/postgresql").glob("*/bin")}
    found |= {Path(named).resolve() for named in os.environ.get("RELAY_TEST_POSTGRES", "").split(":") if named}
    if pg_config := shutil.which("pg_config"):
        named = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        found.add(Path(named).resolve())
    return sorted(folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists())


_OTHERS = [pytest.param(programs, marks=pytest.mark.slow, id=str(programs)) for programs in _installed()]


@pytest.fixture(scope="session", params=["embedded", *_OTHERS])
def any_postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of each PostgreSQL that can be started here: the one that comes along, and those installed."""
    if request.param == "embedded":
        yield request.getfixturevalue("postgres")
        return
    made = tempfile.TemporaryDirectory(prefix="relay-pg-", dir=folder_in_memory(), ignore_cleanup_errors=True)
    with made as folder:
        user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        if user is not None:
            shutil.chown(folder, user)
        data, port = Path(folder, "data"), free_port()
        initdb = [
            request.param / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]
        subprocess.run(initdb, check=True, user=user, cwd=folder, capture_output=True)
        serving = [request.param / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=", "-k", folder]
        with subprocess.Popen(serving, user=user, cwd=folder, stderr=subprocess.DEVNULL) as server:
            dsn = f"postgresql://postgres@/postgres?host={folder}&port={port}"
            try:
                wait_for(lambda: _answers(dsn), what="the server answers")
                yield dsn
            finally:
                server.send_signal(2)  # a fast shutdown


@pytest.fixture
def any_dsn(any_postgres: str) -> Iterator[str]:
    """The DSN of a fresh, empty database on each of them."""
    with database_like("template1", any_postgres) as dsn:
        yield dsn


@pytest.fixture
def any_migrated(any_postgres: str) -> Iterator[str]:
    """The DSN of a fresh database with the relay's schema and roles on each of them."""
    rows = Rows(any_postgres)
    if not rows("SELECT 1 FROM pg_database WHERE datname = 'migrated'"):
        rows("CREATE DATABASE migrated")
        asyncio.run(migrate(psycopg.conninfo.make_conninfo(any_postgres, dbname="migrated"), roles=True))
    with database_like("migrated", any_postgres) as dsn:
        yield dsn


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True
