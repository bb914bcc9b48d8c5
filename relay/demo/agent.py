"""A stand-in Agent SDK whose behaviour is set by tests and drills: answer, refuse, stall, hang, reset, send garbage.

Told in process (`agent.behave(...)`) or over HTTP (`POST /standin/behave` with the same fields as JSON), also
when run by itself: `python -m relay.demo.agent --port 8787`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
from collections import deque
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import httpx
from aiohttp import web

from relay.domain.headers import POST_TEST, TEST_HEADER
from relay.settings import AGENT_PATH

KEPT_REQUESTS = 200_000


class Mode(StrEnum):
    """What the agent does with a webhook."""

    ANSWER = "answer"  # with `status`; 200 drafts a reply
    HANG = "hang"  # take it and never answer
    DRIP = "drip"  # answer a byte a second
    RESET = "reset"  # cut the connection instead of answering
    RESET_DURING = "reset-during"  # cut it in the middle of the answer
    GARBAGE = "garbage"  # answer what is not HTTP
    HUGE = "huge"  # answer 100 MB


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How to treat webhooks, until `times` of them have been (None: until the next `behave`).

    `error` is the reason in an answer that is no success. `delay_ms` passes first. With `conversations`, only webhooks
    of those conversations are concerned.
    """

    mode: Mode = Mode.ANSWER
    status: int = 200
    error: str | None = None
    retry_after: str | None = None
    location: str | None = None
    delay_ms: float = 0
    times: int | None = None
    conversations: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One webhook that the agent was sent. `status` is what it answered, 0 for nothing."""

    at: datetime
    delivery_id: str
    attempt: str
    headers: dict[str, str]
    sha256: str
    body: bytes
    status: int


@dataclass(slots=True)
class _Left:
    behaviour: Behaviour
    times: int | None


@dataclass(slots=True)
class AgentStandIn:
    """The stand-in, bound to `host:port` by `start`; port 0 is any free one.

    With `upstream`, a real agent's URL, webhooks without a behaviour of their own are handed on to that one.
    `seen` is every webhook it was sent, newest last; bodies are kept only with `keep_bodies`.
    """

    host: str = "127.0.0.1"
    port: int = 0
    keep_bodies: bool = True
    healthy: bool = True
    latency_ms: float = 0
    upstream: str = ""
    seen: deque[Seen] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    _behaviours: list[_Left] = field(default_factory=list)
    _runner: web.AppRunner | None = None
    _client: httpx.AsyncClient | None = None

    @property
    def url(self) -> str:
        """What `AGENT_SDK_URL` must be to reach it."""
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen. Also undoes `refuse`."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post(AGENT_PATH, self._webhook)
        app.router.add_get("/health", self._health)
        app.router.add_post("/standin/behave", self._behave)
        app.router.add_get("/standin/seen", self._show_seen)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handle_signals=False, auto_decompress=False
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, backlog=2048, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def refuse(self) -> None:
        """Stop listening, so that connections are refused, until `start`."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    stop = refuse

    async def accept(self) -> None:
        """Listen again, if it does not."""
        if self._runner is None:
            await self.start()

    def behave(self, *behaviours: Behaviour) -> None:
        """Do this from now on, the first that concerns a webhook and has `times` left; nothing: answer 200."""
        self._behaviours = [_Left(behaviour, behaviour.times) for behaviour in behaviours]

    def _choose(self, body: bytes) -> Behaviour:
        conversation = _conversation(body) if any(t.behaviour.conversations for t in self._behaviours) else None
        for left in self._behaviours:
            concerned = left.behaviour.conversations is None or conversation in left.behaviour.conversations
            if concerned and left.times != 0:
                if left.times is not None:
                    left.times -= 1
                return left.behaviour
        return Behaviour()

    async def _webhook(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        behaviour = self._choose(body)
        answers = behaviour.mode in {Mode.ANSWER, Mode.DRIP, Mode.HUGE}
        self.seen.append(
            Seen(
                at=datetime.now(UTC),
                delivery_id=request.headers.get("X-Chatwoot-Delivery", ""),
                attempt=request.headers.get("X-Relay-Attempt", ""),
                headers={name.lower(): value for name, value in request.headers.items()},
                sha256=hashlib.sha256(body).hexdigest(),
                body=body if self.keep_bodies else b"",
                status=behaviour.status if answers else 0,
            )
        )
        if behaviour.delay_ms or self.latency_ms:
            await asyncio.sleep((behaviour.delay_ms or self.latency_ms) / 1000)
        if self.upstream and behaviour.mode is Mode.ANSWER and behaviour.status == web.HTTPOk.status_code:
            return await self._hand_on(request, body)
        return await _respond(request, behaviour, body)

    async def _hand_on(self, request: web.Request, body: bytes) -> web.Response:
        """What the real agent behind it answers."""
        own = {"host", "content-length", "connection"}
        headers = {name: value for name, value in request.headers.items() if name.lower() not in own}
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=30)
        try:
            answer = await self._client.post(self.upstream + AGENT_PATH, content=body, headers=headers)
        except httpx.HTTPError:
            return web.json_response({"error": "the agent behind the stand-in does not answer"}, status=502)
        return web.Response(body=answer.content, status=answer.status_code, content_type="application/json")

    async def _health(self, _: web.Request) -> web.Response:
        down = not self.healthy
        return web.json_response({"status": "down" if down else "ok"}, status=503 if down else 200)

    async def _behave(self, request: web.Request) -> web.Response:
        asked = await request.json()
        behaviours = asked if isinstance(asked, list) else [asked]
        try:
            self.behave(*(_behaviour(item) for item in behaviours))
        except (TypeError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"behaviours": len(behaviours)})

    async def _show_seen(self, _: web.Request) -> web.Response:
        rows = [asdict(seen) | {"at": seen.at.isoformat(), "body": None} for seen in self.seen]
        return web.json_response(rows)


