"""What is left of the throughput of good webhooks while the agent never answers a tenth of all.

The same relay, with and without, in turns. `python -m tests.benchmarks.hanging [--requests N] [--rounds N]`
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from tests.benchmarks import rig

CONNECTIONS = 64
DEADLINE_S = 4.5
"""After so long the relay answers a hanging one with 202, and its sender sends the next."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ratios = []
    for number in range(options.rounds):
        with rig.postgres() as dsn, rig.agent() as agent_port, rig.relay(dsn, agent_port, workers=2) as (port, _):
            rig.send(port, CONNECTIONS, 2_000)
            normal = _rate(port, options.requests)
            hanging = int(normal / 9)  # a second; one in ten of all
            senders = int(hanging * DEADLINE_S)
            load = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.load", str(port), rig.WEBHOOKS, str(senders),
                 str(senders * 2), "hang-"],
                cwd=rig.ROOT, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(1)
            beside = _rate(port, options.requests)
            in_flight = rig.count(dsn, "SELECT count(*) FROM relay.deliveries WHERE state = 'forwarding'")
            ratios.append(beside / normal)
            print(
                f"round {number + 1}: {normal:,.0f}/s alone, {beside:,.0f}/s beside {in_flight:,} that hang:"
                f" {ratios[-1]:.0%}",
                flush=True,
            )
            load.terminate()
            load.wait()
    print(f"median {statistics.median(ratios):.0%} (goal 80 %)")


def _rate(port: int, requests: int) -> float:
    done = rig.send(port, CONNECTIONS, requests)
    assert done["statuses"] == {"200": requests}, done["statuses"]
    return requests / float(done["seconds"])


if __name__ == "__main__":
    main()
