"""Deliveries a second, end to end, against peers that do the same job and against two limits, in turns in one run.

The relay: HTTP in, durable, forwarded, outcome durable. The peers, pgqueuer and procrastinate, drain the same
webhooks from a queue that was filled beforehand, which is not counted. The Node peers take them by HTTP; one stores
them first, the other one only their facts, afterwards. The limits: the relay's route that stores
nothing, and pgbench committing one row a transaction. Everything on one embedded Postgres with fsync on.
`python -m tests.benchmarks.throughput [--requests N] [--rounds N] [--only NAME …]`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import psycopg

from relay.store.embedded_server import programs
from tests.benchmarks import node_peer, pgqueuer_worker, procrastinate_worker, rig
from tests.benchmarks.load import webhook_body
from tests.servers import free_port, program, wait_until_healthy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKERS = 2
CONNECTIONS = 64
_PGBENCH_S = 5


@dataclass(frozen=True, slots=True)
class Figures:
    """A second's deliveries; CPU seconds and MB of WAL for a thousand; latencies in ms where they are known."""

    rate: float
    cpu: float | None = None
    wal: float | None = None
    p50: float | None = None
    p99: float | None = None


@dataclass(slots=True)
class Bench:
    """What every contender runs on."""

    dsn: str
    agent_port: int
    requests: int

    def database(self, name: str) -> str:
        """The DSN of a fresh database."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.dsn.replace("/postgres?", f"/{name}?")


def relay(bench: Bench, workers: int, connections: int) -> Figures:
    """The relay."""
    dsn = bench.database("relay_bench")
    with rig.relay(dsn, bench.agent_port, workers=workers) as (port, process):
        figures = _posted(bench, port, process, connections)
    facts = rig.count(dsn, "SELECT count(*) FROM dashboard_facts WHERE fact_type = 'support.webhook.retry'")
    assert facts == bench.requests + _warm_up(bench), f"{facts} facts for {bench.requests} deliveries"
    return figures


def forwarder(bench: Bench, workers: int, connections: int) -> Figures:
    """The same route without a store."""
    port = free_port()
    agent = f"http://127.0.0.1:{bench.agent_port}"
    with program("-m", "tests.benchmarks.forwarder", f"127.0.0.1:{port}", agent, str(workers)) as process:
        try:
            wait_until_healthy(port)
            return _posted(bench, port, psutil.Process(process.pid), connections)
        finally:
            for child in psutil.Process(process.pid).children():
                child.terminate()


class Skipped(Exception):
    """A contender that cannot run here. The message says why."""


def node(bench: Bench, mode: str) -> Figures:
    """A Node service on two processes."""
    if (reason := node_peer.missing()) is not None:
        raise Skipped(reason)
    dsn = bench.database("node_bench")
    with node_peer.peer(dsn, bench.agent_port, mode) as (port, process):
        figures = _posted(bench, port, psutil.Process(process.pid), CONNECTIONS)
    facts = rig.count(dsn, "SELECT count(*) FROM dashboard_facts")
    assert facts == bench.requests + _warm_up(bench), f"{facts} facts for {bench.requests} deliveries"
    return figures


def _warm_up(bench: Bench) -> int:
    return min(2000, bench.requests)


def _posted(bench: Bench, port: int, process: psutil.Process, connections: int) -> Figures:
    rig.send(port, connections, _warm_up(bench))
    cpu, wal = rig.cpu_seconds(process), rig.wal_bytes(bench.dsn)
    done = rig.send(port, connections, bench.requests)
    assert done["statuses"] == {"200": bench.requests}, done["statuses"]
    return Figures(
        bench.requests / done["seconds"],
        1000 * (rig.cpu_seconds(process) - cpu) / bench.requests,
        (rig.wal_bytes(bench.dsn) - wal) / bench.requests / 1000,
        done["p50_ms"],
        done["p99_ms"],
    )


def pgqueuer(bench: Bench, batch: int) -> Figures:
    """pgqueuer's two workers, taking `batch` jobs at once."""
    dsn = bench.database("pgqueuer_bench")
    asyncio.run(pgqueuer_worker.prepare(dsn, bench.requests))
    return _drained(bench, dsn, "pgqueuer_worker", str(batch), left="SELECT count(*) FROM pgqueuer")


def procrastinate(bench: Bench) -> Figures:
    """procrastinate's two workers, 64 jobs at a time each."""
    dsn = bench.database("procrastinate_bench")
    asyncio.run(procrastinate_worker.prepare(dsn, bench.requests))
    left = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
    return _drained(bench, dsn, "procrastinate_worker", left=left)


