"""The package that the Dockerfile's steps build has every file that the commands print or read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from relay.deploy.catalogue import FILES, find
from tests.servers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_what_the_image_copies_is_enough_to_build_the_package(tmp_path: Path) -> None:
    context, built = tmp_path / "src", tmp_path / "built"
    context.mkdir()
    for sources, target in re.findall(r"^COPY (?!--from)(.+) (\S+)$", find("dockerfile").content(), re.MULTILINE):
        for name in sources.split():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, context / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, context / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={built}", str(context)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = built.iterdir()
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"relay/deploy/{one.file}" for one in FILES} | {
        "relay/AGENT.md",
        "relay/store/roles.sql",
        "console/app.py",
    }
    assert wanted - names == set()
    wanted_sql = {f"relay/store/migrations/{path.name}" for path in (ROOT / "relay/store/migrations").glob("*.sql")}
    assert wanted_sql - names == set()
