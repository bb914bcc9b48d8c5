"""What each read and each write costs at ten thousand, a million and ten million facts, with 1 and 100,000 open dead
letters.

Facts are spread over 30 days and loaded by COPY, each size over the same 10,000 minutes, so that the same number of
minutes is shown; with `--spread` evenly. The deliveries are as many as the facts, up to a million.
CPU time of this process and of its session in Postgres, the mean of many runs on one connection, as the programs make
them: waiting for other processes, for the disk and for locks is not in it.
`python -m tests.benchmarks.growth [--facts N …]`
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import uvloop

from relay.domain.delivery import State
from relay.store import browse, log, overview
from relay.store.database import connection_parameters
from relay.store.deliveries import Claimed
from relay.store.filters import compile_filter
from relay.store.finishing import finish as finish_all
from relay.store.migrate import migrate
from relay.store.storing import store
from tests.benchmarks import rig
from tests.store.values import finish_of, incoming, outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.store.database import Connection

FACTS = (10_000, 1_000_000, 10_000_000)
DEAD_LETTERS = (1, 100_000)
RUNS = 40
_CHUNK = 500_000
_MOST_DELIVERIES = 1_000_000
_MINUTES = 10_000
_FACTS = """
    COPY (SELECT 'support.webhook.retry', 'support',
                 jsonb_build_object('attempts', 1 + n %% 3, 'success', n %% 20 > 0, 'durationMs', n %% 3000,
                                    'finalStatus', CASE WHEN n %% 20 > 0 THEN '200' ELSE '503' END),
                 jsonb_build_object('deliveryId', n::text, 'event', 'message_created', 'conversationId', n %% 5000),
                 {at}
            FROM generate_series({first}::bigint, {last}::bigint) AS n) TO STDOUT
""".replace("%%", "%")
_EVENLY = "now() - ({total} - n) * interval '30 days' / {total}"
_IN_MINUTES = f"""
    date_trunc('minute', now() - ({_MINUTES + 1} - n * {_MINUTES} / {{total}}) * interval '30 days' / {_MINUTES})
        + n * 7919 % 60 * interval '1 s'
"""
_DELIVERIES = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, event, conversation_id, customer, received_at,
           finished_at, attempts, duration_ms, final_status, last_error, headers, body)
    SELECT gen_random_uuid(), %(state)s, gen_random_uuid(), false,
           (ARRAY['message_created', 'message_updated', 'conversation_status_changed'])[1 + n %% 3], (n %% 5000)::text,
           true, now() - n * interval '1 s', now() - n * interval '1 s', 3, 700,
           CASE WHEN %(state)s = 'dead' THEN (ARRAY['503', '429', 'timeout'])[1 + n %% 3] ELSE '200' END,
           CASE WHEN %(state)s = 'dead' THEN (ARRAY['Agent SDK answered 503', 'Agent SDK is rate limiting (429)',
                'Agent SDK did not answer within 30 s'])[1 + n %% 3] END, '[["content-type", "application/json"]]',
           convert_to('{"event": "message_created", "id": ' || n || '}', 'UTF8')
      FROM generate_series(1, %(number)s) AS n
"""
_LINES = """
    INSERT INTO relay.log (instance, at, level, scope, message, fields)
    SELECT gen_random_uuid(), now(), 'info', 'support.webhook', 'Forwarding Chatwoot webhook', '{"attempt": 1}'
      FROM generate_series(1, %(number)s) AS n
"""


def plant_facts(dsn: str, total: int, *, spread: bool = True) -> None:
    """`total` retry facts over 30 days, by COPY in chunks: evenly if `spread`, else over 10,000 of the minutes."""
    at = (_EVENLY if spread else _IN_MINUTES).format(total=total)
    with psycopg.connect(dsn, autocommit=True) as source, psycopg.connect(dsn, autocommit=True) as target:
        for first in range(1, total + 1, _CHUNK):
            last = min(first + _CHUNK - 1, total)
            statement = _FACTS.format(at=at, first=first, last=last)
            into = "COPY dashboard_facts (fact_type, scope, value, metadata, recorded_at) FROM STDIN"
            with source.cursor().copy(statement.encode()) as out, target.cursor().copy(into.encode()) as rows:
                for block in out:
                    rows.write(block)
        target.execute("VACUUM ANALYZE")


