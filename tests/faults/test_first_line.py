"""The console's first line during an outage that really happens (CONSOLE.md, section 6): it names the cause within
15 s and no other one meanwhile, and it turns within 5 s of the recovery, within 60 s of the end of a silence.

The time that passes between outages is moved in the database. The limits are the console's promise, so they are real.
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

from console.app import ConsoleApp
from relay.chatwoot.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from relay.replay.requests import DEFAULT, plan_request
from relay.settings import WEBHOOK_PATH
from relay.store import demo_history, gate, replays
from relay.store.filters import compile_filter
from relay.store.sessions import connected
from tests.console.screens import opened
from tests.servers import PATIENCE_S, Behaviour, Rows, relay_settings, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.console.screens import Watched
    from tests.faults.conftest import RelayProcess
    from tests.postgres import Server
    from tests.servers import HeldAgent

pytestmark = pytest.mark.faults
NAMED_WITHIN_S, TURNS_WITHIN_S, SILENCE_ENDS_WITHIN_S = 15.0, 5.0, 60.0
_TURN_S = 0.05
_SECRET = "the-right-secret"
_OVERLOADED = Behaviour(status=503)
_WELL = (
    "Nothing is failing|Nothing has failed|The last failure was|answers? again|Earlier:|the last \\d+m ago|No relay ran"
    "|connecting|^$"
)
"""What the line may say besides the cause: nothing that is so now."""


@dataclass
class Scene:
    """A relay, its agent, a sender that posts all the time, and a console whose first line is recorded."""

    relay: RelayProcess
    agent: HeldAgent
    rows: Rows
    seen: Watched
    client: httpx.AsyncClient
    secret: str = _SECRET
    sends: bool = True
    refused: int = 0
    said: list[tuple[float, str]] = field(default_factory=list)
    clock: float = 0.0
    """Seconds, counted in turns of this loop: a busy machine, which makes the console late, makes them longer."""

    @property
    def line(self) -> str:
        """The first line now."""
        return self.said[-1][1] if self.said else ""

    async def post(self) -> int:
        """Post a webhook of a conversation of its own; the status of the answer, 0 for none."""
        body = json.dumps({
            "event": "message_created", "id": 1, "message_type": "incoming", "conversation": {"id": uuid4().int % 10**9}
        }).encode()  # fmt: skip
        at = f"{time.time():.0f}"
        signed = {TIMESTAMP_HEADER: at, SIGNATURE_HEADER: sign(self.secret.encode(), at, body)}
        try:
            answer = await self.client.post(
                self.relay.url + WEBHOOK_PATH, content=body, headers=signed | {"content-type": "application/json"}
            )
        except httpx.TransportError:
            return 0
        self.refused += answer.status_code == 401
        return answer.status_code

    async def keep_posting(self) -> None:
        """Post until cancelled, whatever becomes of it."""
        async with asyncio.TaskGroup() as posts:
            while True:
                if self.sends:
                    posts.create_task(self.post())
                await asyncio.sleep(0.2)

    async def keep_looking(self) -> None:
        """Record the first line whenever it changes, until cancelled."""
        while True:
            line = self.seen.text.splitlines()[1].strip()
            if line != self.line:
                self.said.append((self.clock, line))
            await asyncio.sleep(_TURN_S)
            self.clock += _TURN_S

    async def names(self, cause: str, since: float, within_s: float = NAMED_WITHIN_S) -> None:
        """Wait until the line names the cause, for the time that is left."""
        await self._until(lambda: re.search(cause, self.line), since + within_s, cause)

    async def turns(self, cause: str, since: float, within_s: float = TURNS_WITHIN_S) -> None:
        """Wait until the line names the cause no more, for the time that is left."""
        await self._until(lambda: not re.search(cause, self.line), since + within_s, f"an end of {cause}")

    async def _until(self, condition: Callable[[], object], deadline: float, what: str) -> None:
        await until(lambda: condition() or self.clock > deadline, patience_s=2 * PATIENCE_S, what=what)
        said = "\n".join(f"{at:.1f} {line}" for at, line in self.said)
        assert condition(), f"not by {deadline:.1f}: {what}; it said\n{said}"

    async def delivers(self) -> None:
        """Wait until another webhook was delivered."""
        newest = "SELECT max(id) FROM relay.deliveries WHERE state = 'delivered'"
        before = self.rows(newest)
        await until(lambda: self.rows(newest) != before, what="another delivery")

    def move_back(self, seconds: float) -> None:
        """Let so much time have passed since all that was recorded."""
        past = "make_interval(secs => %(seconds)s)"
        for statement in (
            f"UPDATE relay.deliveries SET received_at = received_at - {past}, finished_at = finished_at - {past}",
            f"UPDATE dashboard_facts SET recorded_at = recorded_at - {past}",
        ):
            self.rows(statement, {"seconds": seconds})


@pytest_asyncio.fixture
async def open_scene(
    make_relay: Callable[..., RelayProcess], agent: HeldAgent, dsn: str
) -> AsyncIterator[Callable[..., Any]]:
    @asynccontextmanager
    async def open_one(database_url: str = dsn, **settings: Any) -> AsyncIterator[Scene]:
        relay = make_relay(
            database_url=database_url, relay_respond="stored", relay_probe_seconds=1,
            **({"chatwoot_webhook_secret": _SECRET, "chatwoot_webhook_max_attempts": 1} | settings),
        )  # fmt: skip
        await relay.start()
        given = relay_settings(agent, relay_url=relay.url, console_operator="maria")
        async with (
            httpx.AsyncClient(timeout=PATIENCE_S, verify=False) as client,
            opened(ConsoleApp(given, database_url), (240, 40)) as seen,
        ):
            scene = Scene(relay, agent, Rows(database_url), seen, client)
            await seen.shows("LIVE")
            tasks = [asyncio.create_task(scene.keep_posting()), asyncio.create_task(scene.keep_looking())]
            try:
                await until(lambda: re.search(_WELL, scene.line) and any(one.status == 200 for one in agent.seen))
                yield scene
            finally:
                for task in tasks:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task

    yield open_one
    agent.release()


async def _nothing(_: Scene) -> None:
    """No preparation."""


async def _use_another_secret(scene: Scene) -> None:
    scene.secret = "another-secret"


async def _use_the_right_secret(scene: Scene) -> None:
    scene.secret = _SECRET


async def _hang(scene: Scene) -> None:
    scene.agent.hold()


async def _release(scene: Scene) -> None:
    scene.agent.release()


async def _kill(scene: Scene) -> None:
    await scene.relay.kill()


async def _kill_with_deliveries_in_flight(scene: Scene) -> None:
    scene.agent.hold()
    await until(lambda: scene.rows("SELECT 1 FROM relay.deliveries WHERE state = 'forwarding'"))
    await scene.relay.kill()


async def _start_again(scene: Scene) -> None:
    scene.agent.release()
    await scene.relay.start()


async def _fail(scene: Scene) -> None:
    scene.agent.behave(_OVERLOADED)


async def _slow_down(scene: Scene) -> None:
    scene.agent.behave(Behaviour(delay_ms=4_000))


async def _recover(scene: Scene) -> None:
    scene.agent.behave()


async def _fail_for_a_while(scene: Scene) -> None:
    await _fail(scene)
    await scene.names("Agent SDK answered 503", time.monotonic())
    await asyncio.sleep(5)


async def _fail_otherwise(scene: Scene) -> None:
    scene.agent.behave(Behaviour(status=500))


async def _fail_then_succeed_for_five_minutes(scene: Scene) -> None:
    await _fail(scene)
    await scene.names("Agent SDK answered 503", scene.clock)
    await _recover(scene)
    await scene.turns("Agent SDK answered 503 since", scene.clock)
    for _ in range(5):
        scene.move_back(60)
        await scene.delivers()


_REFUSED = """
    SELECT sum((value ->> 'count')::integer) FROM dashboard_facts WHERE fact_type = 'support.webhook.rejected'
