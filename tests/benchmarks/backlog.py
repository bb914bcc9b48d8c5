"""What a backlog costs: live traffic beside it, its drain, claims and reads, with ever more deliveries that wait.

Deliveries wait four to a conversation, in order. "Live" is what the relay stores, forwards and finishes from 64
connections while none of those that wait is due; "drain" is what it finishes a second, from its start on, when all of
them may go; the rest are medians of single statements. Every size has a database of its own on the same server.
`python -m tests.benchmarks.backlog [--waiting N …] [--seconds S] [--requests N]`
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import uvloop

from relay.domain.delivery import State
from relay.store import backlog, browse, overview
from relay.store.claims import claim_backlog
from relay.store.database import connection_parameters
from relay.store.filters import compile_filter
from relay.store.migrate import migrate
from tests.benchmarks import rig
from tests.benchmarks.growth import median_ms
from tests.benchmarks.load import webhook_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from relay.store.database import Connection

WAITING = (0, 10_000, 1_000_000)
WORKERS, CONNECTIONS = 2, 64
_IN_A_CONVERSATION = 4
_CHUNK = 100_000
_DELIVERIES = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, event, conversation_id, customer, received_at,
           since, headers, body, conversation_key, position, blocked, waits, next_attempt_at, tries, attempts)
    SELECT gen_random_uuid(), CASE WHEN %(due)s OR n %% %(each)s > 0 THEN 'received' ELSE 'waiting' END,
           gen_random_uuid(), false, 'message_created', (n / %(each)s)::text, true,
           now() - interval '1 hour' + n * interval '1 ms',
           CASE WHEN %(due)s THEN now() - interval '1 second' ELSE now() + interval '1 hour' END,
           '[["content-type", "application/json"]]', %(body)s, '1/' || n / %(each)s, 1 + n %% %(each)s,
           n %% %(each)s > 0,
           CASE WHEN n %% %(each)s > 0 THEN 'order' WHEN %(due)s THEN 'capacity' ELSE 'retry' END,
           CASE WHEN NOT %(due)s AND n %% %(each)s = 0 THEN now() + interval '1 hour' END, 0, 0
      FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
"""
_CONVERSATIONS = """
    INSERT INTO relay.conversations (key, issued, head)
    SELECT '1/' || n, %(each)s, 1 FROM generate_series(0, %(number)s::bigint / %(each)s - 1) AS n
"""


def plant(dsn: str, number: int, *, due: bool) -> None:
    """`number` deliveries that wait: due now, or their conversations' heads in a retry wait of an hour.

    That wait begins in an hour. After a minute of it the heads would release order, and the next deliveries of their
    conversations would be forwarded, which is no wait any more.
    """
    given = {"each": _IN_A_CONVERSATION, "number": number, "due": due, "body": webhook_body()}
    with psycopg.connect(dsn, autocommit=True) as connection:
        for first in range(0, number, _CHUNK):
            connection.execute(_DELIVERIES, given | {"first": first, "last": min(first + _CHUNK, number) - 1})
        connection.execute(_CONVERSATIONS, given)
        connection.execute("VACUUM ANALYZE")


async def reads(dsn: str) -> dict[str, float]:
    """What claims and the console's reads take, in ms. Claims are rolled back."""
    async with await psycopg.AsyncConnection.connect(
        autocommit=True, **connection_parameters(dsn, "backlog")
    ) as connection:
        return {f"{name}, ms": await median_ms(work, runs=15) for name, work in _works(connection).items()}


def _works(connection: Connection) -> dict[str, Callable[[], Awaitable[Any]]]:
    everything, owner = compile_filter(""), uuid4()

    async def claim() -> None:
        async with connection.transaction(force_rollback=True):
            await claim_backlog(connection, owner, most=64, most_bytes=1 << 30)

    return {
        "claim 64": claim,
        "backlog by reason": lambda: backlog.read(connection),
        "overview": lambda: overview.read(connection),
        "list of those that wait": lambda: browse.window(
            connection, everything, states=(State.RECEIVED, State.WAITING)
        ),
    }


def live(dsn: str, agent_port: int, requests: int) -> dict[str, float]:
    """Deliveries a second beside what waits, their p99, and a worker's memory."""
    with rig.relay(dsn, agent_port, workers=WORKERS) as (port, process):
        rig.send(port, CONNECTIONS, max(200, requests // 10))
        sent = rig.send(port, CONNECTIONS, requests)
        return {
            "live, /s": requests / sent["seconds"],
            "live p99, ms": sent["p99_ms"],
            "memory, MB": rig.memory_mb(process),
        }


def drain(dsn: str, agent_port: int, seconds: float) -> float:
    """How many of those that wait are finished a second, over `seconds` or until none is left."""
    unfinished = "SELECT count(*) FROM relay.deliveries WHERE state IN ('received', 'waiting', 'forwarding')"
    before = rig.count(dsn, unfinished)
    with rig.relay(dsn, agent_port, workers=WORKERS):
        began = time.perf_counter()
        first = rig.count(dsn, unfinished)
        while (left := rig.count(dsn, unfinished)) and time.perf_counter() - began < seconds:
            time.sleep(0.2)
        took = time.perf_counter() - began
    print(f"drained {before - left:,} of {before:,}", file=sys.stderr, flush=True)
    return (first - left) / took


def measure(server: str, agent_port: int, number: int, *, requests: int, seconds: float) -> dict[str, float]:
    """Every figure with `number` deliveries waiting."""
    figures: dict[str, float] = {}
    for name, due in (("waits", False), ("due", True)):
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {name}".encode())
        dsn = server.replace("/postgres?", f"/{name}?")
        asyncio.run(migrate(dsn))
        plant(dsn, number, due=due)
        if due:
            figures |= uvloop.run(reads(dsn))
            if number:
                figures["drain, /s"] = drain(dsn, agent_port, seconds)
        else:
            figures |= live(dsn, agent_port, requests)
    return figures


def main() -> None:
    """Plant, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, nargs="+", default=list(WAITING))
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    with rig.postgres() as dsn, rig.agent() as agent_port:
        table = [
            measure(dsn, agent_port, number, requests=given.requests, seconds=given.seconds) for number in given.waiting
        ]
    print(f"| with so many waiting | {' | '.join(f'{number:,}' for number in given.waiting)} |")
    print(f"| --- |{' ---: |' * len(table)}")
    for name in dict.fromkeys(name for figures in table for name in figures):
        first = table[0].get(name)
        cells = []
        for at, figures in enumerate(table):
            value = figures.get(name)
            ratio = f" ({value / first:.2f} ×)" if value is not None and first and at else ""
            cells.append("–" if value is None else f"{value:,.1f}{ratio}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