def _drained(bench: Bench, dsn: str, module: str, *arguments: str, left: str) -> Figures:
    """Two workers drain the queue; starting up is not counted."""
    agent = f"http://127.0.0.1:{bench.agent_port}/webhooks/chatwoot"
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", dsn, agent, *arguments]
    workers = [subprocess.Popen(command, cwd=rig.ROOT) for _ in range(WORKERS)]
    family = [psutil.Process(worker.pid) for worker in workers]
    while rig.count(dsn, left) == bench.requests:
        time.sleep(0.01)
    at_start = rig.count(dsn, left)
    began, cpu, wal = time.perf_counter(), sum(map(rig.cpu_seconds, family)), rig.wal_bytes(bench.dsn)
    while remaining := rig.count(dsn, left):
        with contextlib.suppress(psutil.NoSuchProcess):
            used, jobs, seconds = sum(map(rig.cpu_seconds, family)), at_start - remaining, time.perf_counter() - began
        time.sleep(0.02)
    wal = rig.wal_bytes(bench.dsn) - wal
    seconds = time.perf_counter() - began
    for worker in workers:
        assert worker.wait(60) == 0
    return Figures(at_start / seconds, 1000 * (used - cpu) / jobs, wal / at_start / 1000)


def pgbench(bench: Bench) -> Figures:
    """Postgres alone: one client's row a transaction, 64 clients."""
    dsn = bench.database("pgbench_bench")
    row = webhook_body().decode().replace("'", "''").replace(":", r"\:")
    rig.count(dsn, "WITH made AS (SELECT 1) SELECT 1")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE webhooks (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text)")
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"INSERT INTO webhooks (body) VALUES ('{row}');\n")
        script.flush()
        wal = rig.wal_bytes(bench.dsn)
        done = subprocess.run(
            [str(programs() / "pgbench"), "-n", "-c", str(CONNECTIONS), "-j", "2", "-T", str(_PGBENCH_S),
             "-f", script.name, dsn],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    rate = float(re.search(r"tps = ([\d.]+)", done.stdout)[1])  # type: ignore[index]
    rows = rig.count(dsn, "SELECT count(*) FROM webhooks")
    return Figures(rate, None, (rig.wal_bytes(bench.dsn) - wal) / rows / 1000)


CONTENDERS: dict[str, Callable[[Bench], Figures]] = {
    "relay": lambda bench: relay(bench, WORKERS, CONNECTIONS),
    "pgqueuer, batches of 10": lambda bench: pgqueuer(bench, 10),
    "pgqueuer, batches of 100": lambda bench: pgqueuer(bench, 100),
    "procrastinate": procrastinate,
    "node, storing first": lambda bench: node(bench, "durable"),
    "node, storing the fact afterwards": lambda bench: node(bench, "afterwards"),
    "the route, storing nothing": lambda bench: forwarder(bench, WORKERS, CONNECTIONS),
    "pgbench, a row a commit": pgbench,
    "relay, 2 workers, 16 connections": lambda bench: relay(bench, 2, 16),
    "relay, 1 worker, 64 connections": lambda bench: relay(bench, 1, 64),
    "relay, 1 worker, 16 connections": lambda bench: relay(bench, 1, 16),
}


@contextlib.contextmanager
def benches(requests: int) -> Iterator[Bench]:
    """A Postgres and an agent."""
    with rig.postgres() as dsn, rig.agent() as agent_port:
        yield Bench(dsn, agent_port, requests)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME")
    options = parser.parse_args()
    measured: dict[str, list[Figures]] = {name: [] for name in options.only}
    with benches(options.requests) as bench:
        for number in range(options.rounds):
            for name, figures in list(measured.items()):
                try:
                    figures.append(CONTENDERS[name](bench))
                except Skipped as error:
                    del measured[name]
                    print(f"{name}: skipped, {error}", file=sys.stderr, flush=True)
                    continue
                print(f"round {number + 1}: {name:34}{figures[-1].rate:8.0f}/s", file=sys.stderr, flush=True)
    medians = {name: sorted(figures, key=lambda f: f.rate)[len(figures) // 2] for name, figures in measured.items()}
    ours = medians.get("relay", next(iter(medians.values()))).rate
    print("| | deliveries/s | relay's ratio | CPU s / 1,000 | WAL MB / 1,000 | p50 ms | p99 ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, median in medians.items():
        cells = [
            f"{median.rate:,.0f}", f"{ours / median.rate:.2f}", _cell(median.cpu, ".2f"), _cell(median.wal, ".1f"),
            _cell(median.p50, ".0f"), _cell(median.p99, ".0f"),
        ]  # fmt: skip
        print(f"| {name} | {' | '.join(cells)} |")
    if len(options.only) == len(CONTENDERS):
        spread = statistics.pstdev(figures.rate for figures in measured["relay"]) / ours
        print(f"\nMedians of {options.rounds} rounds in turns; the relay's rates spread by {spread:.0%}.")


if __name__ == "__main__":
    main()
