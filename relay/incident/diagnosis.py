"""The runbook's four troubleshooting chapters as checks of the live system. Pure: evidence in, verdicts out.

RUNBOOK, "Troubleshooting", for chapters and resolutions; DESIGN, 8. Each chapter says what was checked, what
was found, a verdict and the resolution that fits. The chapter that explains most comes first, and its verdict
is the diagnosis' first line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from relay.domain.retry import Failure
from relay.domain.stats import retry_helps
from relay.settings import without_credentials
from relay.store.refusal import MOST_COUNTED, explain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from relay.incident.evidence import Evidence, Reach
    from relay.store.aside import Waiting
    from relay.store.backlog import BacklogState
    from relay.store.browse import Group
    from relay.store.facts import Refused

EVENTS = ("message_created", "conversation_status_changed")
"""The events that the runbook subscribes to."""

MANY_ATTEMPTS = 1.5
SLOW_MS = 2_000
SILENT_S = 1_800
SKEW_S = 60
_CAUSE_GONE_AFTER_S = 20
_NETWORK = frozenset(failure.value for failure in Failure)
_NO_SUCH_HOST = frozenset({Failure.DNS_FAILURE, Failure.UNREACHABLE})


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `ok` is None where it could not be told."""

    ok: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Chapter:
    """One of the runbook's issues. `weight` is how many webhooks of the last hour it explains; 0: no problem."""

    name: str
    title: str
    weight: float
    verdict: str
    checks: tuple[Check, ...]
    resolution: tuple[str, ...] = ()
    replay: tuple[str, ...] = field(default=())
    """Filters of the dead letters whose cause is gone."""

    @property
    def problem(self) -> bool:
        """True if something is wrong here."""
        return self.weight > 0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All chapters, the one that explains most first."""

    at: datetime
    chapters: tuple[Chapter, ...]

    @property
    def headline(self) -> str:
        """The cause, in a sentence."""
        worst = self.chapters[0]
        return worst.verdict if worst.problem else "Nothing is wrong as far as these checks see."

    @property
    def problem(self) -> bool:
        """True if any chapter has found one."""
        return any(chapter.problem for chapter in self.chapters)


def diagnose(evidence: Evidence) -> Diagnosis:
    """The runbook's four chapters on `evidence`, and one on `dashboard_facts` if it refuses facts."""
    chapters = [_not_received(evidence), _retries(evidence), _dead_letters(evidence), _signatures(evidence)]
    if evidence.overview.facts_aside is not None:
        chapters.append(_facts_aside(evidence.overview.facts_aside))
    if evidence.overview.backlog.waiting:
        chapters.append(_backlog(evidence.overview.backlog))
    chapters.sort(key=lambda chapter: chapter.weight, reverse=True)
    return Diagnosis(evidence.overview.at, tuple(chapters))


# Deliveries that wait

_OVERDUE_S = 300


def _backlog(backlog: BacklogState) -> Chapter:
    reasons = ", ".join(f"{number} for {reason}" for reason, number in backlog.by_reason.items())
    age = "" if backlog.oldest_s is None else f", the oldest for {_span(backlog.oldest_s)}"
    waits = f"{backlog.waiting} deliveries wait ({reasons}){age}"
    weight, verdict, lines = 0.0, f"{waits}.", ["Nothing is lost: what waits is in Postgres and drains in order"]
    if backlog.stopped is not None:
        weight, verdict = 100_000, backlog.stopped
        lines.append(
            "When the reason for the hold is gone: relay release"
            if backlog.hold is not None
            else "The breaker closes by itself once a probe succeeds: see why the Agent SDK fails"
        )
    elif (backlog.overdue_s or 0) > _OVERDUE_S:
        weight = float(backlog.waiting)
        lines.append("Raise RELAY_MAX_IN_FLIGHT or RELAY_AGENT_CONCURRENCY if the Agent SDK can take more")
    is_well = weight == 0
    return Chapter("backlog", "Deliveries Wait", weight, verdict, (Check(is_well, waits),), tuple(lines))


# Webhooks Not Received


def _workers(alive: int) -> str:
    return {0: "no relay is alive", 1: "1 relay worker alive"}.get(alive, f"{alive} relay workers alive")