def _behaviour(item: dict[str, Any]) -> Behaviour:
    fields = dict(item)
    if "mode" in fields:
        fields["mode"] = Mode(fields["mode"])
    if fields.get("conversations") is not None:
        fields["conversations"] = frozenset(fields["conversations"])
    return Behaviour(**fields)


def _conversation(body: bytes) -> int | None:
    try:
        payload = json.loads(body)
        conversation = payload.get("conversation")
        found = conversation.get("id") if isinstance(conversation, dict) else payload.get("id")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, int) else None


async def _respond(request: web.Request, behaviour: Behaviour, body: bytes) -> web.StreamResponse:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the relay closed the connection before the answer")
    if behaviour.mode is Mode.HANG:
        await asyncio.sleep(3600)
    if behaviour.mode is Mode.RESET:
        transport.abort()
        await asyncio.sleep(3600)
    if behaviour.mode is Mode.GARBAGE:
        transport.write(b"\x00\x01 this is not HTTP\r\n\r\n")
        transport.close()
        await asyncio.sleep(3600)
    if behaviour.mode in {Mode.DRIP, Mode.HUGE, Mode.RESET_DURING}:
        return await _respond_slowly(request, behaviour)
    headers = {} if behaviour.retry_after is None else {"Retry-After": behaviour.retry_after}
    if behaviour.location is not None:
        headers["Location"] = behaviour.location
    if not 200 <= behaviour.status < 300:
        document = (
            {"detail": f"set to answer {behaviour.status}"} if behaviour.error is None else {"error": behaviour.error}
        )
        return web.json_response(document, status=behaviour.status, headers=headers)
    draft: dict[str, Any] = {"status": "draft_ready", "conversation_id": _conversation(body)}
    if request.headers.get(TEST_HEADER, POST_TEST) != POST_TEST:
        draft |= {"status": "drafted", "posted": False, "test": True}
    return web.json_response(draft, status=behaviour.status, headers=headers)


async def _respond_slowly(request: web.Request, behaviour: Behaviour) -> web.StreamResponse:
    response = web.StreamResponse(status=behaviour.status, headers={"Content-Type": "application/json"})
    size = 100_000_000 if behaviour.mode is Mode.HUGE else 64
    response.content_length = size
    await response.prepare(request)
    if behaviour.mode is Mode.RESET_DURING:
        await response.write(b'{"status":')
        assert request.transport is not None
        request.transport.abort()
        await asyncio.sleep(3600)
    if behaviour.mode is Mode.DRIP:
        for _ in range(size):
            await response.write(b" ")
            await asyncio.sleep(1)
    with contextlib.suppress(ConnectionError):
        for _ in range(size // 100_000):
            await response.write(b" " * 100_000)
    return response


async def _main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in Agent SDK whose behaviour can be set.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8787)
    options = parser.parse_args()
    agent = AgentStandIn(options.host, options.port, keep_bodies=False)
    await agent.start()
    print(agent.url, flush=True)  # noqa: T201 - the address is what the caller needs
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
