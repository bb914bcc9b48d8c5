"""A PgBouncer of the test's own in front of a Postgres, to be restarted. Tests that need one are skipped without it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.postgres import account
from tests.servers import PATIENCE_S, free_port, wait_for

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed: apt-get install pgbouncer")

_CONFIGURATION = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
{options}
"""


class Pooler:
    """PgBouncer in front of the server that `dsn` names; `options` are lines of its configuration."""

    def __init__(self, folder: Path, dsn: str, *, mode: str = "transaction", **options: str | int) -> None:
        server = psycopg.conninfo.conninfo_to_dict(dsn)
        self.port = free_port()
        user = server.get("user") or "postgres"
        self.dsn = f"postgresql://{user}@127.0.0.1:{self.port}/{server['dbname']}"
        self._log = folder / f"pgbouncer-{self.port}.log"
        self._configuration = folder / f"pgbouncer-{self.port}.ini"
        lines = [f"{name} = {value}" for name, value in {"pool_mode": mode, **options}.items()]
        self._configuration.write_text(
            _CONFIGURATION.format(
                host=server["host"], server_port=server["port"], port=self.port,
                options="\n".join(line.replace("* = host", f"* = user={user} host") for line in lines),
            ).replace("* = host", f"* = user={user} host"),
            encoding="utf-8",
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Pooler:
        """Start it and wait until it takes connections."""
        assert PROGRAM is not None
        uid, gid = account()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, str(self._configuration)],
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=uid, group=gid, extra_groups=[],
            )  # fmt: skip
        wait_for(self._answers, what="PgBouncer answers")
        return self

    def stop(self) -> None:
        """End it at once, cutting its clients' connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE_S)

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE_S)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text(encoding="utf-8")[-2000:]
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.dsn, connect_timeout=3).close()
            return True
        return False
