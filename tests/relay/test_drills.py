"""Every fire drill, run for real: it raises its alerts and no others, and the diagnosis names the cause first."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from relay.demo.drills import DRILLS
from tests.servers import PATIENCE_S, ROOT, free_port

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

AFTER_S = 16
"""Time for the alerts of the end on a busy machine."""


AT_A_TIME = 2
"""So many drills run side by side. Most of a drill is waiting, and an overloaded machine raises alerts of its own."""


def run(name: str, folder: Path) -> tuple[str, int]:
    """What a drill prints, and its exit status."""
    drill = DRILLS[name]
    seconds = str(drill.begins_at_s + drill.lasts_s + AFTER_S)
    env = {"HOME": str(folder), "PYTHONPATH": str(ROOT), "RELAY_BIND": f"127.0.0.1:{free_port()}"}
    done = subprocess.run(
        [sys.executable, "-m", "relay", "demo", "--no-console", "--drill", name, "--seconds", seconds],
        cwd=folder, env=os.environ | env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False, timeout=3 * PATIENCE_S,
    )  # fmt: skip
    return done.stdout, done.returncode


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int]]:
    """What each drill prints, and its exit status."""
    folder = tmp_path_factory.mktemp("drills")
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        return dict(zip(DRILLS, threads.map(lambda name: run(name, folder), DRILLS), strict=True))


@pytest.mark.parametrize("name", DRILLS)
def test_a_drill_raises_its_alerts_and_no_others_and_is_diagnosed(
    printed: dict[str, tuple[str, int]], name: str
) -> None:
    text, status = printed[name]
    assert f"Alerts: {len(DRILLS[name].alerts)} raised, as they should be" in text, text
    diagnosed = re.search(r"diagnosis: (.*)", text)
    assert diagnosed is not None, text
    assert DRILLS[name].cause in diagnosed[1], text
    for rule in DRILLS[name].alerts:
        assert rule in text
    acts = any(phase.held is not None for phase in DRILLS[name].phases)
    assert ("No operator acted." in text) is not acts
    assert ("No dead letter waits." in text) or not DRILLS[name].spares_all, text
    assert status == 0
