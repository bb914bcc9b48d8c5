"""Health probes: the runbook's two of Chatwoot, and the Agent SDK's `/health`.

RUNBOOK, "Health Checks", for the lines and the artifact; DESIGN, 8. A probe has ten seconds.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from relay.domain.delivery import FactType
from relay.domain.facts import Fact
from relay.domain.retry import failure_of
from relay.domain.targets import Target
from relay.errors import ConfigurationError
from relay.settings import without_credentials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.settings import Settings

PROBE_TIMEOUT_S = 10
ARTIFACTS = Path("artifacts/ops")


@dataclass(frozen=True, slots=True)
class Probe:
    """What to ask: `target` names it in facts, `label` in the runbook's lines."""

    target: str
    label: str
    url: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came of it. `status` is the HTTP status, or None with `error` saying why there is none."""

    target: str
    label: str
    url: str
    status: int | None
    ok: bool
    error: str | None
    latency_ms: float

    @property
    def line(self) -> str:
        """The runbook's line: `  /rails/health: OK (200)`."""
        return f"  {self.label}: {'OK' if self.ok else 'FAILED'} ({self.status or self.error})"

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
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return Fact(FactType.HEALTH, value, {"timestamp": now, "url": self.url})


def agent_probe(settings: Settings) -> Probe:
    """The probe of the Agent SDK's `/health`."""
    return Probe(Target.AGENT, "Agent SDK /health", f"{settings.agent_sdk_url}/health", {})


def chatwoot_probes(settings: Settings) -> list[Probe]:
    """The runbook's two probes of Chatwoot, as far as it is configured.

    The second needs an API key and an account as well as the address.
    """
    if settings.chatwoot_base_url is None:
        return []
    base = settings.chatwoot_base_url
    probes = [Probe(Target.CHATWOOT, "/rails/health", f"{base}/rails/health", {})]
    if settings.chatwoot_api_key is not None and settings.chatwoot_account_id is not None:
        key = {"api_access_token": settings.chatwoot_api_key.get_secret_value()}
        url = f"{base}/api/v1/accounts/{settings.chatwoot_account_id}"
        probes.append(Probe(Target.CHATWOOT_API, "authenticated API", url, key))
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
        raise ConfigurationError(f"{', '.join(missing)}: not set; the health check of Chatwoot needs it")
    return [*chatwoot_probes(settings), agent_probe(settings)]


async def run_probes(probes: Sequence[Probe]) -> list[ProbeResult]:
    """Run all probes at once; a probe that fails is a result, never an exception."""
    async with httpx.AsyncClient(follow_redirects=False, timeout=PROBE_TIMEOUT_S) as client:
        return list(await asyncio.gather(*(_run(client, probe) for probe in probes)))


async def _run(client: httpx.AsyncClient, probe: Probe) -> ProbeResult:
    started = time.perf_counter()
    status, error = None, None
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S), client.stream("GET", probe.url, headers=probe.headers) as answer:
            status = answer.status_code
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as failure:
        error = failure_of(failure).value
    latency_ms = (time.perf_counter() - started) * 1000
    ok = status is not None and 200 <= status < 300
    if status is not None and not ok:
        error = f"HTTP {status}"
    return ProbeResult(probe.target, probe.label, without_credentials(probe.url), status, ok, error, latency_ms)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One run of the runbook's health check."""

    results: tuple[ProbeResult, ...]
    started_at: datetime
    ended_at: datetime

    @property
    def all_ok(self) -> bool:
        """True if every probe was."""
        return all(result.ok for result in self.results)

    def as_dict(self) -> dict[str, Any]:
        """The JSON artifact (DESIGN, 8)."""
        return {
            "startedAt": self.started_at.isoformat(),
            "endedAt": self.ended_at.isoformat(),
            "allOk": self.all_ok,
            "checks": [
                {
                    "name": result.label,
                    "url": result.url,
                    "status": result.status,
                    "ok": result.ok,
                    "error": result.error,
                    "latencyMs": round(result.latency_ms, 1),
                }
                for result in self.results
            ],
        }

    def lines(self, artifact: Path) -> list[str]:
        """What is printed: the runbook's lines, then the Agent SDK's."""
        verdict = "OK" if self.all_ok else "FAILED"
        return [f"Chatwoot health check {verdict} → {artifact}", *(result.line for result in self.results)]


async def check_health(settings: Settings) -> HealthCheck:
    """Run the runbook's health check.

    Raises:
        ConfigurationError: one of the variables that the runbook requires is not set.
    """
    probes = required_probes(settings)
    started_at = datetime.now(UTC)
    results = await run_probes(probes)
    return HealthCheck(tuple(results), started_at, datetime.now(UTC))


def write_artifact(check: HealthCheck, folder: Path = ARTIFACTS) -> Path:
    """Write the check's JSON as `chatwoot_health_TIMESTAMP.json` in `folder`; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"chatwoot_health_{check.started_at:%Y-%m-%dT%H-%M-%S.%fZ}.json"
    path.write_text(json.dumps(check.as_dict(), indent=2) + "\n", encoding="utf-8")
    return path
