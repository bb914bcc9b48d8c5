"""Deliveries a second, end to end, against pgqueuer draining the same job from the same Postgres.

The relay: HTTP in, durable, forwarded, outcome durable; two workers, 64 connections. pgqueuer: the same
webhooks, put into its queue beforehand and not counted, forwarded by two worker processes. Both in turns, in one
run, fsync on. `python -m tests.benchmarks.throughput [--requests N] [--rounds N]`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import time

import psycopg

from tests.benchmarks import pgqueuer_worker, rig

WORKERS = 2
CONNECTIONS = 64
PGQUEUER_BATCHES = (10, 100)


def relay_rate(dsn: str, agent_port: int, requests: int) -> tuple[float, str]:
    """Deliveries a second through the relay, and what they cost."""
    before = rig.count(dsn, "SELECT count(*) FROM dashboard_facts") if _migrated(dsn) else 0
    with rig.relay(dsn, agent_port, workers=WORKERS) as (port, process):
        rig.send(port, CONNECTIONS, min(2000, requests))
        cpu, wal = rig.cpu_seconds(process), rig.wal_bytes(dsn)
        done = rig.send(port, CONNECTIONS, requests)
        cpu, wal = rig.cpu_seconds(process) - cpu, rig.wal_bytes(dsn) - wal
        memory = rig.memory_mb(process)
    assert set(done["statuses"]) == {"200"}, done["statuses"]
    facts = rig.count(dsn, "SELECT count(*) FROM dashboard_facts WHERE fact_type = 'support.webhook.retry'") - before
    assert facts >= requests, f"{facts} facts for {requests} deliveries"
    cost = (
        f"p50 {done['p50_ms']:.0f} ms, p99 {done['p99_ms']:.0f} ms, {1000 * cpu / requests:.2f} CPU-s and "
        f"{wal / requests / 1000:.1f} MB WAL a thousand, {memory:.0f} MB a worker at most"
    )
    return requests / done["seconds"], cost


def _migrated(dsn: str) -> bool:
    return bool(rig.count(dsn, "SELECT (to_regclass('dashboard_facts') IS NOT NULL)::int"))


def pgqueuer_rate(dsn: str, agent_port: int, requests: int, batch: int) -> float:
    """Jobs a second that pgqueuer's two workers drain."""
    asyncio.run(pgqueuer_worker.prepare(dsn, requests))
    agent = f"http://127.0.0.1:{agent_port}/webhooks/chatwoot"
    command = [sys.executable, "-m", "tests.benchmarks.pgqueuer_worker", dsn, agent, str(batch)]
    began = time.perf_counter()
    workers = [subprocess.Popen(command, cwd=rig.ROOT) for _ in range(WORKERS)]
    while rig.count(dsn, "SELECT count(*) FROM pgqueuer") == requests:  # starting up is not draining
        began = time.perf_counter()
        time.sleep(0.01)
    left_at_start = rig.count(dsn, "SELECT count(*) FROM pgqueuer")
    while rig.count(dsn, "SELECT count(*) FROM pgqueuer"):
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    for worker in workers:
        assert worker.wait(60) == 0
    rig.count(dsn, "WITH gone AS (DELETE FROM pgqueuer_log RETURNING 1) SELECT count(*) FROM gone")
    return left_at_start / seconds


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {}
    with rig.postgres() as relay_dsn, rig.agent() as agent_port, contextlib.ExitStack():
        rig.count(relay_dsn, "SELECT 1")
        _create_database(relay_dsn, "pgqueuer_bench")
        queue_dsn = relay_dsn.replace("/postgres?", "/pgqueuer_bench?")
        for number in range(options.rounds):
            rate, cost = relay_rate(relay_dsn, agent_port, options.requests)
            rates.setdefault("relay", []).append(rate)
            print(f"round {number + 1}: relay                {rate:7.0f}/s  ({cost})", flush=True)
            for batch in PGQUEUER_BATCHES:
                rate = pgqueuer_rate(_fresh(queue_dsn), agent_port, options.requests, batch)
                rates.setdefault(f"pgqueuer, batch {batch}", []).append(rate)
                print(f"round {number + 1}: pgqueuer, batch {batch:<4} {rate:7.0f}/s", flush=True)
    print(f"\n{'':22}{'median/s':>10}{'ratio':>8}")
    ours = statistics.median(rates["relay"])
    for name, values in rates.items():
        median = statistics.median(values)
        print(f"{name:22}{median:10.0f}{ours / median:8.2f}")


def _create_database(dsn: str, name: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())


def _fresh(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return dsn


if __name__ == "__main__":
    main()
