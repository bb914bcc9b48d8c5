"""An hour without the agent at 50 webhooks a second, the circuit breaker on, and the drain afterwards.

Time is compressed: the hour's webhooks are sent as fast as the relay stores them, while connections to the agent are
refused. Then the agent is back, and live traffic continues beside the drain at its usual rate. "Live" is how long a
sender waits for the answer, 200 or 202, "meanwhile" from the first delivery that is drained to the last.
`python -m tests.benchmarks.outage [--seconds N] [--rate N] [--in-flight N]`
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import TYPE_CHECKING

import psycopg
import uvloop
from psycopg.rows import dict_row

from tests.benchmarks import rig
from tests.benchmarks.latency import Client
from tests.benchmarks.load import percentile
from tests.servers import free_port

if TYPE_CHECKING:
    from typing import Any

WORKERS, CONNECTIONS = 2, 64
_LIVE_S = 30
_PATIENCE_S = 900
_UNFINISHED = """
    SELECT EXISTS (SELECT FROM relay.deliveries WHERE state IN ('received', 'waiting', 'forwarding') AND id <= {until})
"""
_NEWEST = "SELECT coalesce(max(id), 0) FROM relay.deliveries"
_DRAIN = """
    SELECT count(*) AS number, count(*) FILTER (WHERE state = 'delivered') AS delivered,
           count(*) FILTER (WHERE state = 'dead') AS dead,
           extract(epoch FROM min(finished_at))::float8 AS first, extract(epoch FROM max(finished_at))::float8 AS last,
           (count(*) / 2 / extract(epoch FROM max(finished_at)
                                   - percentile_disc(0.5) WITHIN GROUP (ORDER BY finished_at)))::float8 AS second_half
      FROM relay.deliveries WHERE id > %(after)s AND id <= %(until)s
"""


async def live(port: int, rate: int, over: asyncio.Event) -> list[tuple[float, float]]:
    """`rate` webhooks a second until it is `over`: when each was due, as time of day, and what its answer took."""
    client, began = Client(port, rig.WEBHOOKS, (b"200", b"202")), time.perf_counter()
    offset, posts = time.time() - began, []
    while not over.is_set():
        due = began + len(posts) / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        posts.append((offset + due, asyncio.create_task(client.post(due))))
    answers = [(at, await post) for at, post in posts]
    client.close()
    return answers


async def live_for(port: int, rate: int, seconds: float) -> list[float]:
    """What the answers to `rate` webhooks a second took, for so long."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    return [took for _, took in await live(port, rate, over)]


async def live_until_drained(port: int, rate: int, dsn: str, until: int) -> list[tuple[float, float]]:
    """As `live`, until every delivery up to the row `until` is finished."""
    over = asyncio.Event()
    running = asyncio.create_task(live(port, rate, over))
    began = time.monotonic()
    while await asyncio.to_thread(rig.count, dsn, _UNFINISHED.format(until=until)):
        assert time.monotonic() - began < _PATIENCE_S, "the backlog does not drain"
        await asyncio.sleep(0.5)
    over.set()
    return await running


def measure(dsn: str, *, rate: int, seconds: int, **env: str) -> dict[str, str]:
    """Every figure of the table."""
    agent_port, number = free_port(), rate * seconds
    with rig.relay(dsn, agent_port, workers=WORKERS, RELAY_BREAKER="on", **env) as (port, process):
        with rig.agent(agent_port):
            before = uvloop.run(live_for(port, rate, _LIVE_S))
        after = rig.count(dsn, _NEWEST)
        away = rig.send(port, CONNECTIONS, number)
        until = rig.count(dsn, _NEWEST)
        print(f"{number:,} sent in {away['seconds']:.0f} s: {away['statuses']}", file=sys.stderr, flush=True)
        with rig.agent(agent_port):
            back_at = time.time()
            answers = uvloop.run(live_until_drained(port, rate, dsn, until))
            memory = rig.memory_mb(process)
        drained = _drained(dsn, after, until)
    refused = sum(count for status, count in away["statuses"].items() if status not in {"200", "202"})
    meanwhile = [took for at, took in answers if drained["first"] <= at <= drained["last"]]
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
        "… per s of the second half of them": f"{drained['second_half']:,.0f}",
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
    parser.add_argument("--in-flight", type=int, help="RELAY_MAX_IN_FLIGHT, if not its default")
    given = parser.parse_args()
    env = {} if given.in_flight is None else {"RELAY_MAX_IN_FLIGHT": str(given.in_flight)}
    with rig.postgres() as dsn:
        table = measure(dsn, rate=given.rate, seconds=given.seconds, **env)
    print("| | measured |\n| --- | ---: |")
    for name, value in table.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
