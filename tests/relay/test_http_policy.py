"""Forwarding and probes follow one policy: the proxies of the environment, the system's certificates, any host form."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from relay.monitoring.probes import agent_probe, run_probes
from tests.servers import relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import pytest

    from tests.servers import HeldAgent, RunningRelay

PAYLOAD = {"event": "message_created", "id": 9}


@asynccontextmanager
async def answering(context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[str]]]:
    """A server that answers every request with 200: its port, and the URLs that it was asked for, as they were sent."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        asked.append(request._message.path)
        return web.json_response({"status": "drafted"})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1], asked
    finally:
        await runner.cleanup()


async def reached(relay: RunningRelay, url: str) -> tuple[str, bool]:
    """What becomes of a webhook, and of a probe, whose agent is at `url`."""
    answer = await relay.post(PAYLOAD)
    (probe,) = await run_probes([agent_probe(relay_settings(url))])
    return str(answer.json().get("agent_status")), probe.ok


async def test_both_use_the_proxy_of_the_environment_and_heed_no_proxy(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: HeldAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    async with answering() as (port, asked):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        far, near = "http://agent.invalid:8787", agent.url
        assert await reached(await start_relay(agent=far), far) == ("drafted", True)
        assert set(asked) == {f"{far}/webhooks/chatwoot", f"{far}/health"}
        assert (await reached(await start_relay(agent=near), near))[1]
        assert len(agent.seen) == 1
        assert not any(near in url for url in asked)


async def test_both_trust_a_certificate_of_the_system_and_no_other(
    start_relay: Callable[..., Awaitable[RunningRelay]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    await asyncio.to_thread(
        subprocess.run,
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with answering(context) as (port, _):
        url = f"https://localhost:{port}"
        assert await reached(await start_relay(agent=url, chatwoot_webhook_max_attempts=1), url) == ("None", False)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert await reached(await start_relay(agent=url), url) == ("drafted", True)


async def test_both_read_a_short_address_as_the_resolver_does(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: HeldAgent
) -> None:
    url = agent.url.replace("127.0.0.1", "127.1")
    relay = await start_relay(agent=url)
    assert (await reached(relay, url))[1]
    assert len(agent.seen) == 1
