"""RUNBOOK, "Signature Verification Failing": which secret, clock or sender is the wrong one."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from relay.chatwoot.signature import SignatureFault
from relay.incident.diagnosis.chapter import Chapter, Check, Order
from relay.incident.diagnosis.senders import Place, senders
from relay.incident.failing import refusals_are_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.incident.evidence import Evidence
    from relay.store.refused import Refused

SKEW_S = 60

_RESYNC = (
    "Verify that CHATWOOT_WEBHOOK_SECRET matches Chatwoot's configuration: get the secret from Chatwoot's settings",
    "Update the environment: fly secrets set CHATWOOT_WEBHOOK_SECRET=your-secret -a hotdash-app",
    "Several secrets may be set, comma-separated: one for each webhook, agent bot and API inbox, and during a rotation",
    "Restart: fly apps restart hotdash-app",
)
_RESOLUTIONS: dict[str, tuple[str, ...]] = {
    SignatureFault.INVALID: _RESYNC,
    SignatureFault.MISSING: (
        "Chatwoot signs account webhooks since 4.11.2, API inboxes and agent bots since 4.13: update an older one",
        "A webhook without a signature from a newer Chatwoot comes from another sender: find it in the proxy's log",
        *_RESYNC,
    ),
    SignatureFault.STALE: ("Set both machines' clocks by NTP: signatures more than 300 s old are refused",),
    SignatureFault.UNSIGNED_AUTOMATION: (
        "Chatwoot never signs what automation rules and macros send; no setting changes that",
        'Remove the action "Send Webhook Event" from the rule or macro: the account\'s webhook sends the same, signed',
        "If their events are needed, send them to a relay of their own without CHATWOOT_WEBHOOK_SECRET",
    ),
    SignatureFault.REENCODED: (
        "The secret is right: a proxy or function before the relay parses the JSON and writes it anew",
        "Let it pass the body on byte for byte (no JSON transformation, no web application firewall that normalises)",
    ),
}
SIGNATURE_REASONS = frozenset(str(reason) for reason in _RESOLUTIONS)
_WHY = {
    SignatureFault.UNSIGNED_AUTOMATION: "they come from automation rules or macros, which cannot sign",
    SignatureFault.REENCODED: "their bodies were re-encoded on the way after Chatwoot signed them",
    SignatureFault.STALE: "their timestamps are more than 300 s off",
    SignatureFault.MISSING: "they have no signature",
    SignatureFault.INVALID: "no configured secret made their signatures",
}


def signatures(evidence: Evidence) -> Chapter:
    """The chapter."""
    refused = [one for one in evidence.refused if one.reason in SIGNATURE_REASONS]
    count = sum(one.count for one in refused)
    unknown = _unknown_secrets(evidence)
    broken = [test for test in evidence.self_tests if not test.ok]
    order, verdict = Order.WELL, "Signatures are as they should be."
    lines: tuple[str, ...] = ()
    if not _verifying(evidence) and not evidence.self_tests:
        verdict = "CHATWOOT_WEBHOOK_SECRET is not set: unsigned webhooks are accepted from any sender."
    if count:
        worst = max(refused, key=lambda one: one.count)
        since = min(one.first for one in refused)
        backfill = f"Then fetch what was refused: relay backfill --since {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        goes_on = not all(refusals_are_over(evidence.state, one) for one in refused)
        order, lines = Order.LOSSES if goes_on else Order.WAITING, (*_RESOLUTIONS[worst.reason], backfill)
        number = f"{count} webhook{' was' if count == 1 else 's were'}"
        verdict = (
            f"Signatures {'fail' if goes_on else 'failed earlier'}: {number} "
            f"refused in the last hour ({worst.reason}, last {worst.last:%H:%M:%S}Z): "
            f"{_WHY[SignatureFault(worst.reason)]}."
        )
        if worst.reason == SignatureFault.INVALID and unknown:
            verdict = f"{verdict[:-1]}; {unknown[0]}."
    elif broken:
        order, lines = Order.SETUP, _RESYNC
        verdict = f"The running relay does not know secret {broken[0].number} of this configuration."
    elif unknown:
        order, lines = Order.SETUP, _RESYNC
        verdict = f"{unknown[0][0].upper()}{unknown[0][1:]}."
    return Chapter(
        "signatures-failing", "Signature Verification Failing", order, verdict,
        tuple(_checks(evidence, refused, unknown)), lines, explains=count or int(order < Order.WELL),
    )  # fmt: skip


def _verifying(evidence: Evidence) -> int:
    return sum(relay.signed for relay in evidence.overview.alive)


def _checks(evidence: Evidence, refused: Sequence[Refused], unknown: Sequence[str]) -> list[Check]:
    signed = _verifying(evidence)
    checks = [
        Check(not refused, _refusals(refused) if refused else "no webhook was refused for its signature in 1 h"),
        Check(True if signed else None, f"{signed} of {len(evidence.overview.alive)} relay workers verify signatures"),
    ]
    if evidence.clock_ahead_s is not None:
        ahead = evidence.clock_ahead_s
        direction = "ahead of" if ahead >= 0 else "behind"
        checks.append(Check(abs(ahead) < SKEW_S, f"Chatwoot's clock is {abs(ahead):.0f} s {direction} this one's"))
    checks += [
        Check(test.ok, f"secret {test.number} of {len(evidence.self_tests)}: {test.answer}")
        for test in evidence.self_tests
    ]
    return checks + [Check(ok=False, text=sentence) for sentence in unknown]


def _unknown_secrets(evidence: Evidence) -> list[str]:
    """What of Chatwoot's signs with a secret that is not configured here, or does not sign, although one is set."""
    if not evidence.secrets:
        return []
    found = []
    for sender in senders(evidence):
        if sender.place is not Place.HERE:
            continue
        webhook = sender.webhook
        if webhook.secret is not None and webhook.secret.encode() not in evidence.secrets:
            found.append(f"Chatwoot's {sender.named} signs with a secret that CHATWOOT_WEBHOOK_SECRET does not hold")
        elif webhook.secret is None and evidence.server is not None and not _signs(evidence, sender.is_account):
            found.append(
                f"Chatwoot {evidence.server.version} does not sign what its {sender.named} sends, "
                "and CHATWOOT_WEBHOOK_SECRET is set: all of it is refused"
            )
    return found


def _signs(evidence: Evidence, is_account: bool) -> bool:
    assert evidence.server is not None
    return evidence.server.is_at_least(*((4, 11, 2) if is_account else (4, 13, 0))) is not False


def _refusals(refused: Sequence[Refused]) -> str:
    shown = (f"{one.count} × {one.reason} ({one.first:%H:%M:%S}Z to {one.last:%H:%M:%S}Z)" for one in refused)
    return "refused in 1 h: " + ", ".join(shown)
