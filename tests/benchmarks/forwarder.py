"""The limit: the relay's route on the relay's server, which forwards a webhook and stores nothing.

As a program: `python -m tests.benchmarks.forwarder BIND AGENT_URL WORKERS`. Nothing here survives a crash.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import httpx

from relay.forwarding.agent_transport import AgentTransport
from relay.intake.asgi import Answer, body_parts
from relay.intake.receipt import read_receipt
from relay.server.http import serve_http
from relay.server.listener import listen, run_loop
from relay.server.supervisor import settle_garbage_collection
from relay.settings import WEBHOOK_PATH

if TYPE_CHECKING:
    from relay.domain.delivery import Headers


class Forwarder:
    """Checks a webhook as the relay does, posts it to the agent, passes on how that went."""

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self._client: httpx.AsyncClient | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        answer = Answer(200, {})
        if scope["path"] == WEBHOOK_PATH:
            headers = tuple((name.decode(), value.decode()) for name, value in scope["headers"])
            answer = await self._forward(headers, b"".join([part async for part in body_parts(receive)]))
        await answer.send(send)

    async def _forward(self, headers: Headers, body: bytes) -> Answer:
        if self._client is None:
            self._client = httpx.AsyncClient(transport=AgentTransport(None), timeout=None)
        receipt = read_receipt(headers, body)
        sent = {"content-type": "application/json", "x-chatwoot-delivery": receipt.delivery_id}
        answer = await self._client.post(f"{self._agent}/webhooks/chatwoot", content=body, headers=sent)
        return Answer(answer.status_code, {"success": True})


def main(bind: str, agent: str, workers: int) -> None:
    """Serve until SIGTERM."""
    sockets = listen(bind, workers)
    for bound in sockets[1:]:
        if os.fork() == 0:
            sockets = [bound]
            break
    settle_garbage_collection()
    run_loop(serve_http(Forwarder(agent), sockets[0], asyncio.Event(), answer_s=1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
