"""Postgres restarted, killed, cut off, full, read-only, crowded and replaced under load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
import pytest_asyncio

from tests.pooler import Pooler, needs_pgbouncer
from tests.postgres import Proxy, Server, account, small_disk
from tests.servers import Rows, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.faults.conftest import RelayProcess, Survived
    from tests.faults.load import Load

pytestmark = pytest.mark.faults
_CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hotdash-relay'"


class Proxied:
    """The server behind a proxy."""

    def __init__(self, server: Server, proxy: Proxy) -> None:
        self.proxy = proxy
        self.rows = server.rows
        self.dsn = server.dsn.replace(str(server.port), str(proxy.port))


@pytest_asyncio.fixture
async def proxied(server: Server) -> AsyncIterator[Proxied]:
    """A way to Postgres that fails."""
    proxy = await Proxy(server.port).start()
    yield Proxied(server, proxy)
    await proxy.close()


async def test_a_restart_of_postgres_that_outlasts_every_lease_refuses_nothing(
    server: Server, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived
) -> None:
    relays = [make_relay(database_url=server.dsn) for _ in range(2)]
    await asyncio.gather(*(relay.start() for relay in relays))
    load.start(*relays)
    recovery = []
    for _ in range(2):
        await load.continues()
        await asyncio.to_thread(server.stop)
        load.ledger.kills += 1
        await load.is_spooled()
        await asyncio.to_thread(server.start)
        recovery.append(await load.ledger.recovers(time.monotonic()))
    survived("Postgres restarted, twice, under 2 relays", await load.ends_well(server.rows), max(recovery))


async def test_postgres_killed_with_all_its_processes_has_all_that_was_answered(
    server: Server, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived
) -> None:
    relay = await make_relay(database_url=server.dsn).start()
    load.start(relay)
    recovery = []
    for _ in range(3):
        await load.continues()
        await asyncio.to_thread(server.kill)
        load.ledger.kills += 1
        await asyncio.to_thread(server.start)
        recovery.append(await load.ledger.recovers(time.monotonic()))
    survived("Postgres killed (kill -9), three times", await load.ends_well(server.rows), max(recovery))


async def test_connections_that_are_reset_are_made_anew(
    proxied: Proxied, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived
) -> None:
    relay = await make_relay(database_url=proxied.dsn).start()
    load.start(relay)
    recovery = []
    for _ in range(10):
        await load.continues(20)
        assert proxied.proxy.cut() >= 1
        load.ledger.kills += 1
        recovery.append(await load.ledger.recovers(time.monotonic()))
    survived("Connections to Postgres reset, ten times", await load.ends_well(proxied.rows), max(recovery))


async def test_connections_that_are_half_open_are_given_up(
    proxied: Proxied, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived
) -> None:
    relay = await make_relay(database_url=proxied.dsn).start()
    load.start(relay)
    await load.continues()
    assert proxied.proxy.strand() >= 1
    load.ledger.kills += 1
    recovery = await load.ledger.recovers(time.monotonic())
    survived("Connections to Postgres half-open for ever", await load.ends_well(proxied.rows), recovery)


async def test_a_promoted_standby_has_every_delivery_that_was_answered(
    server: Server, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived
) -> None:
    standby = await asyncio.to_thread(server.standby)
    try:
        await until(lambda: server.rows("SELECT sync_state FROM pg_stat_replication") == ["sync"])
        hosts = f"127.0.0.1:{server.port},127.0.0.1:{standby.port}"
        dsn = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
        relay = await make_relay(database_url=dsn).start()
        load.start(relay)
        await load.continues(300)
        await asyncio.to_thread(server.kill)
        killed_at = time.monotonic()
        load.ledger.kills += 1
        standby.rows("SELECT pg_promote()")
        recovery = await load.ledger.recovers(killed_at)
        await load.continues(100)
        survived("Primary killed, synchronous standby promoted", await load.ends_well(standby.rows), recovery)
    finally:
        standby.close()


async def test_a_full_disk_refuses_nothing_while_the_spool_has_another_one(
    server: Server, server_folder: Path, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived
) -> None:
    with small_disk(server_folder / "small", megabytes=64) as disk:
        os.chown(disk, *account())
        server.rows(f"CREATE TABLESPACE small LOCATION '{disk}'")
        server.rows("CREATE DATABASE on_small TABLESPACE small")
        dsn = psycopg.conninfo.make_conninfo(server.dsn, dbname="on_small")
        relay = await make_relay(database_url=dsn).start()
        load.start(relay)
        await load.continues()
        ballast = disk / "ballast"
        fill(ballast)
        await load.is_spooled()
        await until(lambda: relay.has_health(200, "spooling"), what="its health check says that Postgres does not")
        ballast.unlink()
        recovery = await load.ledger.recovers(time.monotonic())
        await load.continues()
        survived("Database's disk full", await load.ends_well(Rows(dsn)), recovery)
        server.close()


def fill(path: Path) -> None:
    """Take all the room that a disk has."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(8192))


async def test_a_database_that_became_read_only_refuses_nothing(
    server: Server, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived
) -> None:
    relay = await make_relay(database_url=server.dsn).start()
    load.start(relay)
    await load.continues()
    _reconfigure(server, "default_transaction_read_only = on")
    await load.is_spooled()
    assert relay.is_running
    _reconfigure(server, "default_transaction_read_only = off")
    recovery = await load.ledger.recovers(time.monotonic())
    await load.continues()
    survived("Database read-only", await load.ends_well(server.rows), recovery)


def _reconfigure(server: Server, setting: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM SET {setting}".encode())
        connection.execute("SELECT pg_reload_conf()")


async def test_too_many_connections_refuse_nothing(
    server: Server, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived
) -> None:
    server.stop()
    server.start("-c", "max_connections=20")
    relay = await make_relay(database_url=server.dsn).start()
    load.start(relay)
    await load.continues()
    with contextlib.ExitStack() as crowd:
        first = crowd.enter_context(psycopg.connect(server.dsn, autocommit=True))
        while load.ledger.spooled == 0:
            first.execute(_CUT_OFF)
            with contextlib.suppress(psycopg.OperationalError):
                crowd.enter_context(psycopg.connect(server.dsn))
            await asyncio.sleep(0.01)
        load.ledger.kills += 1
        assert relay.is_running
    recovery = await load.ledger.recovers(time.monotonic())
    await load.continues()
    survived("Too many connections to Postgres", await load.ends_well(server.rows), recovery)


@needs_pgbouncer
async def test_a_pooler_that_is_restarted_costs_nothing(
    server: Server, server_folder: Path, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived
) -> None:
    pooler = Pooler(server_folder, server.dsn, default_pool_size=10, max_client_conn=500).start()
    try:
        relays = [make_relay(database_url=pooler.dsn) for _ in range(2)]
        await asyncio.gather(*(relay.start() for relay in relays))
        load.start(*relays)
        recovery = []
        for _ in range(2):
            await load.continues()
            await asyncio.to_thread(pooler.stop)
            load.ledger.kills += 1
            await load.is_spooled()
            await asyncio.to_thread(pooler.start)
            recovery.append(await load.ledger.recovers(time.monotonic()))
        fault = "Behind PgBouncer, transaction mode, pooler restarted, twice, under 2 relays"
        survived(fault, await load.ends_well(server.rows), max(recovery))
    finally:
        pooler.close()