def _not_received(evidence: Evidence) -> Chapter:
    state = evidence.overview
    age_s, usual = state.last_webhook_age_s, evidence.usual_per_hour
    silent = age_s is not None and age_s > SILENT_S and usual > 10
    alive = bool(state.alive)
    checks = [
        Check(alive, _workers(len(state.alive))),
        Check(evidence.relay.ok, _reached(evidence.relay, "this relay")),
        Check(None if age_s is None else not silent, _last_webhook(age_s, usual)),
    ]
    pointing, faults = _chatwoots_side(evidence, checks)
    weight, verdict = 0.0, "Webhooks come in."
    if not alive:
        heard = min((relay.age_s for relay in state.relays), default=None)
        last = "none was heard of in a day" if heard is None else f"the last heartbeat was {_span(heard)} ago"
        weight, verdict = 1_000_000, f"No relay is running: {last}; webhooks are lost."
    elif silent:
        assert age_s is not None
        weight = usual * age_s / 3600
        why = faults[0] if faults else "Chatwoot's settings look right, so something between it and here is in the way"
        verdict = f"No webhook for {_span(age_s)}, though {usual:.0f} an hour are usual: {why}."
    elif age_s is None and evidence.webhooks is not None and not pointing:
        weight, verdict = 1, f"No webhook has ever come: {faults[0] if faults else 'none is set up in Chatwoot'}."
    return Chapter(
        "not-received", "Webhooks Not Received", weight, verdict, tuple(checks),
        (
            "Update the webhook URL in Chatwoot's settings (Settings, Integrations, Webhooks): "  # noqa: ISC004
            f"https://YOUR-HOST{evidence.webhook_path}, events {' and '.join(EVENTS)}",
            f"Test with curl from Chatwoot's server: curl -i -X POST https://YOUR-HOST{evidence.webhook_path}",
            "Review the logs of load balancer and proxy, and the firewall's rules",
        ) if alive else ("Start a relay: relay serve",),
    )  # fmt: skip


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _reached(reach: Reach, what: str) -> str:
    said = "resolves and takes connections" if reach.ok else f"cannot be reached: {reach.error}"
    return f"{what} ({reach.target}) {said} from here"


def _last_webhook(age_s: float | None, usual: float) -> str:
    if age_s is None:
        return "no webhook has come yet"
    return f"the last webhook came {_span(age_s)} ago; {usual:.0f} an hour over the last day"


def _chatwoots_side(evidence: Evidence, checks: list[Check]) -> tuple[bool, list[str]]:
    """Add what Chatwoot says of its webhooks; whether one points here, and what is wrong."""
    if evidence.webhooks is None:
        checks.append(Check(None, f"Chatwoot's webhooks: {evidence.webhooks_error}"))
        unreachable = [result for result in evidence.probes if result.target == "chatwoot" and not result.ok]
        return False, [f"Chatwoot itself fails its health check ({r.status or r.error})" for r in unreachable]
    here = [one for one in evidence.webhooks if _points_here(one.url, evidence) is not False]
    if not here:
        elsewhere = ", ".join(without_credentials(one.url) for one in evidence.webhooks) or "none at all"
        fault = f"none of Chatwoot's webhooks points to {evidence.own_url}{evidence.webhook_path} ({elsewhere})"
        checks.append(Check(ok=False, text=fault))
        return False, [fault]
    missing = [event for event in EVENTS if not any(event in one.subscriptions for one in here)]
    here.sort(key=lambda one: _points_here(one.url, evidence) is None)
    if _points_here(here[0].url, evidence):
        checks.append(
            Check(ok=True, text=f"Chatwoot has a webhook that points here: {without_credentials(here[0].url)}")
        )
    else:
        url = without_credentials(here[0].url)
        text = f"Chatwoot has a webhook to {url}; from here it is not known where that address leads"
        checks.append(Check(ok=None, text=text))
    fault = f"Chatwoot's webhook does not send {' and '.join(missing)}"
    checks.append(Check(not missing, fault if missing else f"it sends {', '.join(here[0].subscriptions)}"))
    return True, [fault] if missing else []


_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_PORTS = {"http": 80, "https": 443}


def _points_here(url: str, evidence: Evidence) -> bool | None:
    """Whether a webhook's address is a relay's; None where only whoever set up proxies and names can know.

    By another name, or at another host's ordinary port, a proxy may stand that hands on to the relay. On the very
    host that the relay is on, another port that is not an ordinary one is something else's.
    """
    if not url.rstrip("/").endswith(evidence.webhook_path):
        return False
    (host, port), (own_host, own_port) = _address(url), _address(evidence.own_url)
    if host != own_host:
        return None
    bound = {relay.name.rpartition(":")[2] for relay in evidence.overview.alive}
    if port == own_port or str(port) in bound:
        return True
    return None if port in _PORTS.values() else False


