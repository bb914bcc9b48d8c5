"""`console --timing`: how long a start takes, with a terminal and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.servers import PATIENCE_S, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.console.screens import Terminal

pytestmark = pytest.mark.slow


def timing(folder: Path, dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"DATABASE_URL": dsn, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "console", "--timing", *arguments],
        cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=2 * PATIENCE_S,
    )  # fmt: skip


def test_it_says_when_it_painted_first_and_when_with_figures(tmp_path: Path, dsn: str) -> None:
    ended = timing(tmp_path, dsn)
    assert ended.returncode == 0, ended.stderr
    assert [line.split()[:2] for line in ended.stdout.splitlines()] == [["first", "paint"], ["first", "data"]]


def test_as_json_it_is_two_numbers(tmp_path: Path, dsn: str) -> None:
    document = json.loads(timing(tmp_path, dsn, "--json").stdout)
    assert 0 < document["first_paint_s"] <= document["first_data_s"]


def test_without_a_database_it_says_why_there_are_no_figures(tmp_path: Path) -> None:
    ended = timing(tmp_path, "postgresql://none@127.0.0.1:9/nothing")
    assert ended.returncode == 1
    assert "no figures within" in ended.stdout
    assert "refused" in ended.stdout


def test_in_a_terminal_it_leaves_the_figures_behind(terminal: Callable[..., Terminal]) -> None:
    shown = terminal((80, 24), "--timing").shows("first paint", "first data")
    assert "goal" in shown