def plant_deliveries(dsn: str, state: str, number: int) -> None:
    """`number` deliveries in `state`, the newest now, a second apart."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_DELIVERIES, {"state": state, "number": number})
        connection.execute("VACUUM ANALYZE relay.deliveries")


def _cpu_ms(session: int) -> float:
    """CPU time so far, of this process and of a session's process on this machine."""
    server_ns = int(Path(f"/proc/{session}/schedstat").read_text(encoding="ascii").split()[0])
    return 1000 * time.process_time() + server_ns / 1_000_000


async def mean_ms(work: Callable[[], Awaitable[Any]], session: int, runs: int = RUNS) -> float:
    """The CPU time that `work` takes, after it has been done a few times."""
    for _ in range(6):
        await work()
    began = _cpu_ms(session)
    for _ in range(runs):
        await work()
    return (_cpu_ms(session) - began) / runs


async def measure(dsn: str) -> dict[str, float]:
    """Every figure, in ms of CPU."""
    async with await psycopg.AsyncConnection.connect(
        autocommit=True, **connection_parameters(dsn, "growth")
    ) as connection:
        session = connection.info.backend_pid
        return {name: await mean_ms(work, session) for name, work in _works(connection).items()}


def _works(connection: Connection) -> dict[str, Callable[[], Awaitable[Any]]]:
    everything, some = compile_filter(""), compile_filter("error:503 conv:1000")
    owner, dead = uuid4(), (State.DEAD,)

    async def finish() -> None:
        (claimed,) = await store(connection, owner, [incoming()])
        assert isinstance(claimed, Claimed)
        assert await finish_all(connection, [finish_of(claimed, outcome("200"))])

    return {
        "overview": lambda: overview.read(connection),
        "dead letters, first page": lambda: browse.window(connection, everything, states=dead),
        "dead letters, filtered": lambda: browse.window(connection, some, states=dead),
        "failure groups": lambda: browse.groups(connection),
        "log tail": lambda: log.before(connection, None, 40),
        "store and finish one": finish,
    }


def main() -> None:
    """Plant, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, nargs="+", default=list(FACTS))
    parser.add_argument("--spread", action="store_true", help="spread the facts evenly over the 30 days")
    given = parser.parse_args()
    sizes = given.facts
    figures: dict[str, list[float]] = {}
    for facts in sizes:
        with rig.postgres() as dsn:
            asyncio.run(migrate(dsn))
            began = time.perf_counter()
            plant_facts(dsn, facts, spread=given.spread)
            plant_deliveries(dsn, "delivered", min(facts, _MOST_DELIVERIES))
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(_LINES, {"number": min(facts, 50_000)})
            print(f"{facts:,} facts in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
            for number in DEAD_LETTERS:
                plant_deliveries(dsn, "dead", number - (DEAD_LETTERS[0] if number > 1 else 0))
                for name, took in uvloop.run(measure(dsn)).items():
                    figures.setdefault(name, []).append(took)
    print(f"| CPU ms | dead letters | {' | '.join(f'{facts:,} facts' for facts in sizes)} |")
    print(f"| --- | ---: |{' ---: |' * len(sizes)}")
    for name, row in figures.items():
        for at, number in enumerate(DEAD_LETTERS):
            took = row[at :: len(DEAD_LETTERS)]
            cells = [f"{took[0]:.1f}", *(f"{value:.1f} ({value / took[0]:.2f} ×)" for value in took[1:])]
            print(f"| {name} | {number:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
