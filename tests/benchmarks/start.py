"""What starting costs, in CPU seconds (user and system, children included), and how much is loaded and installed.

`python -m tests.benchmarks.start [--rounds N]`: medians. Wall time says little on a machine that others use. The
bytecode is cached beforehand, as it is in an installed package.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from packaging.requirements import Requirement

from tests.benchmarks import rig
from tests.servers import free_port, wait_until_healthy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_COMPLETES = {"_RELAY_COMPLETE": "bash_complete", "COMP_WORDS": "relay st", "COMP_CWORD": "1"}
ENDING: dict[str, tuple[float | None, dict[str, str], tuple[str, ...]]] = {
    "relay --version": (None, {}, ("relay", "--version")),
    "relay --help": (None, {}, ("relay", "--help")),
    "completion of a word": (None, _COMPLETES, ("relay",)),
    "relay status --help": (None, {}, ("relay", "status", "--help")),
    "relay status": (0.25, {}, ("relay", "status")),
    "console --version": (None, {}, ("console", "--version")),
    "console, until it shows figures": (None, {}, ("console", "--timing")),
}
"""Programs that end by themselves: the goal in CPU seconds, variables, arguments."""

SERVING = {
    "relay serve, until ready": (0.7, ("relay", "serve")),
    "relay agent serve, until ready": (0.5, ("relay", "agent", "serve")),
}
_MIB = 1 << 20


def _environment(folder: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return inherited | {
        "RELAY_DATA_DIR": folder, "PYTHONPYCACHEPREFIX": f"{folder}/bytecode", "AGENT_SDK_URL": "http://127.0.0.1:9",
        "CHATWOOT_BASE_URL": "http://127.0.0.1:9", "CHATWOOT_API_KEY": "key", "CHATWOOT_ACCOUNT_ID": "1",
    }  # fmt: skip


def ended_s(arguments: Sequence[str], env: dict[str, str]) -> float:
    """CPU seconds of a program that ends by itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=rig.ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def ready(arguments: Sequence[str], env: dict[str, str], rest_s: float = 0) -> tuple[float, float, int]:
    """CPU and wall seconds until the first healthy answer, and the bytes of memory `rest_s` later. Ends the program."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=rig.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=env | {"RELAY_BIND": address, "AGENT_BIND": address},
    )  # fmt: skip
    try:
        wait_until_healthy(port)
        waited, measured = time.perf_counter() - began, psutil.Process(process.pid)
        cpu = sum(measured.cpu_times()[:4])
        time.sleep(rest_s)
        return cpu, waited, measured.memory_full_info().uss
    finally:
        process.terminate()
        process.wait(40)


def _installed(requirement: str, extras: frozenset[str], found: dict[str, int]) -> None:
    """Add the size of a package and of what it needs, by name."""
    parsed = Requirement(requirement)
    if parsed.marker and not any(parsed.marker.evaluate({"extra": extra}) for extra in extras or {""}):
        return
    try:
        package = distribution(parsed.name)
    except PackageNotFoundError:
        return
    wanted, name = frozenset(parsed.extras), parsed.name.lower().replace("_", "-")
    if name not in found or wanted:
        files = (Path(str(package.locate_file(file))) for file in package.files or [])
        found[name] = sum(file.stat().st_size for file in files if file.is_file())
        for needed in package.requires or []:
            _installed(needed, wanted, found)


def package_bytes(extra: str) -> int:
    """What the image adds to its base: the package with an extra, and all that these need, without bytecode."""
    found: dict[str, int] = {}
    _installed(f"hotdash-relay[{extra}]", frozenset(), found)
    files = [path for folder in ("relay", "console") for path in (rig.ROOT / folder).rglob("*.*")]
    own = sum(path.stat().st_size for path in files if "__pycache__" not in path.parts)
    return own + sum(found.values())


def _row(name: str, goal: float | None, measure: Callable[[], float], rounds: int) -> None:
    measure()  # writes the bytecode
    taken = sorted(measure() for _ in range(rounds))
    shown = "–" if goal is None else f"{goal:.2f}"
    print(f"| {name} | {statistics.median(taken):.3f} | {taken[0]:.3f} | {shown} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="relay-bench-", ignore_cleanup_errors=True) as folder:
        env = _environment(folder)
        first = ready(SERVING["relay serve, until ready"][1], env)
        subprocess.run([sys.executable, "-m", "relay", "dsn"], cwd=rig.ROOT, env=env, check=True, capture_output=True)
        try:
            print(f"first start, making the database: {first[1]:.2f} s\n")
            print("| CPU s | median | least | goal |\n| --- | ---: | ---: | ---: |")
            for name, (goal, variables, arguments) in ENDING.items():
                _row(name, goal, lambda a=arguments, v=variables: ended_s(a, env | v), rounds)
            for name, (goal, arguments) in SERVING.items():
                _row(name, goal, lambda a=arguments: ready(a, env)[0], rounds)
            print()
            for name, (_, arguments) in SERVING.items():
                memory = ready(arguments, env, rest_s=5)[2] / _MIB
                print(f"memory of its own at rest, {name.partition(',')[0]}: {memory:.0f} MiB")
            print(f"the image adds to its base: {package_bytes('otel') / _MIB:.0f} MiB")
        finally:
            subprocess.run([sys.executable, "-m", "relay", "dsn", "--stop"], cwd=rig.ROOT, env=env, check=False)


if __name__ == "__main__":
    main()
