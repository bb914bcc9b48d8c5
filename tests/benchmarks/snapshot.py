"""An hour's webhooks at 20 a second while a transaction holds a snapshot, so that no dead row can be removed.

They are sent as fast as the relay takes them, in parts: dead rows count, not time. "Before" and "after" are parts of
the same size without the snapshot. `python -m tests.benchmarks.snapshot [--webhooks N] [--parts N]`
"""

from __future__ import annotations

import argparse

import psutil
import psycopg

from tests.benchmarks import rig

WORKERS, CONNECTIONS = 2, 32
_DEAD = """
    SELECT string_agg(format('%s %s', relname, n_dead_tup), ', ' ORDER BY n_dead_tup DESC)
      FROM (SELECT relname, n_dead_tup FROM pg_stat_user_tables ORDER BY n_dead_tup DESC LIMIT 4) AS most
"""


def _servers_cpu(dsn: str) -> float:
    """CPU seconds of the Postgres at `dsn` and of its sessions so far, those that ended included."""
    with psycopg.connect(dsn) as connection:
        server = psutil.Process(connection.info.backend_pid).parent()
        assert server is not None
        family = [server, *server.children()]
        return sum(sum(one.cpu_times()[:2]) for one in family) + sum(server.cpu_times()[2:4])


def part(dsn: str, port: int, number: int, name: str) -> None:
    """Send `number` webhooks and print what they took."""
    before, sent = _servers_cpu(dsn), rig.send(port, CONNECTIONS, number)
    cpu = (_servers_cpu(dsn) - before) / number * 1000
    with psycopg.connect(dsn, autocommit=True) as connection:
        dead = connection.execute(_DEAD.encode()).fetchone()
    print(
        f"| {name} | {number / sent['seconds']:.0f} | {sent['p50_ms']:.1f} | {sent['p99_ms']:.1f} | {cpu:.2f} | "
        f"{dead and dead[0]} |",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--webhooks", type=int, default=72_000)
    parser.add_argument("--parts", type=int, default=12)
    given = parser.parse_args()
    number = given.webhooks // given.parts
    print("| | per s | p50 ms | p99 ms | Postgres's CPU s / 1,000 | most dead rows |")
    print("| --- | ---: | ---: | ---: | ---: | --- |", flush=True)
    with rig.postgres() as dsn, rig.agent() as agent, rig.relay(dsn, agent, workers=WORKERS) as (port, _):
        for one in range(2):
            part(dsn, port, number, f"before, {one + 1}")
        with psycopg.connect(dsn) as holding:
            holding.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holding.execute("SELECT count(*) FROM relay.instances")
            for one in range(given.parts):
                part(dsn, port, number, f"{(one + 1) * number:,} with the snapshot")
        for one in range(2):
            part(dsn, port, number, f"after, {one + 1}")


if __name__ == "__main__":
    main()
