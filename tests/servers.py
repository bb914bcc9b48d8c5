"""The real servers that tests and benchmarks run against: Postgres, relays in this loop and as processes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import psycopg
from psycopg import sql

from relay.demo.agent import AgentStandIn, Behaviour
from relay.logs import LogSink
from relay.runtime import Identity
from relay.serve import bound_url, listen, relay_name, serve_worker
from relay.settings import WEBHOOK_PATH, Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parents[1]
PATIENCE_S = 12.0
AT_ONCE_S = 60
"""The end of a test of what takes milliseconds: no slow machine comes near it, what compares all with all would."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def until(condition: Callable[[], Any], *, patience_s: float = PATIENCE_S, what: str = "") -> Any:
    """The first true value of `condition()`, which may be a coroutine function; fails after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what or inspect.getsource(condition)}"
        await asyncio.sleep(0.01)


def wait_for(condition: Callable[[], Any], *, patience_s: float = PATIENCE_S, what: str = "") -> Any:
    """`until`, for tests without a loop."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what or inspect.getsource(condition)}"
        time.sleep(0.01)
    return value


class Rows:
    """Plain SQL against a test's database."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def __call__(self, statement: str, parameters: Sequence[Any] | dict[str, Any] | None = None) -> list[Any]:
        """The rows of `statement`; those of one column as its values."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            if cursor.description is None:
                return []
            rows = cursor.fetchall()
        return [row[0] for row in rows] if len(cursor.description) == 1 else rows

    def one(self, statement: str, parameters: Sequence[Any] | dict[str, Any] | None = None) -> Any:
        """The only row of `statement`."""
        (row,) = self(statement, parameters)
        return row

    def facts(self, fact_type: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """`(value, metadata)` of every fact of a kind, oldest first."""
        return self("SELECT value, metadata FROM dashboard_facts WHERE fact_type = %s ORDER BY id", (fact_type,))


@contextlib.contextmanager
def database_like(template: str, admin_dsn: str) -> Iterator[str]:
    """The DSN of a fresh database copied from `template`, dropped at the block's end."""
    name = f"t_{uuid4().hex}"
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    try:
        yield psycopg.conninfo.make_conninfo(admin_dsn, dbname=name)
    finally:
        with psycopg.connect(admin_dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


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
        self._task = asyncio.create_task(serve_worker(settings, dsn, self.identity, bound, self._sink, self._stop))
        self.client = httpx.AsyncClient(base_url=self.url, timeout=60)

    @property
    def output(self) -> str:
        """What it has logged so far."""
        return self._stream.getvalue()

    async def ready(self) -> RunningRelay:
        """Wait until it takes webhooks."""
        await until(self._is_healthy, what="the relay is healthy")
        return self

    async def _is_healthy(self) -> bool:
        assert not self._task.done(), self._task.exception()
        try:
            return (await self.client.get("/health")).status_code == 200
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
        "relay_lease_seconds": 2,
        "relay_probe_seconds": 3600,
    }
    return load_settings(_env_file=None, **(given | overrides))


@contextlib.contextmanager
def program(*arguments: str, env: dict[str, str] | None = None, out: Any = subprocess.DEVNULL) -> Iterator[Any]:
    """A Python program as a process for the length of the block; ended by SIGTERM, if it has not ended."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | (env or {}), stdout=out, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_healthy(port: int, seconds: float = 30) -> None:
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
    "AT_ONCE_S", "PATIENCE_S", "ROOT", "AgentStandIn", "Behaviour", "Rows", "RunningRelay", "database_like",
    "free_port", "program", "relay_settings", "until", "wait_for", "wait_until_healthy",
]  # fmt: skip
