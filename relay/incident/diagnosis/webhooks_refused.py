"""The chapter that the runbook lacks: webhooks that the relay refused for something other than their signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.format import plural
from relay.incident.diagnosis.chapter import Chapter, Check, Order
from relay.incident.diagnosis.signatures import SIGNATURE_REASONS

if TYPE_CHECKING:
    from relay.incident.evidence import Evidence

QUIET_REASONS = frozenset({"unknown_path", "wrong_method"})
"""What scanners of the internet cause every day: shown among the checks, and no problem by itself."""

_SENTENCES = {
    "body_too_large": "were too large (413), and are lost",
    "wrong_path": "went to a path that the relay does not have (404), and are lost",
    "unsupported_encoding": "had a Content-Encoding that the relay does not know (415), and are lost",
    "not_stored": "were not stored by Postgres (503), and are lost",
    "body_too_slow": "took too long to arrive (408), and are lost",
}
_BAD_BODY = "were not JSON objects (400): Chatwoot sends none such"
_RESOLUTIONS = {
    "body_too_large": (
        "Raise CHATWOOT_WEBHOOK_MAX_BODY_BYTES and restart the relay; check the limit of the proxy before it too",
        "Fetch what is missing: relay backfill --since TIME",
    ),
    "wrong_path": (
        "Correct the URL in Chatwoot's settings (Settings, Integrations, Webhooks): https://YOUR-HOST{path}",
        "Fetch what is missing: relay backfill --since TIME",
    ),
    "not_stored": (
        "Read the reason in the relay's log: grep 'Webhook not stored'; if a right is missing: relay migrate --roles",
        "If it is a lock, end the session that holds it: pid and xact_start in pg_stat_activity, pg_terminate_backend",
        "Fetch what is missing: relay backfill --since TIME",
    ),
    "unsupported_encoding": ("Switch off the compression of request bodies in the proxy before the relay",),
    "body_too_slow": ("Check the network and the proxy between Chatwoot and the relay",),
}
_OTHER = (
    "Find out in the proxy's log who sends them",
    "Set CHATWOOT_WEBHOOK_SECRET, so that only what Chatwoot signed is read",
)


def webhooks_refused(evidence: Evidence) -> Chapter | None:
    """The chapter, if webhooks were refused in the last hour."""
    refused = [one for one in evidence.refused if one.reason not in SIGNATURE_REASONS]
    loud = [one for one in refused if one.reason not in QUIET_REASONS]
    if not loud:
        return None
    worst = max(loud, key=lambda one: one.count)
    checks = [
        Check(
            None if one.reason in QUIET_REASONS else False,
            f"refused in 1 h: {one.count} × {one.reason} ({one.first:%H:%M:%S}Z to {one.last:%H:%M:%S}Z)",
        )
        for one in refused
    ]
    verdict = (
        f"{plural(worst.count, 'webhook')} of the last hour "
        f"{_SENTENCES.get(worst.reason, _BAD_BODY)} ({worst.reason}, last {worst.last:%H:%M:%S}Z)."
    )
    if worst.count == 1:
        verdict = (
            verdict.replace(" were ", " was ").replace(" are lost", " is lost").replace("JSON objects", "a JSON object")
        )
    lines = tuple(line.format(path=evidence.webhook_path) for line in _RESOLUTIONS.get(worst.reason, _OTHER))
    return Chapter(
        "webhooks-refused", "Webhooks Refused", Order.LOSSES, verdict, tuple(checks), lines,
        explains=sum(one.count for one in loud),
    )  # fmt: skip
