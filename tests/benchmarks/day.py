"""A day of traffic, compressed: what grows from the first hour to the last.

An "hour" lasts `--seconds`; retention, autovacuum's pause and the failing hour are shortened in proportion. In one hour
the agent is away, in the next its dead letters are replayed, in another a transaction holds a snapshot. Beside the
relay a reference agent drafts for test webhooks, and a console is open.
`python -m tests.benchmarks.day [--hours N] [--rate N] [--seconds N]`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import uvloop
from psycopg.rows import dict_row

from relay.domain.headers import TEST_HEADER
from relay.settings import AGENT_PATH
from relay.store.database import connect
from relay.store.retention import retire
from tests.benchmarks import rig
from tests.benchmarks.latency import timetable
from tests.benchmarks.load import PAYLOAD, percentile
from tests.console.screens import RawTerminal
from tests.servers import free_port, program, wait_until_healthy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEEP_HOURS, FAILING, HOLDING = 6, 8, 14
"""How long rows are kept, which hour the agent is away, and which one a snapshot is held in. The first is 1."""

_ROUNDS_AN_HOUR = 6
_DRAFTS_A_SECOND = 2
_MIB = 1 << 20
_KEPT_BYTES = 4_000
_ANSWERS = (b"200", b"202", b"500")
_ALL = "pg_catalog.pg_stat_user_tables"
_SIZES = f"""
    SELECT sum(pg_table_size(relid))::bigint AS heap, sum(pg_indexes_size(relid))::bigint AS indexes,
           sum(n_dead_tup)::bigint AS dead FROM {_ALL}
"""
_TABLES = f"""
    SELECT schemaname || '.' || relname AS name, pg_table_size(relid) AS heap, pg_indexes_size(relid) AS indexes,
           n_live_tup AS live, n_dead_tup AS dead, n_tup_ins AS ins, n_tup_upd AS upd, n_tup_hot_upd AS hot,
           n_tup_del AS del, autovacuum_count AS vacuums
      FROM {_ALL} WHERE pg_total_relation_size(relid) > 256 * 1024 ORDER BY pg_total_relation_size(relid) DESC
"""


@dataclass(frozen=True, slots=True)
class Hour:
    """What one hour took. Memory in MiB is the programs' own; sizes in MiB are of all tables and indexes."""

    per_s: float
    p99_ms: float
    relay: float
    agent: float
    console: float
    tables: float
    indexes: float
    dead: int
    wal: float

    @property
    def cells(self) -> str:
        """The row of the table."""
        figures = (self.relay, self.agent, self.console, self.tables, self.indexes)
        sizes = " | ".join(f"{figure:.1f}" for figure in figures)
        return f"{self.per_s:.1f} | {self.p99_ms:.1f} | {sizes} | {self.dead:,} | {self.wal:.1f}"


class Repeated(threading.Thread):
    """Does something every `every_s` seconds until the block's end."""

    def __init__(self, work: Callable[[], object], every_s: float) -> None:
        super().__init__(daemon=True)
        self._work, self._every_s, self._over = work, every_s, threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Work and wait in turns."""
        while not self._over.wait(self._every_s):
            self._work()


async def _retire(dsn: str, keep_s: float) -> None:
    async with await connect(dsn, "hotdash-relay day") as connection:
        await retire(connection, timedelta(seconds=keep_s))


@contextlib.contextmanager
def _snapshot(dsn: str) -> Iterator[None]:
    """Hold a snapshot for the length of the block, as a report or a dump does."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM relay.instances")
        yield


def _draft(port: int) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{AGENT_PATH}", PAYLOAD.read_bytes(), {TEST_HEADER: "true", "content-type": "text/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        json.load(answer)


def _own_mib(pid: int) -> float:
    """Memory that no other process shares; 0 for a program that has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return float(psutil.Process(pid).memory_full_info().uss / _MIB)
    return 0


def _rows(dsn: str, statement: str) -> list[dict[str, Any]]:
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        return connection.execute(statement.encode()).fetchall()


@dataclass(frozen=True, slots=True)
class Day:
    """The programs and the pace of one run."""

    dsn: str
    relay: int
    port: int
    agent: int
    terminal: RawTerminal
    rate: int
    seconds: float

    def hour(self) -> Hour:
        """Send an hour's webhooks and measure."""
        before, began = rig.wal_bytes(self.dsn), time.perf_counter()
        took = uvloop.run(timetable(self.port, rig.WEBHOOKS, self.rate, self.seconds, statuses=_ANSWERS))
        elapsed = time.perf_counter() - began
        sizes = _rows(self.dsn, _SIZES)[0]
        wal = rig.wal_bytes(self.dsn) - before
        return Hour(
            len(took) / elapsed, 1000 * percentile(took, 0.99), _own_mib(self.relay), _own_mib(self.agent),
            _own_mib(self.terminal.pid), sizes["heap"] / _MIB, sizes["indexes"] / _MIB, sizes["dead"], wal / _MIB,
        )  # fmt: skip


