"""Each failure is reported from outside (DESIGN 7, 8): a real relay sends its alert to a real channel, and clears it.

What a rule waits for is moved into the past in the database rather than waited for, except that Postgres is away: then
the relay's own clock decides. `relay status`, `relay diagnose`, the console and the notification begin with one line.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from aiohttp import web

from console.app import ConsoleApp
from relay.chatwoot.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from relay.settings import WEBHOOK_PATH
from relay.store import demo_history
from relay.store.sessions import connected
from tests.console.screens import opened
from tests.servers import PATIENCE_S, Rows, free_port, relay_settings, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.conftest import CommandLine
    from tests.faults.conftest import RelayProcess
    from tests.postgres import Server
    from tests.servers import HeldAgent

pytestmark = pytest.mark.faults
_SECRET, _LARGE = "the-right-secret", 50_000


@dataclass
class Channel:
    """An alert channel that takes Slack's JSON. `texts` are the notifications, as lines, oldest first."""

    port: int = field(default_factory=free_port)
    texts: list[list[str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/T0/B0/x"

    async def take(self, request: web.Request) -> web.Response:
        self.texts.append(json.loads(await request.read())["text"].splitlines())
        return web.Response(text="ok")

    def headline(self, rule: str, state: str) -> str | None:
        """The first line of the notification that the rule's alert was raised or cleared."""
        found = (lines for lines in self.texts if f"(rule {rule})" in lines[1] and f" {state} " in lines[1])
        return next((lines[0] for lines in found), None)


@pytest_asyncio.fixture
async def channel() -> AsyncIterator[Channel]:
    made, app = Channel(), web.Application()
    app.router.add_post("/services/T0/B0/x", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.port).start()
    yield made
    await runner.cleanup()


@dataclass
class Scene:
    """One relay, what it reports to, and those who ask it."""

    relay: RelayProcess
    channel: Channel
    rows: Rows
    agent: HeldAgent
    command: CommandLine
    env: dict[str, str]

    async def post(self, *, size: int = 0) -> int:
        """Post a webhook of a conversation of its own, signed with a wrong secret; the status of the answer."""
        message = {"event": "message_created", "id": 1, "conversation": {"id": uuid4().int % 10**9}}
        body, at = json.dumps(message | {"content": "x" * size}).encode(), f"{time.time():.0f}"
        headers = {"content-type": "application/json", TIMESTAMP_HEADER: at, SIGNATURE_HEADER: sign(b"wrong", at, body)}
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            return (await client.post(self.relay.url + WEBHOOK_PATH, content=body, headers=headers)).status_code

    @asynccontextmanager
    async def continuing(self, cause: Callable[[Scene], Awaitable[object]] | None) -> AsyncIterator[None]:
        """Keep the cause up during the block."""

        async def repeat() -> None:
            while cause is not None:
                await cause(self)
                await asyncio.sleep(0.5)

        task = asyncio.create_task(repeat())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def is_raised(self, rule: str) -> None:
        """Wait until the channel has the alert."""
        await until(lambda: self.channel.headline(rule, "raised"), what=f"{rule} is raised")

    async def is_cleared(self, rule: str, end: Callable[[Scene], Awaitable[None]]) -> None:
        """Let it end, until the channel has the end of the alert; that it ended a minute ago is pretended."""

        async def cleared() -> bool:
            await end(self)
            self.rows("UPDATE relay.alerts SET held_at = held_at - interval '2 minutes' WHERE rule = %s", (rule,))
            return self.channel.headline(rule, "cleared") is not None

        try:
            await until(cleared, what=f"{rule} is cleared", every_s=1)
        except AssertionError as error:
            left = [self.rows(f"SELECT t::text FROM relay.{table} AS t") for table in ("alerts", "spools", "notices")]
            raise AssertionError(f"{error}; left: {left}; sent: {self.channel.texts}") from None

    async def agree(self, rule: str) -> None:
        """Check that status, diagnosis, console and notification begin with the same line, figures and times apart."""
        headline = _sentence(self.channel.headline(rule, "raised") or "")
        for _ in range(5):
            lines = await self._first_lines()
            if all(_sentence(line).startswith(headline) for line in lines):
                return
        pytest.fail(f"{headline}: {lines}")

    async def _first_lines(self) -> list[str]:
        printed = await asyncio.gather(*(self.command.run(name, **self.env) for name in ("status", "diagnose")))
        settings = relay_settings(self.agent, relay_url=self.relay.url, relay_data_dir=self.env["RELAY_DATA_DIR"])
        async with opened(ConsoleApp(settings, self.rows.dsn), (240, 40)) as seen:
            await seen.shows("◉" if printed[0].stdout.count("success") else "Postgres is away")
            return [*(one.stdout.split("\n")[0] for one in printed), seen.text.splitlines()[1].strip()]


def _sentence(line: str) -> str:
    """A headline without figures and times, and in the plural."""
    line = re.sub(r"\d[\d:.,]*\w*", "#", line).replace("webhook ", "webhooks ").replace("It is lost", "They are lost")
    return line.removesuffix(".")


@pytest_asyncio.fixture
async def make_scene(
    make_relay: Callable[..., RelayProcess], channel: Channel, agent: HeldAgent, relay_command: CommandLine,
    dsn: str, tmp_path: Path,
) -> AsyncIterator[Callable[..., Scene]]:  # fmt: skip
    def make(database_url: str = dsn, **settings: Any) -> Scene:
        relay = make_relay(
            database_url=database_url, relay_alert_webhook_url=channel.url, relay_data_dir=tmp_path / "data",
            agent_sdk_timeout_ms=3_600_000, **settings,
        )  # fmt: skip
        env = {"DATABASE_URL": database_url, "RELAY_URL": relay.url, "AGENT_SDK_URL": agent.url}
        env |= {"RELAY_DATA_DIR": str(tmp_path / "data")}
        return Scene(relay, channel, Rows(database_url), agent, relay_command, env)

    yield make
    agent.release()


_OVER = """
    UPDATE dashboard_facts SET recorded_at = recorded_at - interval '2 hours'
     WHERE fact_type = 'support.webhook.rejected' AND recorded_at > now() - interval '1 hour'
"""


async def _wrong_secret(scene: Scene) -> None:
    assert await scene.post() == 401


async def _too_large(scene: Scene) -> None:
    assert await scene.post(size=2 * _LARGE) == 413


async def _hang(scene: Scene) -> None:
    scene.agent.hold()
    for _ in range(3):
        assert await scene.post() == 202
    await until(lambda: len(scene.rows("SELECT 1 FROM relay.deliveries WHERE state = 'received'")) == 2)
    scene.rows("UPDATE relay.deliveries SET received_at = received_at - interval '6 minutes'")


async def _fall_silent(scene: Scene) -> None:
    async with connected(scene.rows.dsn) as connection:
        await demo_history.plant_last_week(connection)
    assert await scene.post() == 200
    scene.rows("UPDATE relay.deliveries SET received_at = received_at - interval '20 minutes'")
    scene.rows("UPDATE dashboard_facts SET recorded_at = recorded_at - interval '20 minutes'")


async def _nothing(_: Scene) -> None:
    """The cause needs no beginning."""


async def _release(scene: Scene) -> None:
    scene.agent.release()


async def _forget(scene: Scene) -> None:
    scene.rows(_OVER)


async def _write_again(scene: Scene) -> None:
    assert await scene.post() == 200


@dataclass(frozen=True)
class Case:
    """A failure, the rule that reports it, how it begins, continues and ends."""

    rule: str
    headline: str
    settings: dict[str, object]
    begin: Callable[[Scene], Awaitable[None]] = _nothing
    continues: Callable[[Scene], Awaitable[None]] | None = None
    end: Callable[[Scene], Awaitable[None]] = _forget


CASES = {
    "wrong secret": Case("refused-p0", "bad signature", {"chatwoot_webhook_secret": _SECRET}, continues=_wrong_secret),
    "body too large": Case("lost-p1", "413", {"chatwoot_webhook_max_body_bytes": _LARGE}, continues=_too_large),
    "agent hangs": Case("backlog-p1", "wait", {"relay_max_in_flight": 1, "relay_respond": "stored"},
                        begin=_hang, end=_release),
    "silence": Case("silence-p1", "No webhook for", {}, begin=_fall_silent, end=_write_again),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_it_is_reported_with_one_first_line_everywhere_and_cleared(
    make_scene: Callable[..., Scene], name: str
) -> None:
    case = CASES[name]
    scene = make_scene(**case.settings)
    await scene.relay.start()
    await case.begin(scene)
    async with scene.continuing(case.continues):
        await scene.is_raised(case.rule)
        assert case.headline in (scene.channel.headline(case.rule, "raised") or ""), scene.channel.texts
        await scene.agree(case.rule)
    await scene.is_cleared(case.rule, case.end)


async def test_postgres_away_and_the_spool_filling_are_reported_meanwhile_and_cleared(
    make_scene: Callable[..., Scene], server: Server
) -> None:
    scene = make_scene(server.dsn, relay_spool_max_bytes=1_000_000)
    await scene.relay.start()
    await asyncio.to_thread(server.stop)
    for _ in range(7):
        assert await scene.post(size=90_000) == 202
    await scene.is_raised("spool-p1")
    await scene.is_raised("store-down-p0")
    assert "in the spool, none is lost" in (scene.channel.headline("store-down-p0", "raised") or "")
    await scene.agree("store-down-p0")
    await asyncio.to_thread(server.start)
    for rule in ("store-down-p0", "spool-p1"):
        await scene.is_cleared(rule, _nothing)
    recorded = "SELECT value ->> 'rule' FROM dashboard_facts WHERE value ->> 'state' = 'raised' ORDER BY 1"
    assert set(scene.rows(recorded)) >= {"spool-p1", "store-down-p0"}
