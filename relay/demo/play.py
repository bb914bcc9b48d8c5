"""The demo: stand-ins, relay and traffic in one process, over the embedded Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from relay.agent.serve import SCOPE, serve_agent
from relay.chatwoot.samples import DEMO_CONVERSATIONS
from relay.demo.agent import AgentStandIn
from relay.demo.chatwoot import ChatwootStandIn
from relay.demo.demo_relay import DemoRelay
from relay.demo.script import WEBHOOKS_A_SECOND, Traffic, phases
from relay.server.listener import bound_url, listen, stop_on_signals
from relay.server.supervisor import settle_garbage_collection
from relay.settings import WEBHOOK_PATH, Settings, load_settings
from relay.store import gate
from relay.store.sessions import connected
from relay.telemetry.log_sink import LogSink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from relay.demo.script import Phase
    from relay.demo.script import Traffic as TrafficType

ATTEMPT_TIMEOUT_MS = 2_000
_QUIET_MS = 200
_REPORT_EVERY_S = 5
_RELEASE_RATE = 15.0
"""Deliveries a second after a hold: what the reference agent can draft on any machine."""


_OUTSIDE = (
    "database_url", "relay_alert_webhook_url", "otel_exporter_otlp_endpoint", "llm_base_url", "llm_api_key",
    "llm_model", "transcribe_base_url", "transcribe_api_key",
)  # fmt: skip
"""Settings that name a service which is none of the demo's."""


class _Nowhere(io.TextIOBase):
    """Where the forwarding log goes in the demo: it is in Postgres, for the console's tail."""

    def write(self, text: str) -> int:
        return len(text)


def demo_settings(agent: AgentStandIn, chatwoot: ChatwootStandIn, **other: Any) -> Settings:
    """The environment's settings, with the stand-ins in the place of Chatwoot and the Agent SDK, and `other` ones.

    Where alerts and traces are sent to is left out, and so are models and `DATABASE_URL`.

    Raises:
        ConfigurationError: a value in the environment is bad.
    """
    given: dict[str, Any] = {
        "agent_sdk_url": agent.url,
        "agent_sdk_timeout_ms": ATTEMPT_TIMEOUT_MS,
        "chatwoot_base_url": chatwoot.url,
        "chatwoot_api_key": chatwoot.api_key,
        "chatwoot_account_id": chatwoot.account_id,
        "agent_quiet_ms": _QUIET_MS,
        "agent_draft_when": "always",
        "agent_inboxes": "",
        "relay_probe_seconds": 5,
        "relay_workers": 1,
    }
    loaded = load_settings(**(given | other))
    # What is invented must not reach a real team, a collector of traces, or a model that is paid for.
    heartbeat = loaded.relay_heartbeat_url if "relay_heartbeat_url" in other else None
    return loaded.model_copy(update=dict.fromkeys(_OUTSIDE) | {"relay_heartbeat_url": heartbeat})


async def play(
    dsn: str,
    *,
    seconds: float | None,
    watch: Callable[[Settings], Awaitable[None]] | None,
    script: Sequence[Phase] = (),
    a_second: float = WEBHOOKS_A_SECOND,
    other_settings: Mapping[str, Any] | None = None,
    beside: Callable[[Settings], Awaitable[None]] | None = None,
    take_store: Callable[[bool], Awaitable[None]] | None = None,
) -> None:
    """Run the demo for `seconds` (None: until stopped), by another `script` than the usual one if it is given.

    `beside`, given the settings too, runs along and changes nothing of that. `take_store` stops Postgres, or starts it
    again, when the script says so.

    `watch`, given the settings, is run beside it, and the demo ends when it returns: the console. Without it,
    what happens is printed.

    Raises:
        ConfigurationError: `RELAY_BIND` cannot be bound.
    """
    agent, chatwoot = AgentStandIn(keep_bodies=False, latency_ms=40), ChatwootStandIn()
    stop = stop_on_signals()

    def say(text: str) -> None:
        if watch is None:
            sys.stdout.write(f"[demo] {text}\n")
            sys.stdout.flush()

    async with contextlib.AsyncExitStack() as stack:
        for stand_in in (agent, chatwoot):
            await stand_in.start()
            stack.push_async_callback(stand_in.stop)
        settings = demo_settings(agent, chatwoot, **(other_settings or {}))
        if settings.secrets:
            chatwoot.secret = settings.secrets[0]
        sink = LogSink(stream=_Nowhere())
        one = DemoRelay(settings, dsn, sink, stop)
        bound_at = one.url
        chatwoot.webhook_url = bound_at + WEBHOOK_PATH
        chatwoot.open_conversations(DEMO_CONVERSATIONS)
        say(f"relay on {bound_at}, Agent SDK on {agent.url}, Chatwoot stand-in on {chatwoot.url}")
        reach = f"CHATWOOT_BASE_URL={chatwoot.url} CHATWOOT_API_KEY={chatwoot.api_key} CHATWOOT_ACCOUNT_ID=1"
        say(f"to ask this Chatwoot from another shell, for example with relay backfill: {reach}")
        real_agent, relay_ended = listen("127.0.0.1:0")[0], asyncio.Event()
        agent.upstream = bound_url(real_agent)
        drafting = asyncio.create_task(serve_agent(settings, dsn, real_agent, sink.logger(SCOPE), relay_ended))
        settle_garbage_collection()
        relay = asyncio.create_task(one.run())
        traffic = Traffic(chatwoot, agent, say, script or phases(), a_second, partial(_hold, dsn), take_store, one.take)
        await _until_healthy(bound_at, relay)
        reachable = settings.model_copy(update={"relay_url": bound_at})
        playing = [asyncio.create_task(traffic.play()), asyncio.create_task(_report(traffic, say))]
        ends: list[asyncio.Task[object]] = [relay, asyncio.create_task(stop.wait())]
        if watch is not None:
            watching = asyncio.create_task(_until_watched(watch, reachable))
            ends.append(watching)
            playing.append(watching)
        if beside is not None:
            playing.append(asyncio.create_task(_until_watched(beside, reachable)))
        await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)
        agent.behave()
        stop.set()
        await asyncio.gather(*(end for end in ends if not end.cancelled()))
        relay_ended.set()
        await drafting
        sink.close()
    say("stopped. " + _summary(traffic))
    say(f"{len(chatwoot.notes)} private notes with drafts are in Chatwoot")


async def _hold(dsn: str, held: bool) -> None:
    """Hold or release forwarding, as an operator does who deploys the agent."""
    async with connected(dsn) as connection:
        if held:
            await gate.hold(connection, "demo", "deploying the agent")
            await asyncio.sleep(1)  # every relay heeds it within a second
        else:
            await gate.release(connection, "demo", _RELEASE_RATE)


async def _until_healthy(url: str, relay: asyncio.Task[None]) -> None:
    """Until the relay takes webhooks, or has ended."""
    async with httpx.AsyncClient(timeout=2) as client:
        while not relay.done():
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"{url}/health")).status_code == 200:
                    return
            await asyncio.sleep(0.02)


async def _until_watched(watch: Callable[[Settings], Awaitable[None]], settings: Settings) -> None:
    await watch(settings)


async def _report(traffic: TrafficType, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(_REPORT_EVERY_S)
        say(_summary(traffic))


def _summary(traffic: TrafficType) -> str:
    answers = ", ".join(f"{count} × {answer}" for answer, count in sorted(traffic.answers.items()))
    return f"Chatwoot was answered {answers or 'nothing yet'}"
