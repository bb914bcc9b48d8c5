"""Health probes: the runbook's two of Chatwoot, and the Agent SDK's `/health`.

RUNBOOK, "Health Checks", for the lines and the artifact; DESIGN, 8. Each request has ten seconds. Chatwoot's app
answers 200 on every path, so that a status alone proves nothing: the body is checked too.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from relay import http_client
from relay.chatwoot.client import TOKEN_HEADER, Chatwoot
from relay.chatwoot.faults import Fault, explanation_of, is_web_page, json_of, web_page
from relay.domain.delivery import FactType
from relay.domain.facts import Fact
from relay.domain.retry import Failure, failure_of
from relay.domain.targets import Target
from relay.errors import ConfigurationError, RelayError
from relay.settings import without_credentials
from relay.text import json_text, rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.settings import Settings

PROBE_TIMEOUT_S = 10
_MOST_READ = 64 * 1024
_GREEN = b"background-color: green"  # the page of Rails' own health controller
NOT_CHATWOOT = "not what Chatwoot answers"
"""The error of a probe that found something else in Chatwoot's place."""

_UNREACHED = {
    Failure.DNS_FAILURE: "check the host in CHATWOOT_BASE_URL: its name does not resolve here",
    Failure.TLS_ERROR: "check http or https in CHATWOOT_BASE_URL, and the certificate there (SSL_CERT_FILE)",
    Failure.CONNECTION_REFUSED: "check that Chatwoot runs, and host and port in CHATWOOT_BASE_URL",
    Failure.PROTOCOL_ERROR: "check http or https, and the port, in CHATWOOT_BASE_URL",
}
_NO_WAY = "check CHATWOOT_BASE_URL, and firewalls and proxies on the way there"
_SERVICES = "start Chatwoot's Redis and Postgres: without them it sends no webhook"
ARTIFACTS = Path("artifacts/ops")


@dataclass(frozen=True, slots=True)
class Probe:
    """What to ask: `kind` names the target in facts. The `routes` of `base` are asked in turn until one exists.

    Each route is a label for the runbook's line, and a path.
    """

    kind: Target
    base: str
    routes: tuple[tuple[str, str], ...]
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe found at the route that it names.

    `status` is the HTTP status, or None with `error` saying why there is none. A probe with a good status fails if
    the body is not what the route gives. `remedy` says what to do about a failure, where that is known.
    """

    target: str
    label: str
    url: str
    status: int | None
    ok: bool
    error: str | None
    latency_ms: float
    remedy: str | None = None

    @property
    def line(self) -> str:
        """The runbook's line: `  /rails/health: OK (200)`."""
        return f"  {self.label}: OK ({self.status})" if self.ok else f"  {self.label}: FAILED ({self.shown})"

    @property
    def lines(self) -> list[str]:
        """The same, and the remedy below it."""
        return [self.line] + ([f"    {self.remedy}"] if self.remedy else [])

    @property
    def shown(self) -> str:
        """Status or error of a failure in a few words."""
        if self.status is None:
            return str(self.error)
        return f"{self.status}, {self.error}" if self.status < 300 else str(self.status)

    @property
    def fact(self) -> Fact:
        """The `support.health` fact."""
        value = {
            "target": self.target,
            "ok": self.ok,
            "status": self.status,
            "latencyMs": round(self.latency_ms, 1),
            "error": self.error,
        }
        now = rfc3339(datetime.now(UTC))
        return Fact(FactType.HEALTH, value, {"timestamp": now, "url": self.url})


HEALTH_ROUTES = tuple((route, route) for route in ("/rails/health", "/health", "/api"))
"""The runbook's route, which no version seen has; that of 2026 and later; that of all versions (CONTRACT, 2)."""


def agent_probe(settings: Settings) -> Probe:
    """The probe of the Agent SDK's `/health`."""
    return Probe(Target.AGENT, settings.agent_sdk_url, (("Agent SDK /health", "/health"),), {})


def chatwoot_probes(settings: Settings) -> list[Probe]:
    """The runbook's two probes of Chatwoot, as far as it is configured.

    The second needs an API key and an account as well as the address.
    """
    if settings.chatwoot_base_url is None:
        return []
    base = settings.chatwoot_base_url
    probes = [Probe(Target.CHATWOOT, base, HEALTH_ROUTES, {})]
    if settings.chatwoot_api_key is not None and settings.chatwoot_account_id is not None:
        key = {TOKEN_HEADER: settings.chatwoot_api_key.get_secret_value()}
        route = ("authenticated API", f"/api/v1/accounts/{settings.chatwoot_account_id}")
        probes.append(Probe(Target.CHATWOOT_API, base, (route,), key))
    return probes


def required_probes(settings: Settings) -> list[Probe]:
    """All three probes, in the runbook's order.

    Raises:
        ConfigurationError: one of the variables that the runbook requires is not set.
    """
    missing = [
        name.upper()
        for name in ("chatwoot_base_url", "chatwoot_api_key", "chatwoot_account_id")
        if getattr(settings, name) is None
    ]
    if missing:
        them = "it" if len(missing) == 1 else "them"
        raise ConfigurationError(f"{', '.join(missing)}: not set; the health check of Chatwoot needs {them}")
    return [*chatwoot_probes(settings), agent_probe(settings)]


async def run_probes(probes: Sequence[Probe]) -> list[ProbeResult]:
    """Run all probes at once; a probe that fails is a result, never an exception."""
    async with http_client.client(follow_redirects=False, timeout=PROBE_TIMEOUT_S) as client:
        return list(await asyncio.gather(*(_run(client, probe) for probe in probes)))


