"""RUNBOOK, "Webhooks Not Received": whether relay and Chatwoot are set up so that webhooks arrive."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from relay.domain.format import hourly
from relay.incident.diagnosis.chapter import Chapter, Check, Order, reached, span
from relay.incident.diagnosis.senders import Place, is_filtered, senders
from relay.incident.diagnosis.signatures import SIGNATURE_REASONS

if TYPE_CHECKING:
    from datetime import datetime

    from relay.incident.diagnosis.senders import Sender
    from relay.incident.evidence import Evidence

EVENTS = ("message_created", "conversation_status_changed")
"""The events that the runbook subscribes to."""

SILENT_S = 1_800
_MARGIN = timedelta(seconds=60)
"""A relay may lose webhooks for so long after its last heartbeat and before its first: backfill searches there too."""

_USUAL_PER_HOUR = 10
_SWITCH = "SAFE_FETCH_ALLOW_PRIVATE_NETWORK=true"


def not_received(evidence: Evidence) -> Chapter:
    """The chapter."""
    state = evidence.overview
    age_s, usual = state.last_webhook_age_s, evidence.usual_per_hour
    is_quiet = (age_s is None or age_s > SILENT_S) and not _something_arrives(evidence)
    is_silent = is_quiet and usual > _USUAL_PER_HOUR
    found = senders(evidence)
    faults = _faults(evidence, found) if evidence.webhooks is not None else _faults_of_probes(evidence)
    checks = [
        Check(bool(state.alive), _workers(len(state.alive))),
        Check(evidence.relay.ok, reached(evidence.relay, "this relay")),
        Check(None if age_s is None else not is_silent, _last_webhook(age_s, usual)),
        *_checks_of_chatwoot(evidence, found),
    ]
    order, verdict, lost = Order.WELL, "Webhooks come in.", 0
    if not state.alive:
        order, verdict = Order.NO_RELAY, f"No relay is running: {_last_heartbeat(evidence)}; webhooks are lost."
    elif is_silent:
        order, lost = Order.SILENCE, round(usual * (age_s or 0) / 3600)
        cause = (
            faults[0] if faults else "Chatwoot's settings look right, so something between it and here is in the way"
        )
        since = "" if age_s is None else f" for {span(age_s)}"
        verdict = f"No webhook{since}, though {hourly(usual)} are usual: {cause}."
    elif faults and is_quiet and evidence.webhooks is not None:
        order = Order.SILENCE
        since = "No webhook has ever come" if age_s is None else f"No webhook for {span(age_s)}"
        verdict = f"{since}: {faults[0]}."
    elif missing := _missing_events(found, sure=True):
        order, verdict = Order.SETUP, f"{_not_sent(missing)}."
    elif evidence.unattended and usual > 0:
        ended, began = evidence.unattended[0]
        lost = max(1, round(usual * (began - ended).total_seconds() / 3600))
        order = Order.LOSSES
        verdict = f"No relay ran from {_at(ended)} to {_at(began)}: what Chatwoot sent then is missing here."
    return Chapter(
        "not-received", "Webhooks Not Received", order, verdict, tuple(checks), _resolution(evidence, found),
        explains=lost or int(order < Order.WELL),
    )  # fmt: skip


def _at(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _something_arrives(evidence: Evidence) -> bool:
    """True if webhooks reached the relay in the last hour and were refused. The secrets tested here are no webhooks."""
    refused = sum(one.count for one in evidence.refused if one.reason in SIGNATURE_REASONS | {"body_too_large"})
    return refused > sum(not test.ok for test in evidence.self_tests)


def _workers(alive: int) -> str:
    return {0: "no relay is alive", 1: "1 relay worker alive"}.get(alive, f"{alive} relay workers alive")


def _last_heartbeat(evidence: Evidence) -> str:
    age_s = min((relay.age_s for relay in evidence.overview.relays), default=None)
    return "no heartbeat in the last day" if age_s is None else f"the last heartbeat was {span(age_s)} ago"


def _last_webhook(age_s: float | None, usual: float) -> str:
    if age_s is None:
        return "no webhook has come yet"
    return f"the last webhook came {span(age_s)} ago; {hourly(usual)} over the last day"


def _faults_of_probes(evidence: Evidence) -> list[str]:
    """Why nothing may come, where Chatwoot's settings cannot be read."""
    failing = [result for result in evidence.probes if result.target == "chatwoot" and not result.ok]
    faults = [f"Chatwoot itself fails its health check ({result.shown})" for result in failing]
    return faults or ([f"Chatwoot cannot be asked why ({evidence.webhooks_error})"] if evidence.webhooks_error else [])


