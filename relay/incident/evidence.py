"""Gathers what a diagnosis reads: figures from Postgres, and what the network says from here, all at once."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from relay import http_client
from relay.chatwoot.client import Chatwoot, Server, Webhook
from relay.chatwoot.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from relay.domain.headers import FORWARDED_FROM_HEADER, TEST_SENDER
from relay.domain.retry import failure_of
from relay.errors import RelayError
from relay.incident.state import state_of
from relay.monitoring.probes import agent_probe, chatwoot_probes, run_probes
from relay.settings import AGENT_PATH, WEBHOOK_PATH, parts_of, without_credentials
from relay.store import browse, overview

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from relay.domain.stats import FailureStreak
    from relay.incident.state import State
    from relay.monitoring.probes import ProbeResult
    from relay.settings import Settings
    from relay.store.browse import Group
    from relay.store.database import Connection
    from relay.store.overview import Overview
    from relay.store.refused import Refused
    from relay.store.replays import Plan

REACH_TIMEOUT_S = 5
_NOTHING = b"[]"


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether a host can be reached from here: its name resolves and it takes connections; else `error` says why."""

    target: str
    ok: bool
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What the running relay answered to a body signed with the configured secret number `number` (from 1)."""

    number: int
    ok: bool
    answer: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the checks read. `refused` is of the last hour, `usual_per_hour` the last day's webhooks an hour.

    `streaks` hold every failure of the last hour at least. `webhooks` is None, with `webhooks_error` saying why, if
    Chatwoot could not be asked. `server` is what `GET /api` says. `clock_ahead_s` is Chatwoot's clock against this
    machine's. `secrets` are those configured here, `addresses` what host names resolve to from here.
    `unattended` are the windows of the last day in which no relay ran, newest first. `plans` are the newest replays.
    `agent_logs` is the command that shows the agent's logs, `runbook` where the runbook for outages is, if set.
    """

    overview: Overview
    groups: Sequence[Group]
    streaks: Sequence[FailureStreak]
    refused: Sequence[Refused]
    probes: Sequence[ProbeResult]
    agent: Reach
    relay: Reach
    webhooks: Sequence[Webhook] | None
    webhooks_error: str | None
    webhook_path: str
    own_url: str
    clock_ahead_s: float | None
    self_tests: Sequence[SelfTest]
    usual_per_hour: float
    agent_url: str
    is_chatwoot_configured: bool
    server: Server | None
    secrets: Sequence[bytes] = field(repr=False)
    addresses: Mapping[str, frozenset[str]]
    unattended: Sequence[tuple[datetime, datetime]]
    plans: Sequence[Plan] = ()
    agent_logs: str | None = None
    runbook: str | None = None

    @property
    def state(self) -> State:
        """The state that the headline is made of."""
        return state_of(self.overview, self.groups, self.plans)

    def addresses_of(self, host: str) -> frozenset[str]:
        """The addresses that `host` resolves to from here, none if it does not."""
        return self.addresses.get(host, frozenset())


async def gather(connection: Connection, settings: Settings) -> Evidence:
    """Read everything; what cannot be read is named in the evidence, not raised.

    Raises:
        StoreUnavailable: Postgres is away.
    """
    state = await overview.read(connection)
    endpoint = _agent_of_the_relay(state, settings)
    if endpoint is not None and endpoint != settings.agent_endpoint_shown:  # what counts is where the relay sends
        settings = settings.model_copy(update={"agent_sdk_url": endpoint.removesuffix(AGENT_PATH)})
    groups = await browse.groups(connection)
    streaks = await overview.streaks(connection, pause=timedelta(hours=1))
    plans = await browse.plans(connection, 8)
    probes, agent, own, asked, tests = await asyncio.gather(
        run_probes([agent_probe(settings), *chatwoot_probes(settings)]),
        reach(settings.agent_sdk_url),
        reach(settings.own_url),
        _ask_chatwoot(settings),
        _test_secrets(settings),
    )
    urls = [settings.own_url, *(one.url for one in asked.webhooks or ())]
    day = state.last_24h.rate
    return Evidence(
        overview=state,
        groups=groups,
        streaks=streaks,
        refused=state.refused,
        probes=probes,
        agent=agent,
        relay=own,
        webhooks=asked.webhooks,
        webhooks_error=asked.error,
        webhook_path=WEBHOOK_PATH,
        own_url=settings.own_url_shown,
        clock_ahead_s=asked.clock_ahead_s,
        self_tests=tests,
        usual_per_hour=(day.delivered + day.failed) / 24,
        agent_url=without_credentials(settings.agent_sdk_url),
        is_chatwoot_configured=None
        not in (settings.chatwoot_base_url, settings.chatwoot_api_key, settings.chatwoot_account_id),
        server=asked.server,
        secrets=settings.secrets,
        addresses=await _addresses(urls),
        unattended=state.unattended,
        plans=plans,
        agent_logs=settings.agent_sdk_logs,
        runbook=settings.relay_outage_runbook,
    )


