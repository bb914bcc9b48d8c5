"""How fast dead letters are replayed when nothing limits it, and what live traffic feels of it.

`python -m tests.benchmarks.replay [--dead-letters N]`
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time

import psycopg
import uvloop

from relay.store.migrate import migrate
from tests.benchmarks import rig
from tests.benchmarks.latency import timetable
from tests.benchmarks.load import percentile, webhook_body

LIVE_RATE = 50
PLANT = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, event, conversation_id, customer, received_at,
           finished_at, attempts, duration_ms, final_status, last_error, headers, body)
    SELECT gen_random_uuid(), 'dead', gen_random_uuid(), false, 'message_created', n::text, true, now(), now(), 3, 700,
           '503', 'Agent SDK answered 503', '[["content-type", "application/json"]]', %(body)s
      FROM generate_series(1, %(number)s) AS n
"""


def main() -> None:
    """Plant, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dead-letters", type=int, default=10_000)
    number = parser.parse_args().dead_letters
    with rig.postgres() as dsn, rig.agent() as agent_port:
        asyncio.run(migrate(dsn))
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(PLANT, {"number": number, "body": webhook_body()})
            connection.execute("VACUUM ANALYZE")
        with rig.relay(dsn, agent_port, workers=2) as (port, _):
            before = uvloop.run(timetable(port, rig.WEBHOOKS, LIVE_RATE, 10))
            command = [sys.executable, "-m", "relay", "replay", "--yes", "--rate", "0", "--canary", "0", "--json"]
            began = time.perf_counter()
            replaying = subprocess.Popen(command, cwd=rig.ROOT, env=rig.environment(dsn), stdout=subprocess.DEVNULL)
            meanwhile: list[float] = []
            while replaying.poll() is None:
                meanwhile += uvloop.run(timetable(port, rig.WEBHOOKS, LIVE_RATE, 1))
            assert replaying.returncode == 0
            seconds = rig.count(
                dsn, "SELECT 1000 * extract(epoch FROM finished_at - started_at) FROM relay.replay_plans"
            ) / 1000  # fmt: skip
            delivered = rig.count(dsn, "SELECT delivered FROM relay.replay_plans")
    assert delivered == number, f"{delivered:,} of {number:,} were delivered"
    print(f"{number:,} dead letters replayed in {seconds:.1f} s: {number / seconds:,.0f}/s (goal 500)")
    print(f"the command: {time.perf_counter() - began:.1f} s, with its start and its last check")
    for name, took in ((f"live traffic at {LIVE_RATE}/s before", before), ("meanwhile", meanwhile)):
        print(f"{name}: p50 {1000 * percentile(took, 0.5):.1f} ms, p99 {1000 * percentile(took, 0.99):.1f} ms")
    print(f"p99 ratio {percentile(meanwhile, 0.99) / percentile(before, 0.99):.2f} (goal 2)")


if __name__ == "__main__":
    main()