def _address(url: str) -> tuple[str, int | None]:
    """Host and port of an address, this machine by one name; no port where it names none that can be."""
    parts = urlsplit(url)
    try:
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        port = None
    host = parts.hostname or ""
    return "localhost" if host in _LOOPBACK else host, port


# High Retry Rate


def _retries(evidence: Evidence) -> Chapter:
    state = evidence.overview
    figures = state.last_1h
    retried = {status: count for status, count in figures.failures.items() if retry_helps(status)}
    failed = sum(retried.values())
    average = figures.average_attempts
    slow_ms = state.last_15min.average_ms
    agent = next((result for result in evidence.probes if result.target == "agent"), None)
    checks = [
        Check(
            None if average is None else average <= MANY_ATTEMPTS,
            "no delivery in 1 h" if average is None else f"{average:.2f} attempts on average over 1 h",
        ),
        Check(
            not failed,
            f"retried in vain in 1 h: {_by_status(retried)}" if failed else "none was retried in vain in 1 h",
        ),
        Check(
            None if slow_ms is None else slow_ms <= SLOW_MS,
            "no success in 15 min" if slow_ms is None else f"forwarding takes {slow_ms:.0f} ms on average over 15 min",
        ),
        Check(evidence.agent.ok, _reached(evidence.agent, "the Agent SDK")),
    ]
    if agent is not None:
        checks.append(Check(agent.ok, f"{agent.label} now: {agent.status or agent.error} in {agent.latency_ms:.0f} ms"))
    is_down = agent is not None and not agent.ok
    slow = slow_ms is not None and slow_ms > SLOW_MS
    weight, verdict = 0.0, "The Agent SDK takes what it is sent."
    if failed:
        worst = max(retried, key=lambda status: retried[status])
        total = sum(figures.failures.values())
        began = _began(worst, evidence)
        now = (
            f"; its /health fails too ({agent.status or agent.error})"
            if agent is not None and is_down
            else ("; its /health answers well now" if agent is not None else "")
        )
        weight = float(failed)
        verdict = f"{_agent_does(worst)}: {retried[worst]} of {total} failures in the last hour{began}{now}."
    elif is_down:
        assert agent is not None
        weight, verdict = 1, f"The Agent SDK's health check fails ({agent.status or agent.error})."
    elif slow:
        weight = max(1.0, float(state.last_15min.rate.delivered))
        verdict = f"The Agent SDK is slow: {slow_ms:.0f} ms on average over 15 min, and nothing fails yet."
    elif average is not None and average > MANY_ATTEMPTS:
        weight, verdict = 1, f"Deliveries take {average:.2f} attempts on average, and get through in the end."
    if slow and failed:
        verdict = verdict.rstrip(".") + f"; what gets through takes {slow_ms:.0f} ms."
    return Chapter(
        "high-retry-rate", "High Retry Rate", weight, verdict, tuple(checks),
        _retry_resolution(evidence, retried, slow=slow or is_down),
    )  # fmt: skip


def _began(status: str, evidence: Evidence) -> str:
    """Since when it has failed so, by what was recorded: what is open moves on as it is replayed."""
    streak = next((one for one in evidence.streaks if one.status == status and not one.replayed), None)
    if streak is None:
        return ""
    if streak.first is None:
        return ", for more than a day"
    day = "" if streak.first.date() == evidence.overview.at.date() else f"{streak.first:%b %d} "
    return f", since {day}{streak.first:%H:%M:%S}Z"


def _by_status(counts: dict[str, int]) -> str:
    return ", ".join(f"{status} × {count}" for status, count in sorted(counts.items(), key=lambda item: -item[1]))


