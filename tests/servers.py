"""The real servers that tests and benchmarks run against: Postgres, relays in this loop and as processes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import os
import select
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import psycopg
from psycopg import sql

from relay.demo.agent import AgentStandIn, Behaviour
from relay.server.listener import bound_url, listen
from relay.server.supervisor import Sockets, relay_name, serve_worker
from relay.server.worker import Identity
from relay.settings import WEBHOOK_PATH, Settings, load_settings
from relay.telemetry.log_sink import LogSink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from aiohttp import web

ROOT = Path(__file__).parents[1]
PATIENCE_S = 120.0
"""How long a test waits for what comes at all: no machine is so slow that it takes longer."""

ANSWER_MS = 60_000
"""How long a test's relay may take to answer, unless the test is about that time: a slow machine answers late."""

AT_ONCE_S = 60
"""The end of a test of what takes milliseconds: no slow machine comes near it, what compares all with all would."""

PATIENT = {"CHATWOOT_WEBHOOK_RESPONSE_DEADLINE_MS": str(ANSWER_MS)}
"""The same for relays that are processes."""

_ROOM_FOR_SERVERS = 4 << 30


def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def until(
    condition: Callable[[], Any], *, patience_s: float = PATIENCE_S, what: str = "", every_s: float = 0.01
) -> Any:
    """The first true value of `condition()`, which may be a coroutine function; fails after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what or inspect.getsource(condition)}"
        await asyncio.sleep(every_s)


def wait_for(condition: Callable[[], Any], *, patience_s: float = PATIENCE_S, what: str = "") -> Any:
    """`until`, for tests without a loop."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what or inspect.getsource(condition)}"
        time.sleep(0.01)
    return value


