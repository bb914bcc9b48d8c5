"""What can be said while Postgres cannot be read: the relay's `/health`, the Agent SDK and Chatwoot are asked."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from relay import http_client
from relay.domain.format import data_size, plural
from relay.domain.retry import failure_of
from relay.errors import SpoolError
from relay.incident.headline import headline
from relay.incident.state import SpoolState, State, StoreOutage
from relay.monitoring.probes import agent_probe, chatwoot_probes, run_probes
from relay.store.spool import local_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.incident.cause import Headline
    from relay.monitoring.probes import ProbeResult
    from relay.settings import Settings
    from relay.store.spool_file import SpoolState as SpoolFileState

_TIMEOUT_S = 5
UNREAD = "alerts, figures, dead letters, deliveries, the log and the audit: they are in Postgres"


@dataclass(frozen=True, slots=True)
class PartialView:
    """What was found. `relay` is what the relay's `/health` says, None with `relay_error` if it does not answer.

    `spool` is what the spool in this host's data directory holds, None if there is none or it cannot be read.
    """

    cause: Headline
    database_error: str
    relay: dict[str, Any] | None
    relay_error: str | None
    probes: Sequence[ProbeResult]
    spool: SpoolFileState | None = None

    @property
    def lines(self) -> list[str]:
        """The headline, what was read, and what could not be."""
        relay = f"the relay's /health: {self.relay['status']}" if self.relay else f"the relay: {self.relay_error}"
        probes = [line for result in self.probes for line in result.lines]
        spool = []
        if self.spool is not None:
            spool = [f"this host's spool: {plural(self.spool.receipts, 'receipt')}, {data_size(self.spool.bytes)}"]
        return [self.cause.sentence, self.database_error, relay, *spool, *probes, f"not read: {UNREAD}"]

    @property
    def document(self) -> dict[str, Any]:
        """The same for `--json`: an error's fields, and what was found."""
        spool = self.spool
        return {
            "error": {"kind": "database_unavailable", "message": self.database_error},
            "exit_status": 1,
            "headline": {"sentence": self.cause.sentence, "kind": self.cause.kind, "level": self.cause.level},
            "relay": self.relay,
            "relay_error": self.relay_error,
            "spool": None if spool is None else {"receipts": spool.receipts, "bytes": spool.bytes},
            "checks": [{"name": result.label, "ok": result.ok, "status": result.status} for result in self.probes],
            "unread": UNREAD,
        }


async def partial_view(settings: Settings, dsn: str, error: Exception) -> PartialView:
    """Ask what can be asked without the Postgres at `dsn`, which failed with `error`."""
    relay, relay_error = await _health(settings)
    probes = await run_probes([agent_probe(settings), *chatwoot_probes(settings)])
    spool = None
    with suppress(SpoolError):
        spool = await asyncio.to_thread(local_state, settings.relay_data_dir, dsn)
    return PartialView(_cause(relay), str(error), relay, relay_error, probes, spool)


async def outage_headline(settings: Settings) -> Headline:
    """What it means that Postgres is away, as far as the relay's `/health` says."""
    relay, _ = await _health(settings)
    return _cause(relay)


def _cause(relay: dict[str, Any] | None) -> Headline:
    outage = StoreOutage(None, relay_answers=False) if relay is None else _outage(relay)
    return headline(State(at=datetime.now(UTC), outage=outage, spool=_spool(relay or {})))


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


def _spool(health: dict[str, Any]) -> SpoolState | None:
    """What the relay says of its spool, None if that takes no webhooks."""
    said = health.get("spool")
    if not isinstance(said, dict) or not said.get("ok"):
        return None
    try:
        return SpoolState(int(said["receipts"]), share=int(said["bytes"]) / int(said["max_bytes"]))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _outage(health: dict[str, Any]) -> StoreOutage:
    """Since when the relay has missed Postgres, as it says itself."""
    said = health.get("outage")
    if not isinstance(said, dict):
        return StoreOutage(None)
    try:
        return StoreOutage(datetime.fromisoformat(str(said.get("since"))), int(said.get("refused", 0)))
    except (TypeError, ValueError):
        return StoreOutage(None)
