"""The reference agent, in this loop or as a process, before the stand-in Chatwoot; and a language model's stand-in."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio
from aiohttp import web

from relay.agent.serve import SCOPE, serve_agent
from relay.server.listener import bound_url, listen
from relay.settings import AGENT_PATH, load_settings
from relay.telemetry.log_sink import LogSink
from tests.faults.conftest import RelayProcess
from tests.servers import PATIENCE_S, PATIENT, ROOT, free_port, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from relay.demo.chatwoot import ChatwootStandIn


def message(number: int = 1, **more: Any) -> dict[str, Any]:
    """A customer's message in conversation 7."""
    return {
        "event": "message_created", "id": number, "content": "Where is my order?", "message_type": "incoming",
        "private": False, "sender": {"id": 1, "name": "Maria", "type": "contact"}, "conversation": {"id": 7},
    } | more  # fmt: skip


def customer(chatwoot: ChatwootStandIn, text: str | None = "Where is my order?", **fields: Any) -> dict[str, Any]:
    """The webhook of a customer's message that is stored in the stand-in's conversation 7."""
    return chatwoot.payload_of(chatwoot.add_message(7, text, **fields))


class RunningAgent:
    """The agent at `url`; `output` is what it logged."""

    def __init__(self, url: str, stream: StringIO) -> None:
        self.url = url
        self._stream = stream
        self.client = httpx.AsyncClient(base_url=url, timeout=PATIENCE_S)

    @property
    def output(self) -> str:
        """Its log."""
        return self._stream.getvalue()

    async def post(self, payload: dict[str, Any], key: str = "a-key", **headers: str) -> httpx.Response:
        """Post a webhook as the relay does."""
        body = json.dumps(payload).encode()
        return await self.client.post(AGENT_PATH, content=body, headers={"idempotency-key": key} | headers)


def of_chatwoot(chatwoot: ChatwootStandIn) -> dict[str, Any]:
    """The settings that reach the stand-in."""
    return {
        "chatwoot_base_url": chatwoot.url,
        "chatwoot_api_key": chatwoot.api_key,
        "chatwoot_account_id": chatwoot.account_id,
        "agent_quiet_ms": 0,
    }


@pytest_asyncio.fixture
async def start_agent(dsn: str, chatwoot: ChatwootStandIn) -> AsyncIterator[Callable[..., Awaitable[RunningAgent]]]:
    """Starts reference agents in this loop; settings as keyword arguments."""
    stops: list[tuple[asyncio.Event, asyncio.Task[None], RunningAgent]] = []

    async def start(**settings: Any) -> RunningAgent:
        stream, stop, bound = StringIO(), asyncio.Event(), listen("127.0.0.1:0")[0]
        agent = RunningAgent(bound_url(bound), stream)
        loaded = load_settings(_env_file=None, **(of_chatwoot(chatwoot) | settings))
        log = LogSink(stream=stream).logger(SCOPE)
        stops.append((stop, asyncio.create_task(serve_agent(loaded, dsn, bound, log, stop)), agent))
        await until(lambda: _is_up(agent), what="the agent is up")
        return agent

    yield start
    for stop, task, agent in stops:
        await agent.client.aclose()
        stop.set()
        await task


async def _is_up(agent: RunningAgent) -> bool:
    try:
        return (await agent.client.get("/health")).status_code == 200
    except httpx.TransportError:
        return False


_HURRIED = """
from relay import cli
from relay.agent import attempt
attempt.SETTLE_S = {settle_s}
cli.main()
"""


