"""The chapter that the runbook lacks: a probe of Chatwoot fails, or its API refuses the relay's key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.incident.diagnosis.chapter import Chapter, Check, Order
from relay.monitoring.probes import NOT_CHATWOOT

if TYPE_CHECKING:
    from relay.incident.evidence import Evidence
    from relay.monitoring.probes import ProbeResult


def chatwoot_fails(evidence: Evidence) -> Chapter | None:
    """The chapter, if something fails. A Chatwoot that is not configured is no failure."""
    failing = [result for result in evidence.probes if result.target.startswith("chatwoot") and not result.ok]
    if not failing and (evidence.webhooks is not None or not evidence.is_chatwoot_configured):
        return None
    checks = [
        Check(result.ok, f"{result.label} ({result.url}): {'OK' if result.ok else result.shown}")
        for result in evidence.probes
        if result.target.startswith("chatwoot")
    ]
    if evidence.webhooks is None:
        checks.append(Check(ok=False, text=f"the list of webhooks: {evidence.webhooks_error}"))
    if evidence.server is not None:
        checks.append(Check(ok=None, text=f"Chatwoot's version: {evidence.server.version}"))
    return Chapter(
        "chatwoot-fails", "Chatwoot Refuses the Relay or Fails", Order.SETUP, _verdict(evidence, failing),
        tuple(checks), _resolution(evidence, failing), explains=1,
    )  # fmt: skip


def _verdict(evidence: Evidence, failing: list[ProbeResult]) -> str:
    """The API's own answer says most: it distinguishes a wrong key from a key without the right.

    Where nothing answers, or something else than Chatwoot, the health check says it.
    """
    first = failing[0] if failing else None
    is_chatwoot = first is None or (first.status is not None and first.error != NOT_CHATWOOT and first.remedy)
    if evidence.webhooks_error and (is_chatwoot or (first is not None and first.target == "chatwoot_api")):
        return f"Chatwoot cannot be asked: {evidence.webhooks_error}."
    return f"Chatwoot's health check fails: {failing[0].label} ({failing[0].shown})."


def _resolution(evidence: Evidence, failing: list[ProbeResult]) -> tuple[str, ...]:
    remedies = [result.remedy for result in failing if result.remedy]
    if not remedies and evidence.webhooks_error and ";" in evidence.webhooks_error:
        remedies = [evidence.webhooks_error.partition(";")[2].strip()]
    lines = [remedy[0].upper() + remedy[1:] for remedy in dict.fromkeys(remedies)]
    return (*lines, "Then run: relay check-health")
