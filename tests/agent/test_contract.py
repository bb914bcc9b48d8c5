"""`relay agent check`: the reference agent keeps to the contract, and what breaks it is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from relay.agent.contract import ContractCheck, Result
from relay.settings import AGENT_PATH, load_settings
from tests.agent.conftest import of_chatwoot
from tests.servers import AgentStandIn, Behaviour

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.agent.conftest import RunningAgent
    from tests.conftest import CommandLine

SECRET = "s3cret"
LARGE = 1_500_000


async def results(url: str, *, large_bytes: int = LARGE, **more: Any) -> dict[str, tuple[Result, str]]:
    """Result and detail of each check of the agent at `url`."""
    settings = load_settings(_env_file=None, agent_sdk_url=url, chatwoot_webhook_secret=SECRET, **more)
    return {one.name: (one.result, one.detail) async for one in ContractCheck(settings, large_bytes=large_bytes).run()}


def not_ok(found: dict[str, tuple[Result, str]]) -> dict[str, Result]:
    """The checks that are not ok."""
    return {name: result for name, (result, _) in found.items() if result is not Result.OK}


async def test_the_reference_agent_keeps_to_it_and_posts_nothing(
    start_agent: Callable[..., Awaitable[RunningAgent]], chatwoot: ChatwootStandIn
) -> None:
    agent = await start_agent(**of_chatwoot(chatwoot), chatwoot_webhook_secret=SECRET)
    assert not_ok(await results(agent.url, large_bytes=32 * 1024 * 1024)) == {}
    assert chatwoot.notes == []


async def test_what_breaks_it_is_named(agent: AgentStandIn) -> None:
    cases: list[tuple[list[Behaviour], dict[str, Result]]] = [
        ([Behaviour(status=404)], dict.fromkeys(FORWARDED, Result.FAILED) | {"signature": Result.WARNING}),
        ([Behaviour(status=503)], dict.fromkeys(FORWARDED, Result.FAILED) | {"at once": Result.WARNING}),
    ]
    for behaviours, expected in cases:
        agent.behave(*behaviours)
        found = not_ok(await results(agent.url))
        assert {name: found.get(name) for name in expected} == expected, behaviours
    agent.behave()
    agent.healthy = False
    found = await results(agent.url)
    assert found["health"] == (Result.FAILED, "GET /health: 503")
    assert not_ok(found) == {"health": Result.FAILED, "signature": Result.WARNING}, "it does not verify signatures"


FORWARDED = ("test webhook", "headers", "replay", "idempotency", "slow", "large body", "other events")


class StrictAgent:
    """An agent with the usual mistakes: an age limit, a limit of 1 MB, 409 for a known key, and notes for tests."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self.seen: list[web.Request] = []

    async def start(self) -> str:
        app = web.Application(client_max_size=1_000_000)
        app.router.add_post(AGENT_PATH, self._webhook)
        app.router.add_get("/health", self._health)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _webhook(self, request: web.Request) -> web.Response:
        await request.read()
        self.seen.append(request)
        newest = max(int(one.headers["x-chatwoot-timestamp"]) for one in self.seen)
        if int(request.headers["x-chatwoot-timestamp"]) < newest - 300:
            return web.Response(status=401)
        if request.headers["idempotency-key"] in self._keys:
            return web.Response(status=409)
        self._keys.add(request.headers["idempotency-key"])
        return web.json_response({"status": "draft_ready", "posted": True})


async def test_the_usual_mistakes_fail_with_their_reason() -> None:
    agent = StrictAgent()
    url = await agent.start()
    try:
        found = await results(url)
    finally:
        await agent.runner.cleanup()
    failed = {name: detail for name, (result, detail) in found.items() if result is Result.FAILED}
    assert failed.keys() >= {"test webhook", "replay", "idempotency", "same key at once", "large body"}
    assert "X-Relay-Test is ignored" in failed["test webhook"]
    assert "timestamp of 3 days ago" in failed["replay"]
    assert "409" in failed["idempotency"]
    assert "1.43 MiB are answered 413" in failed["large body"]
    assert {request.headers["x-relay-test"] for request in agent.seen} == {"true"}


async def test_the_command_prints_a_table_or_json(agent: AgentStandIn, relay_command: CommandLine) -> None:
    ended = await relay_command.run("agent", "check", agent.url + AGENT_PATH, "--large-bytes", "100000")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == f"Agent SDK: {agent.url}"
    assert lines[1].split()[:2] == ["ok", "health"]
    assert lines[-1].startswith("Keeps to the contract, with 1 warning")
    agent.behave(Behaviour(status=422))
    ended = await relay_command.run("agent", "check", agent.url, "--json")
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["ok"], document["agent"]) == (1, False, agent.url)
    assert {one["result"] for one in document["checks"]} == {"ok", "warning", "failed"}
    assert all(one.keys() == {"name", "result", "detail", "duration_ms"} for one in document["checks"])
    assert (await relay_command.run("agent", "check", "nonsense")).returncode == 2