_DOES = {
    "429": "The Agent SDK is rate limiting (429)",
    Failure.TIMEOUT: "The Agent SDK does not answer in time (timeout)",
    Failure.CONNECTION_REFUSED: "The Agent SDK is down: it refuses connections (connection_refused)",
    Failure.CONNECTION_RESET: "The Agent SDK drops connections (connection_reset)",
    Failure.DNS_FAILURE: "The Agent SDK's host name does not resolve (dns_failure)",
    Failure.UNREACHABLE: "The Agent SDK's host is unreachable (unreachable)",
    Failure.TLS_ERROR: "The TLS handshake with the Agent SDK fails (tls_error)",
    Failure.PROTOCOL_ERROR: "The Agent SDK's answers are not valid HTTP (protocol_error)",
}


def _agent_does(status: str) -> str:
    return _DOES.get(status, f"The Agent SDK answers {status}")


def _retry_resolution(evidence: Evidence, retried: dict[str, int], *, slow: bool) -> tuple[str, ...]:
    host = evidence.agent.target
    lines: list[str] = []
    if slow or any(status.isdigit() and status != "429" for status in retried) or Failure.TIMEOUT in retried:
        lines += [
            "The Agent SDK may be overloaded or down",
            f"Check its health: curl {evidence.agent_url}/health",
            "Review its logs: fly logs -a hotdash-agent-service",
        ]
    if "429" in retried:
        lines += ["Rate limiting: reduce the webhooks' frequency", "Or increase the Agent SDK's capacity"]
    if any(status in _NETWORK - {Failure.TIMEOUT} for status in retried):
        lines += [f"Connectivity: test with ping {host.rpartition(':')[0]}", "Check DNS resolution"]
    return tuple(lines)


# Dead Letter Queue Growing


def _dead_letters(evidence: Evidence) -> Chapter:
    state = evidence.overview
    open_now, fresh = state.open_dead_letters, state.last_1h.dead_letters
    checks = [
        Check(not open_now, f"{open_now} open; {fresh} in 1 h, {state.last_24h.dead_letters} in 24 h"),
        *(
            Check(
                ok=False,
                text=f"{group.count} × {group.last_error}, died {_when(group.first)} to {_when(group.last)}",
            )
            for group in sorted(evidence.groups, key=lambda group: -group.count)[:10]
        ),
    ]
    real = [group for group in evidence.groups if not group.only_tests]
    refused = [group for group in real if not retry_helps(group.final_status)]
    gone = [group for group in real if _cause_is_gone(group, evidence)]
    failures = state.last_1h.failures
    refused_lately = sum(count for status, count in failures.items() if not retry_helps(status))
    weight, verdict = 0.0, "No dead letter waits."
    if refused and refused_lately:
        worst = max(refused, key=lambda group: (failures.get(group.final_status, 0), group.count))
        weight = float(refused_lately)
        verdict = (
            f"{worst.last_error}: {worst.count} dead letters that no retry helps, the oldest of "
            f"{_when(worst.first)}; look at one payload."
        )
    elif open_now:
        ready = sum(group.count for group in gone)
        weight = 0.5
        vain = sum(group.count for group in refused)
        verdict = f"{open_now} dead letters wait"
        verdict += f"; the cause of {ready} is gone: replay them" if ready else ""
        verdict += f"; {vain} of them no retry helps" if vain else ""
        verdict += "."
    lines = [
        "Identify the root cause from lastError, above",
        "Fix the underlying issue (Agent SDK, network, configuration)",
    ]
    lines += [f"Replay what failed: {replay_command(text)}" for text in map(_filter_of, gone)] or [
        "Replay what failed once the fix is verified: relay replay --dry-run"
    ]
    return Chapter(
        "dead-letters-growing", "Dead Letter Queue Growing", weight, verdict, tuple(checks),
        tuple(lines) if open_now else (), tuple(_filter_of(group) for group in gone),
    )  # fmt: skip


def _when(moment: datetime) -> str:
    return f"{moment:%b %d %H:%M:%S}Z"


def _cause_is_gone(group: Group, evidence: Evidence) -> bool:
    """True if trying again would have helped, nothing failed so for a while, and something shows that it is over.

    That the agent's health is well now shows nothing if it has been well all along.
    """
    state = evidence.overview
    agent_ok = any(result.target == "agent" and result.ok for result in evidence.probes)
    own = [streak for streak in evidence.streaks if streak.status == group.final_status]
    first = min((streak.first for streak in own if streak.first is not None), default=group.first)
    last = max([group.last, *(streak.last for streak in own)])
    is_quiet = (state.at - last).total_seconds() > _CAUSE_GONE_AFTER_S
    is_over = state.gets_through_since(last) or state.agent_is_well_since(first, last)
    return agent_ok and retry_helps(group.final_status) and is_quiet and is_over


