"""Fixtures that start real things: one Postgres a session, a database a test, agents, relays, a command line."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from relay.demo.chatwoot import ChatwootStandIn
from relay.forwarding import finisher, receipt_storage
from relay.intake import webhook
from relay.server.supervisor import settle_garbage_collection
from relay.store import server_session
from relay.store.embedded import EmbeddedPostgres
from relay.store.migrate import migrate
from tests.fork_server import ForkServer, needs_interpreter
from tests.postgres import Server, account
from tests.servers import (
    ANSWER_MS,
    PATIENCE_S,
    ROOT,
    HeldAgent,
    Rows,
    RunningRelay,
    database_like,
    folder_in_memory,
    relay_settings,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

_STORE_PATIENCE_S, _DURABLE_WITHIN_S = receipt_storage.STORE_PATIENCE_S, webhook._DURABLE_WITHIN_S
_LEAST_PACE_S = finisher.LEAST_PACE_S
_OURS = ("CHATWOOT_", "AGENT_", "RELAY_", "DATABASE_URL", "CONSOLE_", "PG", "NO_COLOR")

settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fixed", settings.get_profile("explore"), derandomize=True)
settings.load_profile("fixed")  # no test fails by chance; `--hypothesis-profile explore` tries other examples


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    """Clears the variables that a developer's environment may set, so that they decide nothing."""
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def _no_ignored_hangup() -> None:
    """Lets the tests' programs heed SIGHUP under `nohup` too: what is ignored here is ignored by what is started."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _collect_garbage_as_a_relay_does() -> None:
    """Leaves what was imported and collected out of every later collection."""
    settle_garbage_collection()


@pytest.fixture(scope="session", autouse=True)
def _a_slow_machine_has_time() -> None:
    """Lets a relay in this process wait for Postgres as long as its sender does, unless a test is about that limit."""
    receipt_storage.STORE_PATIENCE_S = webhook._DURABLE_WITHIN_S = finisher.LEAST_PACE_S = ANSWER_MS / 1000
    server_session.ANSWER_S = ANSWER_MS / 1000


@pytest.fixture
def impatient_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a relay in this process wait for Postgres no longer than it does outside of tests."""
    monkeypatch.setattr(receipt_storage, "STORE_PATIENCE_S", _STORE_PATIENCE_S)
    monkeypatch.setattr(webhook, "_DURABLE_WITHIN_S", _DURABLE_WITHIN_S)


@pytest.fixture
def impatient_finisher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a relay in this process cancel an outcome's statement as early as it does outside of tests."""
    monkeypatch.setattr(finisher, "LEAST_PACE_S", _LEAST_PACE_S)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of the session's embedded Postgres, whose database `migrated` is the template of every test's."""
    made = tempfile.TemporaryDirectory(prefix="relay-tests-", dir=folder_in_memory(), ignore_cleanup_errors=True)
    with made as folder:
        server = EmbeddedPostgres(Path(folder))
        rows = Rows(server.dsn)
        for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '256MB'"):
            rows(f"ALTER SYSTEM SET {setting}")  # tests of durability run a server of their own
        rows("SELECT pg_reload_conf()")
        rows("CREATE DATABASE migrated")
        asyncio.run(migrate(server.dsn.replace("/postgres?", "/migrated?"), roles=True))
        try:
            yield server.dsn
        finally:
            server.close()


@pytest.fixture
def dsn(postgres: str) -> Iterator[str]:
    """The DSN of a fresh database with the relay's schema."""
    with database_like("migrated", postgres) as dsn:
        yield dsn


@pytest.fixture
def empty_dsn(postgres: str) -> Iterator[str]:
    """The DSN of a fresh database with nothing in it."""
    with database_like("template1", postgres) as dsn:
        yield dsn


@pytest.fixture
def rows(dsn: str) -> Iterator[Rows]:
    """Plain SQL against the test's database."""
    with Rows(dsn).connected() as rows:
        yield rows


@pytest_asyncio.fixture
async def agent() -> AsyncIterator[HeldAgent]:
    """A stand-in Agent SDK. `behave` and `hold` say what it does."""
    stand_in = HeldAgent()
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest_asyncio.fixture
async def chatwoot() -> AsyncIterator[ChatwootStandIn]:
    """A stand-in Chatwoot. The conversations that tests name exist there: it refuses a note in another one."""
    stand_in = ChatwootStandIn()
    stand_in.open_conversations((1, 7, 10, 4711))
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest_asyncio.fixture
async def start_relay(agent: HeldAgent, dsn: str) -> AsyncIterator[Callable[..., Awaitable[RunningRelay]]]:
    """Starts relays on the test's database, forwarding to `agent`; settings as keyword arguments."""
    relays: list[RunningRelay] = []

    async def start(**settings: Any) -> RunningRelay:
        relays.append(RunningRelay(relay_settings(settings.pop("agent", agent), **settings), dsn))
        return await relays[-1].ready()

    yield start
    await agent.refuse()  # no relay waits for what hangs there
    await asyncio.gather(*(relay.stop() for relay in relays if not relay._stop.is_set()))


@pytest_asyncio.fixture
async def relay(start_relay: Callable[..., Awaitable[RunningRelay]]) -> RunningRelay:
    """One relay with a test's ordinary settings."""
    return await start_relay()


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """The process that has the programs loaded."""
    made = ForkServer()
    yield made
    made.close()


class CommandLine:
    """The `relay` command as a process, in a directory and with a HOME of its own."""

    def __init__(self, folder: Path, dsn: str, fork_server: ForkServer) -> None:
        self.folder = folder
        self._fork_server = fork_server
        self.env = {"DATABASE_URL": dsn, "HOME": str(folder), "PYTHONPATH": str(ROOT)}

    def __call__(
        self,
        *arguments: str,
        program: str = "relay",
        stdin: str | None = None,
        timeout_s: float = 2 * PATIENCE_S,
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run `relay ARGUMENTS` to its end. `env` adds to the environment; an empty value is an unset one."""
        surroundings = os.environ | self.env | env
        if not needs_interpreter(env):
            return self._fork_server.run(
                program, arguments, folder=self.folder, env=surroundings, stdin=stdin or "", timeout_s=timeout_s
            )
        return subprocess.run(
            [sys.executable, "-m", program, *arguments], cwd=self.folder, env=surroundings,
            capture_output=True, text=True, check=False, input=stdin or "", timeout=timeout_s,
        )  # fmt: skip

    async def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """The same, beside the test's loop."""
        return await asyncio.to_thread(self, *arguments, **env)


@pytest.fixture
def relay_command(tmp_path: Path, dsn: str, fork_server: ForkServer) -> CommandLine:
    """The command line on the test's database."""
    return CommandLine(tmp_path, dsn, fork_server)


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """A directory that a server's own account can reach."""
    made = Path(tempfile.mkdtemp(prefix="relay-postgres-"))
    os.chown(made, *account())
    yield made
    shutil.rmtree(made)


@pytest.fixture
def server(server_folder: Path) -> Iterator[Server]:
    """A Postgres that runs."""
    made = Server(server_folder)
    try:
        yield made.make()
    finally:
        made.close()
