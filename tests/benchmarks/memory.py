"""What a relay's memory does over 100,000 deliveries: `python -m tests.benchmarks.memory [--deliveries N]`.

One worker, 64 connections, the cheapest agent. Prints the resident set of the largest relay process after each
tenth, and exits with 1 if it ever was above the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from relay.store.migrate import migrate
from tests.benchmarks import rig

LIMIT_MB = 150
CONNECTIONS = 64


def main() -> int:
    """Measure and print; 0 if the limit was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=100_000)
    wanted = parser.parse_args().deliveries
    with rig.postgres() as dsn, rig.agent() as agent_port:
        asyncio.run(migrate(dsn))
        with rig.relay(dsn, agent_port, workers=1) as (port, process):
            readings = [rig.memory_mb(process)]
            print(f"{0:>9,} deliveries  {readings[0]:6.1f} MB", flush=True)
            for tenth in range(1, 11):
                part = wanted * tenth // 10 - wanted * (tenth - 1) // 10
                sent = rig.send(port, CONNECTIONS, part)
                assert sent["statuses"] == {"200": part}, sent["statuses"]
                readings.append(rig.memory_mb(process))
                rate = part / sent["seconds"]
                print(f"{wanted * tenth // 10:>9,} deliveries  {readings[-1]:6.1f} MB  {rate:6,.0f}/s", flush=True)
        delivered = rig.count(dsn, "SELECT count(*) FROM relay.deliveries WHERE state = 'delivered'")
    assert delivered == wanted, f"{delivered:,} of {wanted:,} are delivered"
    peak = max(readings)
    kept = peak < LIMIT_MB
    print(f"peak {peak:.1f} MB, {'under' if kept else 'NOT under'} {LIMIT_MB} MB; all {delivered:,} delivered")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
