"""The spool's file: SQLite on this host's disk, shared by the relays and workers of the host (DESIGN, 1.3). Blocking.

What a transaction wrote is durable when it has ended (WAL, `synchronous=FULL`). A file that is damaged is moved aside;
one that was removed or replaced is noticed, and what it held goes to the new one. A transaction counts only if the
file and its log are still in place after the commit; else it is repeated on the new file.

Beside the file, the first byte of `spool.state` is 1 while any receipt may be in it. Every relay reads that byte for
each webhook, without SQLite. It is set before a receipt is committed, and cleared only while the file is locked and
empty, so that a crash can leave it set and never cleared.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from relay.errors import SpoolFull, SpoolUnwritable
from relay.store import spool_schema as sql
from relay.store.spool_faults import CORRUPT, NO_SPACE, PASSING, Damaged, Replaced, code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BUSY_S = 1.0
"""How long one process waits for another one's transaction."""

_BUSY_AGAIN_S = 0.02
"""How long it waits after a wait that timed out: the other process may be stopped, and webhooks wait in turn."""

_OPEN_S = 10.0
_OPEN_AGAIN_S = 0.005
_RESERVE_BYTES = 1_048_576
_TRIES = 10
_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "secure_delete = ON",
    "wal_autocheckpoint = 64",  # pages: on a full disk the log must fit into the room that is kept
    "journal_size_limit = 262144",
)

T = TypeVar("T")


