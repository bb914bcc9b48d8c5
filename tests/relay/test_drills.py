"""Every fire drill, run for real: it raises its alerts and no others, and the diagnosis names the cause first."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from relay.demo.drills import CALM_S, DRILLS, INCIDENT_S
from tests.servers import PATIENCE_S, ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

SECONDS = CALM_S + INCIDENT_S + 4


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, int]]]:
    """What each drill told and its exit status; they are run side by side, for most of a drill is waiting."""
    started: dict[str, subprocess.Popen[str]] = {}
    folder: Path = tmp_path_factory.mktemp("drills")
    for name in DRILLS:
        env = {"HOME": str(folder), "PYTHONPATH": str(ROOT), "RELAY_BIND": f"127.0.0.1:{free_port()}"}
        started[name] = subprocess.Popen(
            [sys.executable, "-m", "relay", "demo", "--no-console", "--drill", name, "--seconds", str(SECONDS)],
            cwd=folder, env=os.environ | env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    yield {
        name: (process.communicate(timeout=3 * PATIENCE_S)[0], process.returncode) for name, process in started.items()
    }
    for process in started.values():
        process.kill()


@pytest.mark.parametrize("name", DRILLS)
def test_a_drill_raises_its_alerts_and_no_others_and_is_diagnosed(told: dict[str, tuple[str, int]], name: str) -> None:
    text, status = told[name]
    assert f"Alerts: {len(DRILLS[name].alerts)} raised, as they should be" in text, text
    assert f"diagnosis: {DRILLS[name].cause}" in text, text
    for rule in DRILLS[name].alerts:
        assert rule in text
    assert "Nobody did anything." in text
    assert status == 0
