"""What can be said while Postgres cannot be read: the relay's `/health`, the Agent SDK and Chatwoot are asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from relay import http_client
from relay.domain.retry import failure_of
from relay.incident.headline import headline
from relay.incident.state import State, StoreOutage
from relay.monitoring.probes import agent_probe, chatwoot_probes, run_probes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.incident.cause import Headline
    from relay.monitoring.probes import ProbeResult
    from relay.settings import Settings

_TIMEOUT_S = 5
UNREAD = "alerts, figures, dead letters, deliveries, the log and the audit: they are in Postgres"


@dataclass(frozen=True, slots=True)
class PartialView:
    """What was found. `relay` is what the relay's `/health` says, None with `relay_error` if it does not answer."""

    cause: Headline
    database_error: str
    relay: dict[str, Any] | None
    relay_error: str | None
    probes: Sequence[ProbeResult]

    @property
    def lines(self) -> list[str]:
        """The headline, what was read, and what could not be."""
        relay = f"the relay's /health: {self.relay['status']}" if self.relay else f"the relay: {self.relay_error}"
        probes = [line for result in self.probes for line in result.lines]
        return [self.cause.sentence, self.database_error, relay, *probes, f"not read: {UNREAD}"]

    @property
    def document(self) -> dict[str, Any]:
        """The same for `--json`."""
        return {
            "headline": {"sentence": self.cause.sentence, "kind": self.cause.kind, "level": self.cause.level},
            "database_error": self.database_error,
            "relay": self.relay,
            "relay_error": self.relay_error,
            "checks": [{"name": result.label, "ok": result.ok, "status": result.status} for result in self.probes],
            "unread": UNREAD,
        }


async def look(settings: Settings, error: Exception) -> PartialView:
    """Ask what can be asked without Postgres, which failed with `error`."""
    relay, relay_error = await _health(settings)
    probes = await run_probes([agent_probe(settings), *chatwoot_probes(settings)])
    state = State(at=datetime.now(UTC), outage=_outage(relay or {}))
    return PartialView(headline(state), str(error), relay, relay_error, probes)


async def _health(settings: Settings) -> tuple[dict[str, Any] | None, str | None]:
    try:
        async with http_client.client(timeout=_TIMEOUT_S) as client:
            document = (await client.get(f"{settings.own_url}/health")).json()
    except httpx.HTTPError as error:
        return None, f"none answers at {settings.own_url_shown} ({failure_of(error)})"
    except ValueError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("status"), str):
        return document, None
    return None, f"something else answers at {settings.own_url_shown}"


def _outage(health: dict[str, Any]) -> StoreOutage:
    """Since when the relay has missed Postgres, as it says itself."""
    said = health.get("outage")
    if not isinstance(said, dict):
        return StoreOutage(None)
    try:
        return StoreOutage(datetime.fromisoformat(str(said.get("since"))), int(said.get("refused", 0)))
    except (TypeError, ValueError):
        return StoreOutage(None)
