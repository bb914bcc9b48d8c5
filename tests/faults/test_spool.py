"""Postgres away under load, and worse meanwhile: webhooks wait in the spool, and only its end refuses one."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.test_postgres import fill
from tests.postgres import small_disk
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.faults.conftest import RelayProcess, Survived
    from tests.faults.load import Load
    from tests.postgres import Server

pytestmark = pytest.mark.faults
_AWAY_S = 12


async def test_postgres_stopped_for_twelve_seconds_refuses_nothing_and_keeps_the_order(
    server: Server, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived
) -> None:
    relay = await make_relay(database_url=server.dsn, relay_workers=2, relay_lease_seconds=60).start()
    load.start(relay)
    await load.continues()
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(_AWAY_S)
    await asyncio.to_thread(server.start)
    recovery = await load.ledger.recovers(time.monotonic())
    await load.continues(200)
    load.ledger.kills = 1  # what was in flight when Postgres stopped may be sent again
    counts = await load.ends_well(server.rows)
    load.ledger.check_order(load.agent)
    assert set(load.ledger.statuses.values()) <= {200, 202}
    assert load.ledger.spooled > 100
    survived("Postgres stopped for 12 s, 2 workers", counts, recovery)


async def test_a_relay_killed_while_postgres_is_away_loses_nothing(
    server: Server, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived
) -> None:
    relay = await make_relay(database_url=server.dsn).start()
    load.start(relay)
    await load.continues()
    await asyncio.to_thread(server.kill)
    load.ledger.kills += 1
    for _ in range(2):
        await load.is_spooled()
        await relay.kill()
        await relay.start(without_postgres=True)
    await load.is_spooled()
    await asyncio.to_thread(server.start)
    recovery = await load.ledger.recovers(time.monotonic())
    counts = await load.ends_well(server.rows)
    assert load.ledger.refusals == []
    survived("Relay killed (kill -9) twice while Postgres is away", counts, recovery)


async def test_the_spools_disk_full_as_well_is_503_and_loses_nothing(
    server: Server, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", megabytes=8) as disk:
        relay = await make_relay(database_url=server.dsn, relay_data_dir=disk).start()
        load.start(relay)
        await load.continues()
        await asyncio.to_thread(server.stop)
        load.ledger.kills += 1
        await load.is_spooled()
        await asyncio.to_thread(fill, disk / "ballast")
        await load.is_refused()
        await until(lambda: relay.has_health(503, "unavailable"), what="its health check says so")
        await asyncio.to_thread(server.start)
        recovery = await load.ledger.recovers(time.monotonic())
        fault = "Disk full and spool full: Postgres stopped, the spool on a full disk"
        survived(fault, await load.ends_well(server.rows), recovery)
        relay.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_spool_directory_removed_under_load_is_made_again_and_loses_nothing(
    server: Server,
    make_relay: Callable[..., RelayProcess],
    load: Load,
    survived: Survived,
    tmp_path: Path,
    workers: int,
) -> None:
    folder = tmp_path / "data"
    relay = await make_relay(database_url=server.dsn, relay_data_dir=folder, relay_workers=workers).start()
    load.start(relay)
    await load.continues()
    await asyncio.to_thread(server.stop)
    load.ledger.kills += 1
    for _ in range(3):
        await load.is_spooled()
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await load.is_spooled()
    assert await asyncio.to_thread((folder / "spool.db").exists)
    await asyncio.to_thread(server.start)
    recovery = await load.ledger.recovers(time.monotonic())
    counts = await load.ends_well(server.rows)
    assert load.ledger.refusals == []
    survived(f"Postgres stopped, and the spool's directory removed three times, {workers} worker(s)", counts, recovery)


async def test_two_relays_drain_one_spool_once(
    server: Server, make_relay: Callable[..., RelayProcess], load: Load
) -> None:
    relays = [make_relay(database_url=server.dsn) for _ in range(2)]
    await asyncio.gather(*(relay.start() for relay in relays))
    load.start(*relays)
    await load.continues()
    await asyncio.to_thread(server.stop)
    load.ledger.kills += 1
    await load.is_spooled()
    await load.stop()
    await asyncio.to_thread(server.start)
    await until(lambda: any("Spool drained" in relay.output for relay in relays), what="the spool is drained")
    assert (await load.ends_well(server.rows))["refused"] == 0


async def test_a_relay_stopped_while_it_drains_holds_up_no_other(
    server: Server, make_relay: Callable[..., RelayProcess], load: Load, survived: Survived, tmp_path: Path
) -> None:
    relays = [make_relay(database_url=server.dsn, relay_data_dir=tmp_path / "data") for _ in range(2)]
    await asyncio.gather(*(relay.start() for relay in relays))
    load.start(*relays)
    await load.continues()
    await asyncio.to_thread(server.stop)
    load.ledger.kills += 1
    await load.is_spooled()
    stopped = await until(lambda: _stopped_while_it_drains(relays, tmp_path / "data" / "spool.state"))
    await asyncio.to_thread(server.start)
    other = next(relay for relay in relays if relay is not stopped)
    stopped_at = time.monotonic()
    await until(lambda: "Spool drained" in other.output, what="the other one drains")
    recovery = time.monotonic() - stopped_at
    stopped.signal(signal.SIGCONT)
    counts = await load.ends_well(server.rows)
    assert load.ledger.refusals == []
    survived("One of 2 relays stopped while it drains the spool, then continued", counts, recovery)


def _stopped_while_it_drains(relays: Sequence[RelayProcess], state: Path) -> RelayProcess | None:
    """The relay that holds the lock of those that drain, stopped; None if there is none at this moment.

    One that is stopped within a transaction keeps the others from writing to the spool: they wait for it.
    """
    for relay in relays:
        if _holds_lock(relay, state):
            relay.signal(signal.SIGSTOP)
            if _holds_lock(relay, state) and _takes_writes(state.with_suffix(".db")):
                return relay
            relay.signal(signal.SIGCONT)
    return None


def _holds_lock(relay: RelayProcess, file: Path) -> bool:
    """True if the process has a lock of `flock` on the file (proc(5), /proc/locks)."""
    locks = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    held = {(int(line[4]), int(line[5].split(":")[2])) for line in locks if line[1:3] == ["FLOCK", "ADVISORY"]}
    return (relay.pid, file.stat().st_ino) in held


def _takes_writes(spool: Path) -> bool:
    """False while a process is within a transaction that writes to the spool."""
    with contextlib.closing(sqlite3.connect(spool, timeout=1, isolation_level=None)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True
