"""The script that takes the READMEs' pictures still runs, and its pictures show what they are named after."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.servers import PATIENCE_S, ROOT, free_port

if TYPE_CHECKING:
    from pathlib import Path

TAKEN = {"overview": "Failure groups", "dead-letters-80x24": "CAUSE", "health": "Alert rules"}


def words(picture: Path) -> str:
    """The text of a picture."""
    texts = re.findall(r"<text[^>]*>(.*?)</text>", picture.read_text(encoding="utf-8"))
    return html.unescape("".join(texts)).replace("\xa0", " ")


@pytest.mark.slow
def test_the_pictures_are_of_the_real_console_in_an_outage(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "RELAY_BIND": f"127.0.0.1:{free_port()}"}
    script = [sys.executable, ROOT / "screenshots" / "take.py", "--calm-s", "2", "--into", tmp_path / "taken"]
    done = subprocess.run(
        [*script, "--only", *TAKEN],
        env=os.environ | env, cwd=tmp_path, capture_output=True, text=True, timeout=5 * PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {picture.stem for picture in (tmp_path / "taken").iterdir()} == set(TAKEN)
    for name, text in TAKEN.items():
        shown = words(tmp_path / "taken" / f"{name}.svg")
        assert text in shown
        assert "Agent SDK answered 503" in shown


def test_every_picture_is_there_and_a_readme_shows_it() -> None:
    script = (ROOT / "screenshots" / "take.py").read_text(encoding="utf-8")
    scenes = re.findall(r'^    \("([a-z-]+)", \(', script, flags=re.MULTILINE)
    assert len(scenes) > 10
    names = {*scenes, *(f"{scene}-80x24" for scene in scenes)}
    assert {picture.stem for picture in (ROOT / "screenshots").glob("*.svg")} == {*names, "dashboard"}
    assert "screenshots/dashboard.svg" in (ROOT / "relay" / "deploy" / "README.md").read_text(encoding="utf-8")
    readme = (ROOT / "console" / "README.md").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if f"screenshots/{name}.svg" not in readme] == []