def _agent_of_the_relay(state: Overview, settings: Settings) -> str | None:
    """The endpoint that a live relay sends to; else, if none is set here, the one that the last relay sent to."""
    if state.alive:
        return state.alive[0].agent
    if "agent_sdk_url" in settings.model_fields_set or not state.relays:
        return None
    return min(state.relays, key=lambda relay: relay.age_s).agent


async def reach(url: str) -> Reach:
    """Resolve the host of `url` and connect to its port."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    target = f"{host}:{port}"
    try:
        async with asyncio.timeout(REACH_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except socket.gaierror:
        return Reach(target, ok=False, error="its name does not resolve")
    except (OSError, TimeoutError) as error:
        return Reach(target, ok=False, error=str(failure_of(error)).replace("_", " "))
    writer.close()
    return Reach(target, ok=True)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What Chatwoot says of itself: `webhooks` is None, with `error` saying why, if it does not list them."""

    webhooks: list[Webhook] | None
    error: str | None
    server: Server | None = None
    clock_ahead_s: float | None = None


async def _ask_chatwoot(settings: Settings) -> _Asked:
    """All that sends webhooks in Chatwoot, its version and its clock. Agent bots and inboxes are extra: what cannot
    be listed of them is left out.
    """
    try:
        async with Chatwoot(settings) as chatwoot:
            server, webhooks, *others = await asyncio.gather(
                chatwoot.server(), chatwoot.webhooks(), chatwoot.agent_bots(), chatwoot.api_inboxes(),
                return_exceptions=True,
            )  # fmt: skip
            unexpected = (one for one in (server, webhooks, *others) if isinstance(one, BaseException))
            for error in unexpected:
                if not isinstance(error, RelayError):
                    raise error
            known = None if isinstance(server, BaseException) else server
            if isinstance(webhooks, BaseException):
                return _Asked(None, str(webhooks), known, chatwoot.clock_ahead_s)
            extra = [one for found in others if not isinstance(found, BaseException) for one in found]
            return _Asked([*webhooks, *extra], None, known, chatwoot.clock_ahead_s)
    except RelayError as error:
        return _Asked(None, str(error))


async def _addresses(urls: Sequence[str]) -> dict[str, frozenset[str]]:
    """The addresses of the hosts of `urls`; those of this machine itself also as `localhost`."""
    hosts = {(parts_of(url).hostname or "").rstrip(".") for url in urls} | {"localhost"}
    ordered = sorted(host for host in hosts if host)
    found = await asyncio.gather(*map(_resolve, ordered))
    return dict(zip(ordered, found, strict=True))


async def _resolve(host: str) -> frozenset[str]:
    try:
        async with asyncio.timeout(REACH_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError, TimeoutError):  # ValueError: no name that can be asked for
        return frozenset()
    return frozenset(str(address[4][0]) for address in found)


async def _test_secrets(settings: Settings) -> list[SelfTest]:
    """Sign a body that is no webhook with each secret: the relay that knows the secret answers 400, else 401."""
    async with http_client.client(timeout=REACH_TIMEOUT_S) as client:
        return [await _test_secret(client, settings, n, secret) for n, secret in enumerate(settings.secrets, start=1)]


async def _test_secret(client: httpx.AsyncClient, settings: Settings, number: int, secret: bytes) -> SelfTest:
    timestamp = str(int(time.time()))
    headers = {
        FORWARDED_FROM_HEADER: TEST_SENDER,
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: sign(secret, timestamp, _NOTHING),
    }
    try:
        answer = await client.post(settings.own_url + WEBHOOK_PATH, content=_NOTHING, headers=headers)
    except httpx.HTTPError as error:
        return SelfTest(number, ok=False, answer=f"no relay answers at {settings.own_url_shown} ({failure_of(error)})")
    known = answer.status_code == httpx.codes.BAD_REQUEST
    said = "the running relay accepts what it signs" if known else f"the running relay answers {answer.status_code}"
    return SelfTest(number, known, said)