def _filter_of(group: Group) -> str:
    return group.filter


def replay_command(text: str) -> str:
    """The command that replays what the filter `text` finds."""
    quoted = text.replace("'", "'\\''")
    return f"relay replay --canary 1 --rate 20 --filter '{quoted}'"


# Signature Verification Failing


def _signatures(evidence: Evidence) -> Chapter:
    refused = [one for one in evidence.refused if one.reason in SIGNATURE_REASONS]
    count = sum(one.count for one in refused)
    signed = [relay for relay in evidence.overview.alive if relay.signed]
    checks = [
        Check(not count, _refusals(refused) if count else "no webhook was refused for its signature in 1 h"),
        Check(
            None if not signed else True,
            f"{len(signed)} of {len(evidence.overview.alive)} relay workers verify signatures",
        ),
    ]
    if evidence.clock_ahead_s is not None:
        ahead = evidence.clock_ahead_s
        checks.append(
            Check(
                abs(ahead) < SKEW_S,
                f"Chatwoot's clock is {abs(ahead):.0f} s {'ahead of' if ahead >= 0 else 'behind'} this one's",
            )
        )
    checks += [
        Check(test.ok, f"secret {test.number} of {len(evidence.self_tests)}: {test.answer}")
        for test in evidence.self_tests
    ]
    broken = [test for test in evidence.self_tests if not test.ok]
    weight, verdict = 0.0, "Signatures are as they should be."
    lines: tuple[str, ...] = ()
    if not signed and not evidence.self_tests:
        verdict = "CHATWOOT_WEBHOOK_SECRET is not set: anybody's webhooks are accepted."
    if count:
        worst = max(refused, key=lambda one: one.count)
        weight = float(count)
        verdict = (
            f"Signatures fail: {count} webhooks were refused in the last hour "
            f"({worst.reason}, last {worst.last:%H:%M:%S}Z)."
        )
        lines = _SIGNATURE_RESOLUTION[worst.reason]
    elif broken:
        weight, verdict = 1, f"The running relay does not know secret {broken[0].number} of this configuration."
        lines = _SIGNATURE_RESOLUTION["invalid_signature"]
    return Chapter("signatures-failing", "Signature Verification Failing", weight, verdict, tuple(checks), lines)


# Facts that dashboard_facts refuses


def _facts_aside(waiting: Waiting) -> Chapter:
    reason, remedy = explain(waiting.reason)
    facts = f"{waiting.facts}{' or more' if waiting.facts == MOST_COUNTED else ''} facts"
    age = _span(waiting.oldest_s)
    return Chapter(
        "facts-refused", "Facts Refused by dashboard_facts", float(waiting.facts),
        f"dashboard_facts does not take the relay's facts: {reason}; {facts} wait aside, so the figures are too low.",
        (Check(ok=False, text=f"{facts} wait in relay.facts_aside, the oldest for {age}: {reason}"),),
        (
            remedy[0].upper() + remedy[1:],
            "The relay moves the facts over within a minute, with the time they were recorded at",
            "To give them up instead: DELETE FROM relay.facts_aside",
        ),
    )  # fmt: skip


_RESYNC = (
    "Verify that CHATWOOT_WEBHOOK_SECRET matches Chatwoot's configuration: get the secret from Chatwoot's settings",
    "Update the environment: fly secrets set CHATWOOT_WEBHOOK_SECRET=your-secret -a hotdash-app",
    "During a rotation both may be set, comma-separated",
    "Restart: fly apps restart hotdash-app",
)
_SIGNATURE_RESOLUTION: dict[str, tuple[str, ...]] = {
    "invalid_signature": _RESYNC,
    "missing_signature": (
        "Set a secret on the webhook in Chatwoot's settings; who sends without one is not Chatwoot",
        *_RESYNC,
    ),
    "stale_timestamp": ("Set both machines' clocks by NTP: signatures more than 300 s old are refused",),
}
SIGNATURE_REASONS = frozenset(_SIGNATURE_RESOLUTION)


def _refusals(refused: Sequence[Refused]) -> str:
    shown = (f"{one.count} × {one.reason} ({one.first:%H:%M:%S}Z to {one.last:%H:%M:%S}Z)" for one in refused)
    return "refused in 1 h: " + ", ".join(shown)
