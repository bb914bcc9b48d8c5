"""A stand-in Chatwoot: answers the health check and the API, and posts webhooks as Chatwoot does.

As Chatwoot does means: serialised once as Rails does, signed over timestamp and body, five seconds, one
attempt, gone (chatwoot/CONTRACT).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
from aiohttp import web

from relay.chatwoot.samples import EVENTS, documented_payload
from relay.chatwoot.signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

TIMEOUT_S = 5
MESSAGES_A_PAGE = 20
_RAILS_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def rails_json(payload: object) -> bytes:
    """`payload` as Rails' `to_json` writes it: compact, UTF-8, with `<`, `>`, `&`, U+2028 and U+2029 escaped."""
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_RAILS_ESCAPES).encode()


@dataclass(frozen=True, slots=True)
class Sent:
    """One webhook that was posted. `status` is the answer's, None for a failure or none in time."""

    delivery_id: str
    status: int | None
    body: bytes
    answer: dict[str, Any] | None


@dataclass(slots=True)
class ChatwootStandIn:
    """The stand-in, bound to `host:port` by `start`; port 0 is any free one.

    While it is `mute` it takes new messages and does not answer.
    """

    host: str = "127.0.0.1"
    port: int = 0
    account_id: int = 1
    api_key: str = "demo-api-key"
    secret: bytes = b"demo-webhook-secret"
    webhook_url: str = ""
    healthy: bool = True
    mute: bool = False
    subscriptions: tuple[str, ...] = ("message_created", "conversation_status_changed")
    conversations: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    _echoes: set[asyncio.Task[Sent]] = field(default_factory=set, repr=False)
    _runner: web.AppRunner | None = None
    _client: httpx.AsyncClient | None = field(default=None, repr=False)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(900_000), repr=False)

    @property
    def url(self) -> str:
        """What `CHATWOOT_BASE_URL` must be to reach it."""
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen, and be ready to post."""
        app = web.Application()
        app.router.add_get("/rails/health", self._health)
        app.router.add_get("/api/v1/accounts/{account}", self._account)
        app.router.add_get("/api/v1/accounts/{account}/webhooks", self._webhooks)
        messages = "/api/v1/accounts/{account}/conversations/{conversation}/messages"
        app.router.add_get(messages, self._messages)
        app.router.add_post(messages, self._new_message)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S)

    async def stop(self) -> None:
        """Stop listening."""
        await asyncio.gather(*self._echoes, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def notes(self) -> list[dict[str, Any]]:
        """The private notes that were posted, oldest first of each conversation."""
        return [one for messages in self.conversations.values() for one in messages if one["private"]]

    async def post(self, payload: dict[str, Any], *, delivery_id: str | None = None) -> Sent:
        """Post a webhook to `webhook_url`: signed, one attempt, five seconds."""
        assert self._client is not None
        body = rails_json(payload)
        delivery_id = delivery_id or str(uuid4())
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            DELIVERY_HEADER: delivery_id,
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: sign(self.secret, timestamp, body),
        }
        try:
            response = await self._client.post(self.webhook_url, content=body, headers=headers)
        except httpx.HTTPError:
            return Sent(delivery_id, None, body, None)
        try:
            return Sent(delivery_id, response.status_code, body, response.json())
        except ValueError:
            return Sent(delivery_id, response.status_code, body, None)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "woot"}, status=200 if self.healthy else 503)

    async def _account(self, request: web.Request) -> web.Response:
        return self._for_account(request, {"id": self.account_id, "name": "Acme Inc"})

    async def _webhooks(self, request: web.Request) -> web.Response:
        webhook = {"id": 1, "url": self.webhook_url, "subscriptions": list(self.subscriptions)}
        return self._for_account(request, {"payload": {"webhooks": [webhook]}})

    async def _messages(self, request: web.Request) -> web.Response:
        messages = self.conversations.get(_conversation(request), [])
        return self._for_account(request, {"meta": {}, "payload": messages[-MESSAGES_A_PAGE:]})

    async def _new_message(self, request: web.Request) -> web.Response:
        """Take a message through the API, and send its own webhook, as Chatwoot does (CONTRACT, "loops")."""
        refused = self._for_account(request, {})
        if refused.status != web.HTTPOk.status_code:
            return refused
        given, conversation = await request.json(), _conversation(request)
        message = {
            "id": next(self._ids),
            "content": given["content"],
            "message_type": 1,
            "private": bool(given.get("private")),
            "content_attributes": given.get("content_attributes") or {},
            "conversation_id": conversation,
        }
        self.conversations.setdefault(conversation, []).append(message)
        if self.webhook_url:
            echo = {"event": "message_created", **message, "message_type": "outgoing"}
            task = asyncio.create_task(self.post(echo | {"conversation": {"id": conversation}}))
            self._echoes.add(task)
            task.add_done_callback(self._echoes.discard)
        if self.mute:
            await asyncio.sleep(3600)
        return web.json_response(message)

    def _for_account(self, request: web.Request, answer: dict[str, Any]) -> web.Response:
        if request.headers.get("api_access_token") != self.api_key:
            return web.json_response({"error": "Invalid Access Token"}, status=401)
        if request.match_info["account"] != str(self.account_id):
            return web.json_response({"error": "Resource could not be found"}, status=404)
        return web.json_response(answer)


def _conversation(request: web.Request) -> int:
    return int(request.match_info["conversation"])


__all__ = ["EVENTS", "ChatwootStandIn", "Sent", "documented_payload", "rails_json"]
