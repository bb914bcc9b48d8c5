"""The Node peers: Express and pg on two processes. `node/peer.js` says what they do.

They need Node, and `npm install` in `tests/benchmarks/node`.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.servers import PATIENCE_S, free_port, wait_until_healthy

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = Path(__file__).parent / "node"


def missing() -> str | None:
    """Why the peers cannot run here; None if they can."""
    if shutil.which("node") is None:
        return "node is not installed"
    has = subprocess.run(
        ["node", "-e", "require('express'); require('pg')"], cwd=_FOLDER, capture_output=True, check=False
    )
    return None if has.returncode == 0 else "its packages are not installed (npm install in tests/benchmarks/node)"


@contextlib.contextmanager
def peer(dsn: str, agent_port: int, mode: str) -> Iterator[tuple[int, Any]]:
    """The peer `mode`, `durable` or `afterwards`; yields its port and its process."""
    port = free_port()
    process = subprocess.Popen(["node", "peer.js", str(port), dsn, f"http://127.0.0.1:{agent_port}", mode], cwd=_FOLDER)
    try:
        wait_until_healthy(port)
        yield port, process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
