"""An hour without the agent at 50 webhooks a second, the circuit breaker on, and the drain afterwards.

Time is compressed: the hour's webhooks are sent as fast as the relay stores them, while connections to the agent are
refused. Then the agent is back, and live traffic continues beside the drain at its usual rate. "Live" is how long a
sender waits for the answer, 200 or 202, "meanwhile" from the first delivery that is drained to the last.
`python -m tests.benchmarks.outage [--seconds N] [--rate N]`
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

import psycopg
import uvloop
from psycopg.rows import dict_row

from tests.benchmarks import rig
from tests.benchmarks.latency import timetable
from tests.benchmarks.load import percentile
from tests.servers import free_port

if TYPE_CHECKING:
    from typing import Any

WORKERS, CONNECTIONS = 2, 64
_LIVE_S = 30
_STEP_S = 2
_PATIENCE_S = 900
_UNFINISHED = "SELECT count(*) FROM relay.deliveries WHERE state IN ('received', 'waiting', 'forwarding')"
_NEWEST = "SELECT coalesce(max(id), 0) FROM relay.deliveries"
_DRAIN = """
    SELECT count(*) AS number, count(*) FILTER (WHERE state = 'delivered') AS delivered,
           count(*) FILTER (WHERE state = 'dead') AS dead,
           extract(epoch FROM min(finished_at))::float8 AS first, extract(epoch FROM max(finished_at))::float8 AS last
      FROM relay.deliveries WHERE id > %(after)s AND id <= %(until)s
"""


def live(port: int, rate: int, seconds: float) -> list[float]:
    """What the answers to `rate` webhooks a second took."""
    return uvloop.run(timetable(port, rig.WEBHOOKS, rate, seconds, statuses=(b"200", b"202")))


def measure(dsn: str, *, rate: int, seconds: int) -> dict[str, str]:
    """Every figure of the table."""
    agent_port, number = free_port(), rate * seconds
    with rig.relay(dsn, agent_port, workers=WORKERS, RELAY_BREAKER="on") as (port, process):
        with rig.agent(agent_port):
            before = live(port, rate, _LIVE_S)
        after = rig.count(dsn, _NEWEST)
        away = rig.send(port, CONNECTIONS, number)
        until = rig.count(dsn, _NEWEST)
        print(f"{number:,} sent in {away['seconds']:.0f} s: {away['statuses']}", file=sys.stderr, flush=True)
        with rig.agent(agent_port):
            back_at, began = time.time(), time.monotonic()
            steps: list[tuple[float, list[float]]] = []
            while left := rig.count(dsn, _UNFINISHED):
                assert time.monotonic() - began < _PATIENCE_S, f"{left:,} are still not finished"
                steps.append((time.time(), live(port, rate, _STEP_S)))
            memory = rig.memory_mb(process)
        drained = _drained(dsn, after, until)
    refused = sum(count for status, count in away["statuses"].items() if status not in {"200", "202"})
    meanwhile = [one for at, step in steps if at >= drained["first"] for one in step]
    took = drained["last"] - drained["first"]
    ratio = percentile(meanwhile, 0.99) / percentile(before, 0.99)
    return {
        "webhooks sent while the agent was away": f"{number:,}",
        "refused": f"{refused:,}",
        "dead": f"{drained['dead']:,}",
        "delivered afterwards": f"{drained['delivered']:,}",
        "from the agent's return to the first of them": f"{drained['first'] - back_at:.1f} s",
        "from the first to the last": f"{took:.1f} s",
        "drained, per s": f"{drained['delivered'] / took:,.0f}",
        "live p50 before; meanwhile": _pair(before, meanwhile, 0.5),
        "live p99 before; meanwhile": f"{_pair(before, meanwhile, 0.99)} ({ratio:.2f} ×)",
        "memory of a worker": f"{memory:.0f} MB",
    }


def _pair(before: list[float], meanwhile: list[float], share: float) -> str:
    return "; ".join(f"{1000 * percentile(took, share):.1f} ms" for took in (before, meanwhile))


def _drained(dsn: str, after: int, until: int) -> dict[str, Any]:
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        row = connection.execute(_DRAIN, {"after": after, "until": until}).fetchone()
    assert row is not None
    return row


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3_600)
    parser.add_argument("--rate", type=int, default=50)
    given = parser.parse_args()
    with rig.postgres() as dsn:
        table = measure(dsn, rate=given.rate, seconds=given.seconds)
    print("| | measured |\n| --- | ---: |")
    for name, value in table.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