def _faults(evidence: Evidence, found: list[Sender]) -> list[str]:
    """What keeps webhooks from coming, the surest first."""
    target = f"{evidence.own_url}{evidence.webhook_path}"
    here = [sender for sender in found if sender.place in {Place.HERE, Place.MAYBE_HERE}]
    if evidence.server is not None and not evidence.server.queue_ok:
        return ["Chatwoot's queue_services are failing (Redis), so it sends no webhook"]
    if not here:
        wrong = [sender for sender in found if sender.place is Place.WRONG_PATH]
        if wrong:
            return [
                (
                    f"Chatwoot's {wrong[0].named} calls {wrong[0].url}, a path that the relay answers with 404; "
                    f"the right one is {evidence.webhook_path}"
                )
            ]
        secure = [sender for sender in found if sender.place is Place.WRONG_SCHEME]
        if secure:
            return [
                (
                    f"Chatwoot's {secure[0].named} calls {secure[0].url}, and the relay speaks http there; the right "
                    f"one is {target}, or the address of a proxy that speaks https"
                )
            ]
        elsewhere = ", ".join(sender.url for sender in found) or "none at all"
        return [f"none of Chatwoot's webhooks points to {target} ({elsewhere})"]
    faults = []
    if all(is_filtered(sender, evidence) for sender in here):
        version = "" if evidence.server is None else f" {evidence.server.version}"
        faults.append(
            f"{here[0].url} is a private address, and Chatwoot{version} sends to none (since 4.14) "
            f"unless {_SWITCH} is set in its environment"
        )
    missing = _missing_events(found)
    return faults + ([_not_sent(missing)] if missing else [])


def _missing_events(found: list[Sender], *, sure: bool = False) -> list[str]:
    """The runbook's events that nothing which points here sends. `sure`: nothing that may be a proxy's counts."""
    places = {Place.HERE} if sure else {Place.HERE, Place.MAYBE_HERE}
    here = [sender for sender in found if sender.place in places]
    if not here or (sure and any(sender.place is Place.MAYBE_HERE for sender in found)):
        return []
    return [event for event in EVENTS if not any(sender.sends(event) for sender in here)]


def _not_sent(missing: list[str]) -> str:
    return f"Chatwoot's webhook does not send {' and '.join(missing)}"


def _checks_of_chatwoot(evidence: Evidence, found: list[Sender]) -> list[Check]:
    """What Chatwoot says of its version and of what sends webhooks."""
    checks = [] if evidence.server is None else [Check(ok=None, text=f"Chatwoot's version: {evidence.server.version}")]
    if evidence.webhooks is None:
        return [*checks, Check(ok=None, text=f"Chatwoot's webhooks: {evidence.webhooks_error}")]
    if evidence.server is not None and not evidence.server.queue_ok:
        checks.append(Check(ok=False, text="Chatwoot's queue_services are failing: it sends no webhook"))
    here = [sender for sender in found if sender.place in {Place.HERE, Place.MAYBE_HERE}]
    for sender in here:
        checks += _checks_of(sender, evidence)
    if not here:
        checks += [Check(ok=False, text=fault) for fault in _faults(evidence, found)[:1]]
    elif missing := _missing_events(found):
        checks.append(Check(ok=False, text=_not_sent(missing)))
    if len([sender for sender in here if sender.place is Place.HERE]) > 1:
        checks.append(Check(ok=None, text=f"{len(here)} senders point here: one message arrives more than once"))
    return checks


def _checks_of(sender: Sender, evidence: Evidence) -> list[Check]:
    kind = "a webhook" if sender.is_account else f"an {sender.webhook.source.value}"
    if sender.place is Place.HERE:
        checks = [Check(ok=True, text=f"Chatwoot has {kind} that points here: {sender.url}")]
    else:
        text = f"Chatwoot has {kind} to {sender.url}: is that this relay?"
        checks = [Check(ok=None, text=text)]
    if sender.webhook.subscriptions is not None:
        checks.append(Check(ok=None, text=f"it sends {', '.join(sender.webhook.subscriptions) or 'nothing'}"))
    if is_filtered(sender, evidence):
        text = f"its address is private: Chatwoot 4.14 and newer send nothing there unless {_SWITCH} is set"
        checks.append(Check(ok=None, text=text))
    return checks


def _resolution(evidence: Evidence, found: list[Sender]) -> tuple[str, ...]:
    if not evidence.overview.alive:
        return (
            "Start a relay: relay serve",
            "Then fetch what was missed from Chatwoot: relay backfill --since TIME --dry-run",
        )
    lines = [
        (
            f"Update the webhook URL in Chatwoot's settings (Settings, Integrations, Webhooks): "
            f"https://YOUR-HOST{evidence.webhook_path}, events {' and '.join(EVENTS)}"
        ),
        f"Test with curl from Chatwoot's server: curl -i -X POST https://YOUR-HOST{evidence.webhook_path}",
        "Review the logs of load balancer and proxy, and the firewall's rules",
    ]
    if evidence.server is not None and not evidence.server.queue_ok:
        lines.insert(0, "Start Chatwoot's Redis: without it Sidekiq sends no webhook")
    if any(is_filtered(sender, evidence) for sender in found if sender.place is not Place.ELSEWHERE):
        lines.insert(
            0,
            f"Set {_SWITCH} for Chatwoot's web and Sidekiq processes and restart them, or give the relay a public "
            'address; Sidekiq\'s log says "has no public ip addresses"',
        )
    if evidence.unattended:
        oldest, (_, newest) = evidence.unattended[-1][0] - _MARGIN, evidence.unattended[0]
        command = f"relay backfill --since {_at(oldest)} --until {_at(newest + _MARGIN)}"
        return (f"Fetch what is missing from Chatwoot: {command} --dry-run, then without --dry-run", *lines)
    return (*lines, "Then fetch what was missed from Chatwoot: relay backfill --since TIME --dry-run")