"""


async def _refuse_eight_minutes_ago(scene: Scene) -> None:
    await _use_another_secret(scene)
    await scene.names("refused .*since", scene.clock)
    await _use_the_right_secret(scene)
    await scene.turns("refused .*since", scene.clock)
    await until(lambda: scene.rows(_REFUSED) == [scene.refused], what="all refusals are recorded")
    scene.move_back(480)
    await scene.turns(r"the last \d+s ago", scene.clock)


async def _hold(scene: Scene) -> None:
    async with connected(scene.rows.dsn) as connection:
        await gate.hold(connection, "maria", "deploying the agent", None)


async def _end_hold(scene: Scene) -> None:
    async with connected(scene.rows.dsn) as connection:
        await gate.release(connection, "maria", None)


async def _open_breaker(scene: Scene) -> None:
    scene.agent.behave(Behaviour(status=503, retry_after="3"))


async def _close_breaker(scene: Scene) -> None:
    await _recover(scene)
    before = len(scene.agent.seen)
    await until(lambda: any(one.status == 200 for one in list(scene.agent.seen)[before:]), what="the probe")


async def _fall_silent(scene: Scene) -> None:
    scene.sends = False
    async with connected(scene.rows.dsn) as connection:
        await demo_history.plant_last_week(connection)
    scene.move_back(1_200)


async def _send_again(scene: Scene) -> None:
    scene.sends = True
    assert await scene.post() == 202


@dataclass(frozen=True)
class Case:
    """An outage: how it begins, what the first line then says, and how it ends."""

    cause: str
    begin: Callable[[Scene], Awaitable[None]]
    end: Callable[[Scene], Awaitable[None]]
    settings: dict[str, object] = field(default_factory=dict)
    before: Callable[[Scene], Awaitable[None]] = _nothing
    turns_within_s: float = TURNS_WITHIN_S
    on_the_way: str = "^$"
    """What the line may say before it names the cause, besides `_WELL`: a weaker form of the same."""


CASES = {
    "wrong secret": Case(
        r"webhooks? refused \(401, bad signature\) since", _use_another_secret, _use_the_right_secret,
        on_the_way=r"webhooks? refused \(401, bad signature\), the last",
    ),
    "hangs with a healthy /health": Case(
        r"Nothing delivered .* at the Agent SDK, the oldest .* Its /health answers 200", _hang, _release,
        {"agent_sdk_timeout_ms": 3_600_000},
    ),
    "kill -9 of the only relay": Case(r"No relay heartbeat for|No relay is running", _kill, _start_again),
    "kill -9 of the only relay with deliveries in flight": Case(
        r"No relay heartbeat for|No relay is running", _kill_with_deliveries_in_flight, _start_again
    ),
    "503, success, 503 again": Case(
        r"Agent SDK answered 503 since \S+ \(\d+s\)", _fail, _recover, before=_fail_then_succeed_for_five_minutes
    ),
    "signature incident over, then time-outs": Case(
        r"Agent SDK did not answer within 1 s since", _hang, _release, {"agent_sdk_timeout_ms": 1_000},
        before=_refuse_eight_minutes_ago,
    ),
    "held": Case(r"Forwarding is held by maria .*since .* \(deploying the agent\)", _hold, _end_hold),
    "breaker open": Case(
        r"The circuit breaker is open since", _open_breaker, _close_breaker, {"relay_breaker": "on"},
        on_the_way="Agent SDK answered 503",
    ),
    "slow": Case(
        r"The Agent SDK is slow: a delivery takes \d{4} ms now", _slow_down, _recover,
        on_the_way=r"Deliveries took \d{4} ms on average in the last 15 min; now \d+ ms",
    ),
    "another cause at once": Case(
        "Agent SDK answered 500 since", _fail_otherwise, _recover, before=_fail_for_a_while,
        on_the_way="Agent SDK answered 503",
    ),
    "silence": Case(r"No webhook for", _fall_silent, _send_again, turns_within_s=SILENCE_ENDS_WITHIN_S),
}  # fmt: skip


def others(scene: Scene, since: float, allowed: str) -> list[str]:
    """What else the line has said since then."""
    return [line for at, line in scene.said if at >= since and not re.search(allowed, line)]


@pytest.mark.parametrize("name", CASES)
async def test_the_first_line_names_the_cause_and_no_other_and_turns(open_scene: Callable[..., Any], name: str) -> None:
    case = CASES[name]
    async with open_scene(**case.settings) as scene:
        await case.before(scene)
        began = scene.clock
        await case.begin(scene)
        await scene.names(case.cause, began)
        await asyncio.sleep(3)  # an outage lasts, and another cause might be named
        assert re.search(case.cause, scene.line), scene.said
        assert others(scene, began, f"{case.cause}|{case.on_the_way}|{_WELL}") == []
        ending = asyncio.create_task(case.end(scene))
        await ending
        await scene.turns(case.cause, scene.clock, case.turns_within_s)


async def test_postgres_away_is_named_within_15_s_and_its_end_within_5(
    open_scene: Callable[..., Any], server: Server
) -> None:
    away = r"Postgres is away|No session with Postgres"
    async with open_scene(server.dsn) as scene:
        began = scene.clock
        await asyncio.to_thread(server.stop)
        await scene.names(away, began)
        assert others(scene, began, f"{away}|{_WELL}") == []
        await asyncio.to_thread(server.start)
        await scene.turns(away, scene.clock)


async def test_once_everything_is_replayed_no_cause_is_named(open_scene: Callable[..., Any]) -> None:
    async with open_scene() as scene:
        await _fail(scene)
        await scene.names("Agent SDK answered 503", scene.clock)
        await _recover(scene)
        await scene.turns("Agent SDK answered 503 since", scene.clock)
        async with connected(scene.rows.dsn) as connection:
            letters = await replays.matching(connection, compile_filter(""))
            await replays.ask(connection, plan_request(letters, requested_by="maria", pace=DEFAULT), letters)
        await until(lambda: scene.rows("SELECT 1 FROM relay.replay_plans WHERE state = 'done'"))
        done = scene.clock
        await scene.names("No dead letter waits|Nothing is failing", done, TURNS_WITHIN_S)
        await asyncio.sleep(2)
        assert others(scene, done, rf"{_WELL}|Replay \d") == []
