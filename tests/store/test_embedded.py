"""The embedded Postgres: one server a directory, shared by its users, stopped with the last of them."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from relay.errors import ConfigurationError, StoreUnavailable
from relay.store.embedded import EmbeddedPostgres, release
from relay.store.migrate import migrate
from tests.servers import ROOT, free_port, program, wait_for, wait_until_healthy

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

_USER = """
import sys
from pathlib import Path
from relay.store.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.dsn, flush=True)
sys.stdin.read()
server.close()
"""
NO_PROCESS = 2**22 - 1


class User:
    """Another process that uses the embedded server of a directory until it is asked to leave."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _USER, str(folder)],
            cwd=ROOT, env=os.environ | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def dsn(self) -> str:
        """What it was given, once it has it."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        """Stop the server."""
        self.process.communicate(timeout=120)

    def kill(self) -> None:
        """End without a word."""
        self.process.kill()
        self.process.communicate(timeout=120)


@contextmanager
def users(folder: Path, count: int, variables: dict[str, str] | None = None) -> Iterator[list[User]]:
    started = [User(folder, variables or {}) for _ in range(count)]
    try:
        yield started
    finally:
        for user in started:
            if user.process.poll() is None:
                user.kill()


def is_up(dsn: str) -> bool:
    """True if the server answers."""
    try:
        psycopg.connect(dsn, connect_timeout=60).close()
    except psycopg.OperationalError:
        return False
    return True


def pid_of(folder: Path) -> int:
    """The server's process."""
    return int((folder / "postgres" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that the tests of this module share; between them, its server has no user."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def _nobody_left(folder: Path) -> Iterator[None]:
    yield
    release(folder)


def test_the_second_user_finds_the_same_server_and_the_last_one_stops_it(folder: Path) -> None:
    first, second = EmbeddedPostgres(folder), EmbeddedPostgres(folder)
    assert first.dsn == second.dsn
    first.close()
    assert is_up(second.dsn)
    second.close()
    assert not is_up(second.dsn)


def test_the_data_are_there_again_the_next_time(folder: Path) -> None:
    for expected in (0, 1):
        server = EmbeddedPostgres(folder)
        with psycopg.connect(server.dsn) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (expected,)
            connection.execute("INSERT INTO kept VALUES (1)")
        server.close()


def test_processes_that_start_at_once_share_one_server_and_the_last_stops_it(folder: Path) -> None:
    with users(folder, 4) as started:
        (dsn,) = {user.dsn() for user in started}
        for user in started[:3]:
            user.leave()
        assert is_up(dsn)
        started[3].leave()
        assert not is_up(dsn)


def test_killing_one_user_leaves_the_server_to_the_others(folder: Path) -> None:
    with users(folder, 2) as (killed, other):
        dsn = killed.dsn()
        assert other.dsn() == dsn
        before = pid_of(folder)
        killed.kill()
        assert is_up(dsn)
        third = EmbeddedPostgres(folder)
        third.close()
        assert pid_of(folder) == before
        assert is_up(dsn)
        other.leave()
        assert not is_up(dsn)


def test_a_server_that_its_only_user_left_by_being_killed_is_found_and_then_stopped(folder: Path) -> None:
    with users(folder, 1) as (killed,):
        dsn = killed.dsn()
        before = pid_of(folder)
        killed.kill()
    server = EmbeddedPostgres(folder)
    assert pid_of(folder) == before
    server.close()
    assert not is_up(dsn)


def test_a_server_that_is_kept_up_stays_until_it_is_released(folder: Path) -> None:
    EmbeddedPostgres(folder, keep_up=True).close()
    server = EmbeddedPostgres(folder)
    server.close()
    assert is_up(server.dsn)
    release(folder)
    assert not is_up(server.dsn)


def test_a_release_waits_for_all_users_of_the_server(folder: Path) -> None:
    EmbeddedPostgres(folder, keep_up=True).close()
    server = EmbeddedPostgres(folder)
    release(folder)
    assert is_up(server.dsn)
    server.close()
    assert not is_up(server.dsn)


def test_keeping_up_is_forgotten_once_the_server_was_stopped_by_other_means(folder: Path) -> None:
    EmbeddedPostgres(folder, keep_up=True).close()
    os.kill(pid_of(folder), signal.SIGINT)
    wait_for(lambda: not (folder / "postgres" / "postmaster.pid").exists())
    server = EmbeddedPostgres(folder)
    server.close()
    assert not is_up(server.dsn)


def test_releasing_what_does_not_run_starts_nothing(tmp_path: Path) -> None:
    release(tmp_path / "nothing here")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_was_killed_comes_back_with_what_was_committed(folder: Path) -> None:
    first = EmbeddedPostgres(folder)
    with psycopg.connect(first.dsn) as connection:
        connection.execute("CREATE TABLE committed (n int)")
    os.kill(pid_of(folder), signal.SIGKILL)
    second = EmbeddedPostgres(folder)
    with psycopg.connect(second.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM committed").fetchone() == (0,)
    first.close()
    assert is_up(second.dsn)
    second.close()
    assert not is_up(second.dsn)


def test_no_second_server_starts_over_data_that_a_killed_ones_processes_still_work_on(folder: Path) -> None:
    first = EmbeddedPostgres(folder)
    busy = psycopg.connect(first.dsn)
    worker = busy.info.backend_pid
    busy.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 15000000)")
    with psycopg.connect(first.dsn, autocommit=True) as watching:
        is_working = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = %s"
        wait_for(lambda: watching.execute(is_working, (worker,)).fetchone() == (True,), what="the query runs")
    os.kill(pid_of(folder), signal.SIGKILL)
    assert Path(f"/proc/{worker}/cmdline").read_bytes()  # it ends with its query, not with its parent
    second = EmbeddedPostgres(folder)
    assert not Path(f"/proc/{worker}").exists() or not Path(f"/proc/{worker}/cmdline").read_bytes()
    assert is_up(second.dsn)
    busy.close()
    second.close()
    first.close()


def test_a_server_that_cannot_start_says_why_at_once_and_names_its_log(folder: Path) -> None:
    EmbeddedPostgres(folder).close()
    configuration = folder / "postgres" / "postgresql.auto.conf"
    before = configuration.read_text(encoding="utf-8")
    configuration.write_text("max_connections = many\n", encoding="utf-8")
    try:
        with pytest.raises(StoreUnavailable, match=r"does not start: configuration file .* contains errors\. .*/log$"):
            EmbeddedPostgres(folder)
    finally:
        configuration.write_text(before, encoding="utf-8")
    server = EmbeddedPostgres(folder)
    assert is_up(server.dsn)
    server.close()


def test_an_initialisation_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n", encoding="utf-8")
    server = EmbeddedPostgres(tmp_path)
    assert is_up(server.dsn)
    server.close()


def test_data_of_another_version_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("16\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"RELAY_DATA_DIR=.* PostgreSQL 16, not 18.*DATABASE_URL"):
        EmbeddedPostgres(tmp_path)
    assert [path.name for path in (tmp_path / "postgres").iterdir()] == ["PG_VERSION"]


def test_what_the_environment_says_about_other_servers_and_languages_changes_nothing(tmp_path: Path) -> None:
    variables = {"PGPORT": "1", "PGDATA": "/nowhere", "PGHOST": "nowhere", "LANG": "xx_YY", "LC_ALL": "xx_YY"}
    with users(tmp_path, 1, variables) as (user,):
        with psycopg.connect(user.dsn()) as connection:
            text = "SELECT lower('ÄЖ'), current_setting('server_encoding')"
            assert connection.execute(text).fetchone() == ("äж", "UTF8")
        user.leave()


@contextmanager
def _process(folder: Path, holder: str) -> Iterator[int]:
    """The pid of a process of the server's own account that is no server of this directory."""
    arguments = ["postgres", "-D", "/elsewhere"] if holder == "another postgres" else []
    account = (folder / "postgres").stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(
        ["/bin/sh", "-c", "read line", *arguments], stdin=subprocess.PIPE, cwd="/", user=account
    ) as process:
        if holder == "a zombie":
            process.kill()
            wait_for(lambda: not Path(f"/proc/{process.pid}/cmdline").read_bytes(), what="it has ended, unwaited for")
        try:
            yield process.pid
        finally:
            process.kill()


_PID_FILE = "{pid}\n{folder}\n1700000000\n5432\n{folder}\n\n  1 2\nready   \n"


@pytest.mark.parametrize("holder", ["no process", "some program", "another postgres", "a zombie"])
def test_a_pid_file_that_was_left_behind_does_not_keep_the_server_from_starting(folder: Path, holder: str) -> None:
    EmbeddedPostgres(folder).close()
    with ExitStack() as stack:
        pid = NO_PROCESS if holder == "no process" else stack.enter_context(_process(folder, holder))
        text = _PID_FILE.format(pid=pid, folder=folder / "postgres")
        (folder / "postgres" / "postmaster.pid").write_text(text, encoding="utf-8")
        server = EmbeddedPostgres(folder)
        assert is_up(server.dsn)
        server.close()


@pytest.mark.parametrize("text", ["", "\n\n", "0\n", "not a number\n", f"{NO_PROCESS}\n/half\n"])
def test_a_broken_pid_file_does_not_keep_the_server_from_starting(folder: Path, text: str) -> None:
    EmbeddedPostgres(folder).close()
    (folder / "postgres" / "postmaster.pid").write_text(text, encoding="utf-8")
    server = EmbeddedPostgres(folder)
    assert is_up(server.dsn)
    server.close()


def test_a_copy_of_a_running_servers_directory_is_a_server_of_its_own(folder: Path, tmp_path: Path) -> None:
    EmbeddedPostgres(folder).close()
    subprocess.run(["cp", "-a", folder / "postgres", tmp_path], check=True)
    running = EmbeddedPostgres(folder)
    subprocess.run(["cp", "-a", folder / "postgres" / "postmaster.pid", tmp_path / "postgres"], check=True)
    copy = EmbeddedPostgres(tmp_path)
    assert pid_of(tmp_path) != pid_of(folder)
    assert copy.dsn != running.dsn
    copy.close()
    assert is_up(running.dsn)
    running.close()


NAMES = {
    "what shells and URLs read": """it's "a" $(b); `c` & d\\e=50%41+@x:y?#Ж~""",
    "what no socket can have": "long" * 30 + ",",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_directory_may_have_any_name(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="relay-") as parent:
        first, second = EmbeddedPostgres(Path(parent, name)), EmbeddedPostgres(Path(parent, name))
        try:
            asyncio.run(migrate(first.dsn))
            assert first.dsn == second.dsn
        finally:
            first.close()
            second.close()
        assert not is_up(first.dsn)
        assert [path.name for path in Path(parent).iterdir()] == [name]


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs the server as itself")
def test_root_leaves_accounts_and_the_directories_above_the_data_as_they_are(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    above = [closed, *closed.parents]
    before = [(path.stat().st_mode, path.stat().st_uid) for path in above], Path("/etc/passwd").read_bytes()
    server = EmbeddedPostgres(closed / "data")
    assert is_up(server.dsn)
    server.close()
    assert ([(path.stat().st_mode, path.stat().st_uid) for path in above], Path("/etc/passwd").read_bytes()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another account")
def test_root_adopts_data_that_belong_to_another_account(tmp_path: Path) -> None:
    EmbeddedPostgres(tmp_path).close()
    for path in (tmp_path / "postgres", *(tmp_path / "postgres").rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    server = EmbeddedPostgres(tmp_path)
    assert is_up(server.dsn)
    server.close()


_REFUSED = "echo 0 > /proc/sys/user/max_user_namespaces && exec {python} -c {program} {folder}"


def test_root_without_user_namespaces_is_refused_in_one_line(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from relay.store.embedded import EmbeddedPostgres; "
        "EmbeddedPostgres(Path(sys.argv[1]))"
    )
    quoted = {"python": sys.executable, "program": shlex.quote(program), "folder": shlex.quote(str(tmp_path))}
    inside = ["unshare", "--user", "--map-root-user", "sh", "-c", _REFUSED.format_map(quoted)]
    ended = subprocess.run(inside, cwd=ROOT, capture_output=True, text=True, check=False)
    said = ended.stderr.strip().splitlines()[-1]
    assert re.search(r"does not run as root.*run as an ordinary user, or set DATABASE_URL", said), ended.stderr


def test_a_directory_whose_name_no_server_can_be_started_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"RELAY_DATA_DIR=.*a\\nb.*DATABASE_URL"):
        EmbeddedPostgres(tmp_path / "a\nb")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"RELAY_DATA_DIR=.*DATABASE_URL"):
        EmbeddedPostgres(tmp_path / "file" / "data")


def test_a_relay_starts_a_server_again_that_was_killed_or_had_no_disk(tmp_path: Path) -> None:
    folder, port, output = tmp_path / "data", free_port(), tmp_path / "output"
    environment = {"DATABASE_URL": "", "RELAY_DATA_DIR": str(folder), "RELAY_BIND": f"127.0.0.1:{port}"}
    pid_file, data, gone = folder / "postgres/postmaster.pid", folder / "postgres/global", folder / "global"
    with output.open("w", encoding="utf-8") as file, program("-m", "relay", "serve", env=environment, out=file):
        wait_until_healthy(port)
        os.kill(int(pid_file.read_text(encoding="utf-8").splitlines()[0]), signal.SIGKILL)
        wait_for(lambda: "The embedded Postgres had ended and was started again" in output.read_text(encoding="utf-8"))
        wait_until_healthy(port)
        data.rename(gone)
        os.kill(int(pid_file.read_text(encoding="utf-8").splitlines()[0]), signal.SIGKILL)
        wait_for(lambda: "has ended and does not start, will retry" in output.read_text(encoding="utf-8"))
        gone.rename(data)
        wait_for(lambda: output.read_text(encoding="utf-8").count("was started again") == 2)
        wait_until_healthy(port)