class SpoolDisk:
    """One process's access to the file at `path`. Belongs to one thread, except `may_hold`.

    `say` is called with one sentence when a file is damaged, or was removed or replaced.
    """

    def __init__(self, path: Path, *, say: Callable[[str], None]) -> None:
        self.path = path
        self._say = say
        self._connection: sqlite3.Connection | None = None
        self._rescued: list[tuple[Any, ...]] = []
        self._rescued_names: dict[str, str] = {}
        self._busy_s = BUSY_S
        self._inodes: tuple[tuple[int, int], ...] = ()
        self._state_fd: int | None = None

    def may_hold(self) -> bool:
        """False if no receipt is in the spool. Reads one byte, from memory. Any thread may call it."""
        if self._state_fd is None:
            return False
        try:
            return os.pread(self._state_fd, 1, 0) == b"1"
        except OSError:  # it is being closed, or the disk fails
            return True

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction, which is durable on return.

        Raises:
            SpoolFull: the disk is full.
            SpoolUnwritable: the file cannot be used.
        """
        result = self.run(lambda db: self._transact(db, work))
        self._wait_for_others(BUSY_S)
        return result

    def write_in_need(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """As `write`, for work that frees space: on a full disk it uses the room that is kept for it."""
        try:
            return self.write(work)
        except SpoolFull:
            self._reserve_path.unlink(missing_ok=True)
            try:
                self._checkpoint()
                self.run(lambda db: db.execute("PRAGMA secure_delete = OFF").fetchall())  # it writes all that it frees
                result = self.write(work)
                self._checkpoint()
            finally:
                self._disconnect()  # the next connection deletes securely again, and keeps room again
            return result

    def _checkpoint(self) -> None:
        """Move what the write-ahead log holds into the file, as far as the disk has room for it."""
        with contextlib.suppress(SpoolFull):
            self.run(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())

    def aside(self) -> tuple[str, ...]:
        """The names of damaged files that were moved aside."""
        return damaged_files(self.path)

    def try_lock(self) -> bool:
        """Take the lock that one process of the host at a time holds. False if another one has it."""
        self.run(lambda _: None)
        assert self._state_fd is not None
        try:
            fcntl.flock(self._state_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Release the lock."""
        if self._state_fd is not None:
            fcntl.flock(self._state_fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file. What it held goes to a new one if it was removed."""
        self._disconnect()
        if self._rescued:
            with contextlib.suppress(SpoolUnwritable):
                self.run(lambda _: None)
            self._disconnect()
        if self._state_fd is not None:
            fd, self._state_fd = self._state_fd, None
            os.close(fd)

    def _transact(self, db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        db.execute("BEGIN IMMEDIATE")
        try:
            result = work(db)
            if not db.execute(sql.IS_EMPTY).fetchone()[0]:
                self.set_flag(holds=True)
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        if not self._is_in_place():
            raise Replaced
        return result

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the open file. Once more on a new one if this one is damaged or no longer there.

        Raises:
            SpoolFull: the disk is full.
            SpoolUnwritable: the file cannot be used.
        """
        for _ in range(_TRIES):
            try:
                return work(self._opened())
            except Replaced:
                continue
            except sqlite3.Error as error:
                code = code_of(error)
                if code in CORRUPT:
                    self._move_aside(str(error))
                    continue
                if code == sqlite3.SQLITE_BUSY:
                    self._wait_for_others(_BUSY_AGAIN_S)
                is_gone = self._is_gone()
                if code not in PASSING or is_gone:
                    self._disconnect()
                if is_gone:
                    continue
                if code == sqlite3.SQLITE_FULL:
                    raise SpoolFull("The spool's disk is full") from error
                raise SpoolUnwritable(f"The spool cannot be used: {error}") from error
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in NO_SPACE:
                    raise SpoolFull("The spool's disk is full") from error
                raise SpoolUnwritable(f"The spool cannot be used: {error.strerror or error}") from error
        raise SpoolUnwritable("The spool's file does not stay in its place")

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and not self._is_in_place():
            self._say("The spool's file was removed or replaced; what it held goes to a new one")
            self._disconnect()
        if self._connection is None:
            db = self._open()
            try:
                if self._rescued or self._rescued_names:
                    self._transact(db, self._copy_rescued)
            except BaseException:
                db.close()
                raise
            self._rescued, self._rescued_names = [], {}
            self._connection, self._busy_s = db, BUSY_S
        return self._connection

    def _wait_for_others(self, seconds: float) -> None:
        """Set how long this process waits for another one's transaction."""
        if self._connection is not None and seconds != self._busy_s:
            self._connection.execute(f"PRAGMA busy_timeout = {1000 * seconds:.0f}")
            self._busy_s = seconds

    def _rescue(self, db: sqlite3.Connection) -> None:
        """Read all that a removed file holds, before its connection is closed and another one uses its names.

        To store a receipt in Postgres twice changes nothing there. A file of which only a part was removed is removed
        first: with a new log beside it, two processes would write to it by different logs.
        """
        if not self._is_gone():
            self.path.unlink(missing_ok=True)
        found: list[tuple[Any, ...]] = []
        try:
            self._rescued_names |= dict(db.execute(sql.NAMES).fetchall())
            for row in db.execute(sql.ALL):
                found.append(row)  # noqa: PERF402 - those before an error count
        except sqlite3.Error as error:
            self._say(f"The removed spool's file cannot be read ({error}); {len(found)} of its receipts were read")
        self._rescued += found

    def _copy_rescued(self, db: sqlite3.Connection) -> None:
        """Copy what was read from removed files, with the names of the databases that it is for."""
        db.executemany(sql.COPY, self._rescued)
        for address, name in self._rescued_names.items():
            for statement in sql.NAMING:
                db.execute(statement, {"address": address, "name": name})

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open_state()
        with self._exclusively():
            self._make_file()
            self.path.chmod(0o600)  # SQLite gives its other files the same mode
            file = _inode(self.path)
            self._inodes = (file,)
            db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(db)
                self._inodes = self._found_inodes()
                if not self._is_opened(file):
                    raise Replaced  # noqa: TRY301 - the connection is closed below
            except BaseException:
                db.close()
                raise
        self._keep_reserve()
        return db

    def _is_opened(self, file: tuple[int, int]) -> bool:
        """True if the names in `_inodes` are those of what was opened: `file`, and the log that was made beside it.

        The lock is on the state file, so it held off the other processes only if that is in place to the end.
        """
        assert self._state_fd is not None
        found = os.fstat(self._state_fd)
        return bool(self._inodes) and self._inodes[0] == file and self._inodes[-1] == (found.st_dev, found.st_ino)

    def _make_file(self) -> None:
        """Make the file if there is none. A log beside it is then that of a removed file, which may still be read.

        A file that is there is not opened: closing it would release this process's locks on it.
        """
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            _, log, index, _ = self._files
            log.unlink(missing_ok=True)
            index.unlink(missing_ok=True)

    def _keep_reserve(self) -> None:
        """Take the room that `write_in_need` uses, if the disk has that and as much again."""
        with contextlib.suppress(OSError):
            disk = os.statvfs(self.path.parent)
            if self._reserve_path.exists() or disk.f_bavail * disk.f_frsize < 2 * _RESERVE_BYTES:
                return
            file = os.open(self._reserve_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, _RESERVE_BYTES)
            finally:
                os.close(file)

    def _prepare(self, db: sqlite3.Connection) -> None:
        for pragma in _PRAGMAS:
            db.execute(f"PRAGMA {pragma}").fetchall()
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.executescript(sql.SCHEMA)
        elif version > sql.VERSION:
            raise SpoolUnwritable(f"{self.path} was made by a newer relay")
        elif db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise Damaged
        db.execute("BEGIN IMMEDIATE")
        self.set_flag(holds=not db.execute(sql.IS_EMPTY).fetchone()[0])
        db.execute("COMMIT")

    def _open_state(self) -> None:
        """Open `spool.state`, with the number that it had before if it was replaced: another thread reads it."""
        fd = os.open(self._state_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(fd).st_size == 0:
            os.pwrite(fd, b"1", 0)
        if self._state_fd is None:
            self._state_fd = fd
        elif os.path.sameopenfile(fd, self._state_fd):
            os.close(fd)
        else:
            os.dup2(fd, self._state_fd, inheritable=False)
            os.close(fd)

    @property
    def _state_path(self) -> Path:
        return self.path.with_suffix(".state")

    @property
    def _reserve_path(self) -> Path:
        return self.path.with_suffix(".reserve")

    def set_flag(self, *, holds: bool) -> None:
        """Say whether receipts may be in the spool. Within a transaction only."""
        assert self._state_fd is not None
        value = b"1" if holds else b"0"
        if os.pread(self._state_fd, 1, 0) != value:
            os.pwrite(self._state_fd, value, 0)

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Lets one process at a time make the file, or move it aside. No matter to `try_lock`: it is another lock."""
        assert self._state_fd is not None
        by = time.monotonic() + _OPEN_S
        while not self._locks_opening():
            if time.monotonic() > by:
                raise SpoolUnwritable("The spool cannot be opened: another process has been opening it for too long")
            time.sleep(_OPEN_AGAIN_S)
        try:
            yield
        finally:
            fcntl.lockf(self._state_fd, fcntl.LOCK_UN, 1, 1)

    def _locks_opening(self) -> bool:
        assert self._state_fd is not None
        try:
            fcntl.lockf(self._state_fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        return True

    def _found_inodes(self) -> tuple[tuple[int, int], ...]:
        try:
            return tuple(map(_inode, self._files))
        except FileNotFoundError:
            return ()

    @property
    def _files(self) -> tuple[Path, ...]:
        """All that must stay in place while a connection is open: SQLite removes its log with the last one."""
        return (
            self.path,
            *(self.path.with_name(self.path.name + suffix) for suffix in ("-wal", "-shm")),
            self._state_path,
        )

    def _is_in_place(self) -> bool:
        found = self._found_inodes()
        return bool(found) and found == self._inodes

    def _is_gone(self) -> bool:
        """True if the file that was opened last was removed or replaced, whatever became of its log."""
        try:
            return bool(self._inodes) and self._inodes[0] != _inode(self.path)
        except FileNotFoundError:
            return True

    def _move_aside(self, reason: str) -> None:
        """Move the damaged file aside with all that it holds, unless another process has done so."""
        self._disconnect()
        with self._exclusively():
            if not self._inodes or self._is_gone():
                return
            aside = f"{self.path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}"
            for suffix in ("-wal", "-shm", ""):
                file = self.path.with_name(self.path.name + suffix)
                with contextlib.suppress(FileNotFoundError):
                    file.rename(self.path.with_name(aside + suffix))
        self._say(f"The spool's file is damaged ({reason}); it was moved to {aside}, and a new one is begun")

    def _disconnect(self) -> None:
        """Close the connection. What a removed file holds is read before."""
        if self._connection is not None:
            if not self._is_in_place():
                self._rescue(self._connection)
            self._connection.close()
            self._connection = None


def damaged_files(path: Path) -> tuple[str, ...]:
    """The names of damaged files that were moved aside from `path`."""
    return tuple(sorted(one.name for one in path.parent.glob(f"{path.name}.damaged-*[0-9]")))


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