class AgentProcess:
    """`relay agent serve` as a process."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder, self._env = folder, env
        self._program = ["-m", "relay"]
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, **env: str) -> AgentProcess:
        """Start it, or start it again, and wait until it is up."""
        self._spawn(env)
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S) as client:

            async def up() -> bool:
                assert self._process is not None
                assert self._process.poll() is None, (self._folder / "agent.log").read_text(encoding="utf-8")
                try:
                    return (await client.get("/health")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(up, what="the agent is up")
        return self

    def hurry(self, settle_s: float) -> AgentProcess:
        """Have it take a post whose end it does not know for settled after `settle_s`, from its next start on."""
        self._program = ["-c", _HURRIED.format(settle_s=settle_s)]
        return self

    def _spawn(self, env: dict[str, str]) -> None:
        with (self._folder / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._program, "agent", "serve", "--bind", f"127.0.0.1:{self.port}"],
                cwd=ROOT, env=os.environ | self._env | env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    async def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)

    def close(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def agent_process(dsn: str, chatwoot: ChatwootStandIn, tmp_path: Path) -> Iterator[AgentProcess]:
    """The agent, not yet started."""
    env = {name.upper(): str(value) for name, value in of_chatwoot(chatwoot).items()}
    process = AgentProcess(tmp_path, env | {"DATABASE_URL": dsn, "HOME": str(tmp_path)})
    yield process
    process.close()


@dataclass
class Model:
    """An OpenAI-compatible endpoint that answers `says`, or `status`; `asked` is what it was sent.

    `meanwhile` is done while it drafts. `spoken` is what every voice message contains; empty: it fails.
    """

    url: str = ""
    says: str = "A draft by a model."
    status: int = 200
    hang: bool = False
    spoken: str = "Hello, it's about my order."
    asked: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    recordings: list[tuple[str, bytes]] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[object]] | None = None

    @property
    def turns(self) -> list[tuple[str, Any]]:
        """Role and content of what the last question held, the prompt left out."""
        return [(one["role"], one["content"]) for one in self.asked[-1][1]["messages"][1:]]

    async def answer(self, request: web.Request) -> web.Response:
        """One completion."""
        self.asked.append((dict(request.headers), await request.json()))
        if self.hang:
            await asyncio.sleep(3600)
        if self.meanwhile is not None:
            await self.meanwhile()
        return web.json_response(
            {"choices": [{"message": {"role": "assistant", "content": self.says}}]}, status=self.status
        )

    async def transcribe(self, request: web.Request) -> web.Response:
        """One transcription."""
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        self.recordings.append((str(form["model"]), file.file.read()))
        return web.json_response({"text": self.spoken}, status=200 if self.spoken else 500)


@pytest_asyncio.fixture
async def model() -> AsyncIterator[Model]:
    """A language model's stand-in, a real HTTP server."""
    stand_in, app = Model(), web.Application()
    app.router.add_post("/v1/chat/completions", stand_in.answer)
    app.router.add_post("/v1/audio/transcriptions", stand_in.transcribe)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stand_in.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield stand_in
    await runner.cleanup()


@pytest.fixture
def relay_process(
    dsn: str, agent_process: AgentProcess, chatwoot: ChatwootStandIn, tmp_path: Path
) -> Iterator[RelayProcess]:
    """A relay before the agent, not yet started; Chatwoot's webhook points to it."""
    env = PATIENT | {
        "DATABASE_URL": dsn, "AGENT_SDK_URL": agent_process.url, "RELAY_PROBE_SECONDS": "3600",
        "RELAY_LEASE_SECONDS": "600", "HOME": str(tmp_path),
        # attempts for five minutes: longer than any start of the agent takes
        "CHATWOOT_WEBHOOK_MAX_ATTEMPTS": "100", "CHATWOOT_WEBHOOK_BASE_DELAY_MS": "100",
        "CHATWOOT_WEBHOOK_BACKOFF_FACTOR": "1.5", "CHATWOOT_WEBHOOK_MAX_DELAY_MS": "3000",
    }  # fmt: skip
    relay = RelayProcess(free_port(), env, tmp_path / "relay.log")
    chatwoot.webhook_url = relay.url + "/api/webhooks/chatwoot"
    yield relay
    relay.close()
