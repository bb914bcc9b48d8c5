"""What the benchmarks share: a Postgres of their own, an agent, relays as real processes, and their cost."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg

from relay.store.embedded import EmbeddedPostgres
from tests.servers import ROOT, free_port, program, wait_until_healthy

if TYPE_CHECKING:
    from collections.abc import Iterator

WEBHOOKS = "/api/webhooks/chatwoot"


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A fresh embedded Postgres with fsync on; yields its DSN."""
    with tempfile.TemporaryDirectory(prefix="relay-bench-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedPostgres(Path(folder))
        try:
            yield server.dsn
        finally:
            server.close()


@contextlib.contextmanager
def agent(port: int = 0) -> Iterator[int]:
    """The benchmark's agent, on `port` or any free one; yields its port."""
    with program("-m", "tests.benchmarks.agent", str(port), out=subprocess.PIPE) as process:
        yield int(process.stdout.readline())


@contextlib.contextmanager
def relay(dsn: str, agent_port: int, *, workers: int, **env: str) -> Iterator[tuple[int, psutil.Process]]:
    """A `relay serve`; yields its port and its process."""
    port = free_port()
    settings = {
        "DATABASE_URL": dsn,
        "AGENT_SDK_URL": f"http://127.0.0.1:{agent_port}",
        "RELAY_BIND": f"127.0.0.1:{port}",
        "RELAY_WORKERS": str(workers),
    } | env
    with program("-m", "relay", "serve", env=settings) as process:
        wait_until_healthy(port)
        yield port, psutil.Process(process.pid)


def environment(dsn: str) -> dict[str, str]:
    """The environment of a command that works on this database."""
    return os.environ | {"DATABASE_URL": dsn}


def send(port: int, connections: int, requests: int, path: str = WEBHOOKS) -> dict[str, Any]:
    """Run the load generator as a process of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.load", str(port), path, str(connections), str(requests)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process and its living children."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)


def memory_mb(process: psutil.Process) -> float:
    """The largest resident set among a process and its children, in MB."""
    family = [process, *process.children(recursive=True)]
    return max(member.memory_info().rss for member in family) / 1e6


def count(dsn: str, sql: str) -> int:
    """The one number that `sql` gives."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(sql.encode()).fetchone()
        assert row is not None
        return int(row[0])


def wal_bytes(dsn: str) -> int:
    """How much WAL the server has written so far."""
    return count(dsn, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