async def _run(client: httpx.AsyncClient, probe: Probe) -> ProbeResult:
    """The result of the first route that exists; of the last one if none does."""
    for route in probe.routes[:-1]:
        result, is_there = await _ask(client, probe, route)
        if is_there:
            return result
    return (await _ask(client, probe, probe.routes[-1]))[0]


async def _ask(client: httpx.AsyncClient, probe: Probe, route: tuple[str, str]) -> tuple[ProbeResult, bool]:
    """What one route answers, and whether it is there: a 404, or the app's page in its place, says that it is not."""
    label, path = route
    url = probe.base + path
    started = time.perf_counter()
    answer, error, remedy = None, None, None
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            answer = await _read(client, url, probe.headers)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as failure:
        kind = failure_of(failure)
        error = kind.value
        remedy = None if probe.kind is Target.AGENT else _UNREACHED.get(kind, _NO_WAY)
    latency_ms = (time.perf_counter() - started) * 1000
    is_there = True
    if answer is not None:
        error, remedy = _judge(probe, path, answer)
        is_there = error is None or not (answer.status_code == 404 or (answer.is_success and is_web_page(answer)))
    status = None if answer is None else answer.status_code
    shown = without_credentials(url)
    return ProbeResult(probe.kind, label, shown, status, error is None, error, latency_ms, remedy), is_there


async def _read(client: httpx.AsyncClient, url: str, headers: dict[str, str]) -> httpx.Response:
    """The answer with the beginning of its body: more is not needed, and something else may send without end."""
    async with client.stream("GET", url, headers=headers) as answer:
        body = b""
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > _MOST_READ:
                break
        kept = {"content-type": answer.headers.get("content-type", ""), "location": answer.headers.get("location", "")}
        headers = {name: value for name, value in kept.items() if value}
        return httpx.Response(answer.status_code, headers=headers, content=body, request=answer.request)


def _judge(probe: Probe, path: str, answer: httpx.Response) -> tuple[str | None, str | None]:
    """Why the answer is no sign of health, and the remedy; no error if it is one."""
    if probe.kind is Target.AGENT:
        return (None, None) if answer.is_success else (f"HTTP {answer.status_code}", None)
    if path == "/rails/health" and answer.is_success:
        if _GREEN in answer.content or not is_web_page(answer):  # whatever a proxy maps there, but not the app
            return None, None
        return "a web page", web_page(probe.base, "").remedy
    explained = explanation_of(answer, probe.base)
    if explained is not None:
        error = "a web page" if explained.fault is Fault.WEB_PAGE else "not JSON"
        return error if answer.is_success else f"HTTP {answer.status_code}", explained.remedy or None
    return _judge_body(path, json_of(answer))


def _judge_body(path: str, document: object) -> tuple[str | None, str | None]:
    given = document if isinstance(document, dict) else {}
    other = NOT_CHATWOOT, "check CHATWOOT_BASE_URL: something else answers there"
    if path == "/health":
        return (None, None) if given.get("status") == "woot" else other
    if path == "/api":
        if "version" not in given or "queue_services" not in given:
            return other
        failing = [name for name in ("queue_services", "data_services") if given.get(name) != "ok"]
        return (f"{' and '.join(failing)} failing", _SERVICES) if failing else (None, None)
    account = path.rpartition("/")[2]
    return (None, None) if str(given.get("id")) == account else other


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One run of the runbook's health check."""

    results: tuple[ProbeResult, ...]
    started_at: datetime
    ended_at: datetime
    chatwoot_version: str | None = None

    @property
    def all_ok(self) -> bool:
        """True if every probe was."""
        return all(result.ok for result in self.results)

    def as_dict(self) -> dict[str, Any]:
        """The JSON artifact (DESIGN, 8)."""
        return {
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "all_ok": self.all_ok,
            "chatwoot_version": self.chatwoot_version,
            "checks": [
                {
                    "name": result.label,
                    "url": result.url,
                    "status": result.status,
                    "ok": result.ok,
                    "error": result.error,
                    "latency_ms": round(result.latency_ms, 1),
                }
                | ({} if result.remedy is None else {"remedy": result.remedy})
                for result in self.results
            ],
        }

    @property
    def chatwoot_ok(self) -> bool:
        """True if every probe of Chatwoot was, whatever the Agent SDK's found."""
        return all(result.ok for result in self.results if result.target != Target.AGENT)

    def lines(self, artifact: Path | None) -> list[str]:
        """What is printed: the runbook's lines, then the Agent SDK's. `artifact` is None if it was not written."""
        verdict = "OK" if self.chatwoot_ok else "FAILED"
        return [
            f"Chatwoot health check {verdict} → {artifact or 'no artifact'}",
            *(text for result in self.results for text in result.lines),
        ]


async def check_health(settings: Settings) -> HealthCheck:
    """Run the runbook's health check.

    Raises:
        ConfigurationError: one of the variables that the runbook requires is not set.
    """
    probes = required_probes(settings)
    started_at = datetime.now(UTC)
    results, version = await asyncio.gather(run_probes(probes), _version(settings))
    return HealthCheck(tuple(results), started_at, datetime.now(UTC), version)


async def _version(settings: Settings) -> str | None:
    """Chatwoot's version as `GET /api` gives it, None if that does not answer."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S), Chatwoot(settings) as chatwoot:
            return (await chatwoot.server()).version
    except (RelayError, TimeoutError):
        return None


def write_artifact(check: HealthCheck, folder: Path = ARTIFACTS) -> Path:
    """Write the check's JSON as `chatwoot_health_TIMESTAMP.json` in `folder`; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"chatwoot_health_{check.started_at:%Y-%m-%dT%H-%M-%S.%fZ}.json"
    path.write_text(json_text(check.as_dict(), indent=2) + "\n", encoding="utf-8")
    return path