@contextlib.contextmanager
def _running(dsn: str, agent_port: int, folder: str, given: argparse.Namespace) -> Iterator[Day]:
    port = free_port()
    env = {"DATABASE_URL": dsn, "AGENT_BIND": f"127.0.0.1:{port}"}
    env |= {"CHATWOOT_BASE_URL": "http://127.0.0.1:9", "CHATWOOT_API_KEY": "key", "CHATWOOT_ACCOUNT_ID": "1"}
    keep_s = KEEP_HOURS * given.seconds
    with contextlib.ExitStack() as stack:
        relay_port, process = stack.enter_context(rig.relay(dsn, agent_port, workers=1))
        agent = stack.enter_context(program("-m", "relay", "agent", "serve", env=env))
        wait_until_healthy(port)
        terminal = RawTerminal(Path(folder), dsn)
        stack.callback(terminal.close)

        def drain() -> None:
            terminal.rest(0.2)
            terminal.output = terminal.output[-_KEPT_BYTES:]

        stack.enter_context(Repeated(drain, 0.01))
        stack.enter_context(Repeated(lambda: _draft(port), 1 / _DRAFTS_A_SECOND))
        stack.enter_context(Repeated(lambda: asyncio.run(_retire(dsn, keep_s)), given.seconds / _ROUNDS_AN_HOUR))
        yield Day(dsn, process.pid, relay_port, agent.pid, terminal, given.rate, given.seconds)


def _shorten(dsn: str, seconds: float) -> None:
    """Autovacuum looks for work once a minute: as often in a compressed hour, where a second is the least."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET autovacuum_naptime = {max(1, round(seconds / 60))}".encode())
        connection.execute("SELECT pg_reload_conf()")


def _replay(dsn: str, rate: int) -> subprocess.Popen[bytes]:
    arguments = ["-m", "relay", "replay", "--yes", "--rate", str(rate)]
    env = rig.environment(dsn)
    return subprocess.Popen([sys.executable, *arguments], env=env, cwd=rig.ROOT, stdout=subprocess.DEVNULL)


def measure(given: argparse.Namespace, dsn: str, folder: str) -> list[Hour]:
    """Every hour of the day."""
    agent_port, hours = free_port(), []
    with contextlib.ExitStack() as agent:
        agent.enter_context(rig.agent(agent_port))
        with _running(dsn, agent_port, folder, given) as day:
            _shorten(dsn, given.seconds)
            for number in range(1, given.hours + 1):
                note, replay = "", None
                with contextlib.ExitStack() as hour:
                    if number == FAILING:
                        note = "no agent"
                        agent.close()
                    elif number == FAILING + 1:
                        note = "replays"
                        agent.enter_context(rig.agent(agent_port))
                        replay = _replay(dsn, given.rate)
                    elif number == HOLDING:
                        note = "a snapshot"
                        hour.enter_context(_snapshot(dsn))
                    hours.append(day.hour())
                if replay is not None:
                    replay.wait()
                if not day.terminal.is_running:
                    print(f"the console ended: {day.terminal.output!r}", file=sys.stderr, flush=True)
                print(f"| {number} | {hours[-1].cells} | {note} |", flush=True)
    return hours


def _ratios(hours: list[Hour]) -> None:
    """What the goal is about: rates against the first hour, sizes against the first in which retention deletes."""
    first, last, full = hours[0], hours[-1], hours[min(KEEP_HOURS, len(hours) - 1)]
    print("\n| last hour | ratio to | |\n| --- | --- | ---: |")
    for name in ("per_s", "p99_ms", "wal"):
        print(f"| {name} | the first | {getattr(last, name) / getattr(first, name):.2f} |")
    for name in ("relay", "agent", "console", "tables", "indexes", "dead"):
        print(f"| {name} | hour {KEEP_HOURS + 1} | {getattr(last, name) / max(1, getattr(full, name)):.2f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--rate", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="the length of an hour")
    given = parser.parse_args()
    print(
        "| hour | per s | p99 ms | relay MiB | agent MiB | console MiB | tables MiB | indexes MiB | dead | WAL MiB | |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |", flush=True)
    with rig.postgres() as dsn, tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
        hours = measure(given, dsn, folder)
        print("\n| table | heap KiB | indexes KiB | live | dead | inserted | updated (HOT) | deleted | vacuums |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for row in _rows(dsn, _TABLES):
            print(
                f"| {row['name']} | {row['heap'] // 1024:,} | {row['indexes'] // 1024:,} | {row['live']:,} | "
                f"{row['dead']:,} | {row['ins']:,} | {row['upd']:,} ({row['hot']:,}) | {row['del']:,} | "
                f"{row['vacuums']} |"
            )
    _ratios(hours)


if __name__ == "__main__":
    main()
