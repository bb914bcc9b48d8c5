"""The limit: the relay's route on the relay's server, which forwards a webhook and stores nothing.

As a program: `python -m tests.benchmarks.forwarder BIND AGENT_URL WORKERS`. Nothing here survives a crash.
"""

from __future__ import annotations

import asyncio
import os
import sys

import httpx
from httpx_aiohttp import AiohttpTransport
from quart import Quart, Response, request

from relay.forwarding.forwarder import _session
from relay.intake.app import _NoSessions
from relay.intake.receipt import read_receipt
from relay.server.listener import listen, run_loop, serve_http
from relay.server.supervisor import settle_garbage_collection
from relay.settings import WEBHOOK_PATH


def create_app(agent: str) -> Quart:
    """Check the webhook as the relay does, post it to the agent, pass on how that went."""
    app = Quart("forwarder", static_folder=None)
    app.config.update(BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    app.session_interface = _NoSessions()
    client: httpx.AsyncClient | None = None

    @app.post(WEBHOOK_PATH)
    async def webhook() -> Response:
        nonlocal client
        if client is None:
            client = httpx.AsyncClient(transport=AiohttpTransport(client=_session), timeout=None)
        body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
        receipt = read_receipt(tuple((name.decode(), value.decode()) for name, value in request.scope["headers"]), body)
        headers = {"content-type": "application/json", "x-chatwoot-delivery": receipt.delivery_id}
        answer = await client.post(f"{agent}/webhooks/chatwoot", content=body, headers=headers)
        return Response(b'{"success": true}', status=answer.status_code, content_type="application/json")

    @app.get("/health")
    async def health() -> Response:
        return Response(b"{}", content_type="application/json")

    return app


def main(bind: str, agent: str, workers: int) -> None:
    """Serve until SIGTERM."""
    sockets = listen(bind, workers)
    for bound in sockets[1:]:
        if os.fork() == 0:
            sockets = [bound]
            break
    settle_garbage_collection()
    run_loop(serve_http(create_app(agent), sockets[0], asyncio.Event(), answer_s=1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