class Rows:
    """Plain SQL against a test's database. Each statement has a connection of its own, except within `connected`."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._kept: psycopg.Connection[Any] | None = None
        self._keeps = False

    @contextlib.contextmanager
    def connected(self) -> Iterator[Rows]:
        """Use one connection for all statements, and another one when the server has closed it."""
        self._keeps = True
        yield self
        self._keeps = False
        self.close()

    def close(self) -> None:
        """End the session. The next statement begins another one."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    @contextlib.contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        if not self._keeps:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                yield connection
            return
        if self._kept is not None and (self._kept.closed or select.select([self._kept], [], [], 0)[0]):
            self.close()  # an idle connection that can be read from is one that the server closes
        if self._kept is None:
            self._kept = psycopg.connect(self.dsn, autocommit=True)
        yield self._kept

    def __call__(self, statement: str, parameters: Sequence[Any] | dict[str, Any] | None = None) -> list[Any]:
        """The rows of `statement`; those of one column as its values."""
        with self._connection() as connection:
            cursor = connection.execute(statement.encode(), parameters)
            if cursor.description is None:
                return []
            rows = cursor.fetchall()
        return [row[0] for row in rows] if len(cursor.description) == 1 else rows

    async def change(self, statement: str) -> None:
        """Run a statement that waits for a table's lock, while the relays of this process run and release theirs."""
        await asyncio.to_thread(self, statement)

    def one(self, statement: str, parameters: Sequence[Any] | dict[str, Any] | None = None) -> Any:
        """The only row of `statement`."""
        (row,) = self(statement, parameters)
        return row

    def facts(self, fact_type: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """`(value, metadata)` of every fact of a kind, oldest first."""
        return self("SELECT value, metadata FROM dashboard_facts WHERE fact_type = %s ORDER BY id", (fact_type,))


def folder_in_memory() -> str | None:
    """A directory whose files are in memory, for a server whose data no test needs on a disk; None if there is none."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and shutil.disk_usage(shared).free > _ROOM_FOR_SERVERS else None


@contextlib.contextmanager
def database_like(template: str, admin_dsn: str) -> Iterator[str]:
    """The DSN of a fresh database copied from `template`, dropped at the block's end."""
    name = f"t_{uuid4().hex}"
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        strategy = "STRATEGY file_copy" if connection.info.server_version >= 150_000 else ""  # half the work
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} {}").format(
                sql.Identifier(name), sql.Identifier(template), sql.SQL(strategy)
            )
        )
    try:
        yield psycopg.conninfo.make_conninfo(admin_dsn, dbname=name)
    finally:
        with psycopg.connect(admin_dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.asynccontextmanager
async def locked(dsn: str, table: str, mode: str = "EXCLUSIVE") -> AsyncIterator[None]:
    """Lock `table` for the length of the block. The loop runs on while the lock is waited for."""
    async with await psycopg.AsyncConnection.connect(dsn) as holding:
        await holding.execute(f"LOCK TABLE {table} IN {mode} MODE".encode())
        yield


@dataclass
class HeldAgent(AgentStandIn):
    """A stand-in Agent SDK that takes webhooks and, between `hold` and `release`, answers none of them."""

    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _answered_first: int = 0
    _holds: bool = False

    def hold(self, *, after: int = 0) -> None:
        """Answer only the next `after` webhooks until `release`."""
        self._released.clear()
        self._holds, self._answered_first = True, after

    def release(self) -> None:
        """Answer those that wait and all later ones."""
        self._holds = False
        self._released.set()

    async def _webhook(self, request: web.Request) -> web.StreamResponse:
        answer = await super()._webhook(request)
        if self._holds and self._answered_first == 0:
            await self._released.wait()
        elif self._holds:
            self._answered_first -= 1
        return answer


class RunningRelay:
    """A relay in the test's own loop, on a real socket and a real database.

    `output` is what it logged. `post` sends a webhook as Chatwoot would; `stop` ends it as SIGTERM does.
    """

    def __init__(self, settings: Settings, dsn: str) -> None:
        self.settings = settings
        self.dsn = dsn
        self._stream = io.StringIO()
        self._sink = LogSink(stream=self._stream, level="debug")
        self._stop = asyncio.Event()
        bound = listen(settings.relay_bind)[0]
        self.url = bound_url(bound)
        self.port = bound.getsockname()[1]
        self.identity = Identity(relay_name(bound), uuid4())
        serving = serve_worker(settings, dsn, self.identity, Sockets(bound), self._sink, self._stop)
        self._task = asyncio.create_task(serving)
        self.client = httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S, verify=False)

    @property
    def output(self) -> str:
        """What it has logged so far."""
        return self._stream.getvalue()

    async def ready(self) -> RunningRelay:
        """Wait until it stores webhooks in Postgres."""
        await until(self._is_healthy, what="the relay is healthy")
        return self

    async def _is_healthy(self) -> bool:
        assert not self._task.done(), self._task.exception()
        try:
            return (await self.client.get("/health")).json()["status"] == "ok"
        except httpx.TransportError:
            return False

    async def post(self, body: bytes | dict[str, Any], **headers: str) -> httpx.Response:
        """Post a webhook. Header names are given with underscores for dashes."""
        sent = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        if isinstance(body, bytes):
            return await self.client.post(WEBHOOK_PATH, content=body, headers=sent)
        return await self.client.post(WEBHOOK_PATH, json=body, headers=sent)

    async def stop(self) -> None:
        """Drain and end it."""
        self._stop.set()
        await self._task
        await self.client.aclose()
        self._sink.close()


def relay_settings(agent: AgentStandIn | str, **overrides: Any) -> Settings:
    """Settings for a test's relay: any free port, waits short unless the test is about them, no `.env`."""
    given: dict[str, Any] = {
        "agent_sdk_url": agent if isinstance(agent, str) else agent.url,
        "relay_bind": "127.0.0.1:0",
        "chatwoot_webhook_base_delay_ms": 1,
        "chatwoot_webhook_response_deadline_ms": ANSWER_MS,
        "relay_lease_seconds": 60,
        "relay_probe_seconds": 3600,
        "relay_spool_max_bytes": 0,  # a test that is about the spool gives it a directory of its own
    }
    return load_settings(_env_file=None, **(given | overrides))


@contextlib.contextmanager
def program(*arguments: str, env: dict[str, str] | None = None, out: Any = subprocess.DEVNULL) -> Iterator[Any]:
    """A Python program as a process for the length of the block; ended by SIGTERM, if it has not ended."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | PATIENT | (env or {}), stdout=out,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_healthy(port: int, seconds: float = PATIENCE_S) -> None:
    """Until the relay on `port` answers its health check with 200."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


__all__ = [
    "ANSWER_MS", "AT_ONCE_S", "PATIENCE_S", "PATIENT", "ROOT", "AgentStandIn", "Behaviour", "HeldAgent", "Rows",
    "RunningRelay", "database_like", "folder_in_memory", "free_port", "locked", "program", "relay_settings", "until",
    "wait_for", "wait_until_healthy",
]  # fmt: skip
