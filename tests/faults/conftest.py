"""Relays as processes that can be killed, and senders that keep a ledger."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from relay.settings import WEBHOOK_PATH
from tests.faults.load import Load
from tests.servers import PATIENCE_S, ROOT, free_port, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.faults.ledger import Ledger
    from tests.servers import AgentStandIn


def pytest_addoption(parser: pytest.Parser) -> None:
    """The length of the long tests."""
    parser.addoption("--faults-rounds", type=int, default=3, help="rounds of the fault tests that kill at random")


_HURRIED = """
from relay import cli
from relay.intake import webhook
from relay.server import http
http.FIRST_REQUEST_S = http.READ_WITHIN_S = webhook.BODY_TIMEOUT_S = {patience_s}
cli.cli(["serve"])
"""


class RelayProcess:
    """A `relay serve` as a process. Started again after its end it has the same name, for that is its address."""

    def __init__(self, port: int, env: dict[str, str], log: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._env = env | {"RELAY_BIND": f"127.0.0.1:{port}"}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._program = ["-m", "relay", "serve"]
        self._awaited = "ok"

    def hurry(self, patience_s: float) -> RelayProcess:
        """Have it wait no longer than that for heads, bodies and readers, from its next start on."""
        self._program = ["-c", _HURRIED.format(patience_s=patience_s)]
        return self

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """All that it has logged, in all of its lives."""
        return self._log.read_text(encoding="utf-8")

    @property
    def is_running(self) -> bool:
        """True until it has ended."""
        return self._process is not None and self._process.poll() is None

    def spawn(self, **env: str) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._program],
                cwd=ROOT, env=os.environ | self._env | env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    async def start(self, *, without_postgres: bool = False, **env: str) -> RelayProcess:
        """Start it and wait until it takes webhooks: into Postgres, or into its spool."""
        self.spawn(**env)
        self._awaited = "spooling" if without_postgres else "ok"
        await until(self._is_healthy, what="the relay is healthy")
        return self

    async def _is_healthy(self) -> bool:
        return await self.has_health(200, self._awaited)

    async def has_health(self, status: int, state: str) -> bool:
        """True if its health check answers so now."""
        assert self.is_running, self.output[-2000:]
        async with httpx.AsyncClient() as client:
            try:
                answer = await client.get(f"{self.url}/health", timeout=10)
            except httpx.TransportError:
                return False
            return (answer.status_code, answer.json()["status"]) == (status, state)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """`kill -9`, workers and all."""
        os.killpg(self.pid, signal.SIGKILL)
        await self.ended()

    async def ended(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for its end; returns its exit status."""
        assert self._process is not None
        return await asyncio.wait_for(asyncio.to_thread(self._process.wait), patience_s)

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)
            assert self._process is not None
            self._process.wait()


@pytest.fixture
def make_relay(agent: AgentStandIn, dsn: str, tmp_path: Path) -> Iterator[Callable[..., RelayProcess]]:
    """Makes relays, not yet started, that forward to `agent`; settings by their variables' names in lower case."""
    relays: list[RelayProcess] = []

    def make(**settings: Any) -> RelayProcess:
        env = {
            "DATABASE_URL": dsn,
            "AGENT_SDK_URL": agent.url,
            "CHATWOOT_WEBHOOK_BASE_DELAY_MS": "1",
            "RELAY_LEASE_SECONDS": "2",
            "RELAY_PROBE_SECONDS": "3600",
            "HOME": str(tmp_path),
        } | {name.upper(): str(value) for name, value in settings.items()}
        port = free_port()
        relays.append(RelayProcess(port, env, tmp_path / f"relay-{port}.log"))
        return relays[-1]

    yield make
    for relay in relays:
        relay.close()


class Senders:
    """Clients that post webhooks and record the answers."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def post(self, url: str, ledger: Ledger, delivery_id: str = "", conversation: int | None = None) -> int:
        """Post one webhook; the status of the answer, 0 if there was none."""
        delivery_id = delivery_id or str(uuid4())
        body = {"event": "message_created", "id": len(ledger.statuses), "message_type": "incoming"}
        ledger.statuses[delivery_id] = 0
        if conversation is not None:
            body["conversation"] = {"id": conversation}
            ledger.conversations.setdefault(conversation, []).append(delivery_id)
        sent_at = time.monotonic()
        try:
            answer = await self.client.post(
                url + WEBHOOK_PATH, json=body, headers={"X-Chatwoot-Delivery": delivery_id}, timeout=PATIENCE_S
            )
        except httpx.TransportError:
            return 0
        ledger.statuses[delivery_id] = answer.status_code
        if answer.status_code == 503:
            ledger.refusals.append(answer.json()["error"])
        ledger.spooled += answer.status_code == 202 and "spooled" in answer.json()
        if answer.status_code == 200:
            ledger.good_since = max(ledger.good_since, sent_at)
        return answer.status_code

    async def keep_posting(self, urls: list[str], ledger: Ledger, clients: int, stop: asyncio.Event) -> None:
        """`clients` clients post one after another to `urls` in turn until `stop`, each in its own conversation.

        A client whose webhook was not answered 200 waits a little, as senders do that have no more to send.
        """

        async def one(number: int) -> None:
            while not stop.is_set():
                if await self.post(urls[number % len(urls)], ledger, conversation=number) != 200:
                    await asyncio.sleep(0.1)

        await asyncio.gather(*(one(number) for number in range(clients)))


@pytest_asyncio.fixture
async def senders() -> AsyncIterator[Senders]:
    """Clients."""
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=200)) as client:
        yield Senders(client)


@pytest_asyncio.fixture
async def load(senders: Senders, agent: AgentStandIn) -> AsyncIterator[Load]:
    """Clients that have not begun to post."""
    agent.latency_ms = 10
    made = Load(senders, agent)
    yield made
    await made.stop()


Survived = Callable[[str, Mapping[str, int], float], None]


@pytest.fixture
def survived(record_property: Callable[[str, object], None]) -> Survived:
    """Records a fault's cost for the README's table: `sent`, `refused`, `lost`, `copies`, and seconds to recover."""

    def note(fault: str, counts: Mapping[str, int], recovery_s: float) -> None:
        record_property("survived", {"fault": fault, **counts, "recovery_s": recovery_s})

    return note
