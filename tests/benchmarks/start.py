"""From starting `relay serve` to the first healthy answer, on an embedded database that is there already.

`python -m tests.benchmarks.start [--rounds N]`
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from tests.benchmarks import rig
from tests.servers import free_port, wait_until_healthy

GOAL_S = 1.5


def start_s(env: dict[str, str]) -> float:
    """Seconds from exec to ready; ends the relay again."""
    port = free_port()
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "relay", "serve"], cwd=rig.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | env | {"RELAY_BIND": f"127.0.0.1:{port}", "AGENT_SDK_URL": "http://127.0.0.1:9"},
    )  # fmt: skip
    try:
        wait_until_healthy(port)
        return time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(40)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="relay-bench-", ignore_cleanup_errors=True) as folder:
        env = {"RELAY_DATA_DIR": folder}
        first = start_s(env)
        starts = sorted(start_s(env) for _ in range(rounds))
    print(f"first start, making the database: {first:.2f} s")
    print(f"start on it: median {statistics.median(starts):.2f} s, worst {starts[-1]:.2f} s (goal {GOAL_S} s)")


if __name__ == "__main__":
    main()
