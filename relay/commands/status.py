"""`relay status`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from relay.commands.common import Source, as_json, connected, database, or_partly, print_json, run, say
from relay.domain.delivery import WaitReason
from relay.domain.format import (
    NO_DATA,
    average,
    clipped,
    data_size,
    figure,
    in_flight,
    milliseconds,
    percent,
    plural,
    span,
    utc_clock,
    verb,
)
from relay.domain.targets import title
from relay.incident import state as incident_state
from relay.incident.cause import Kind
from relay.incident.headline import headline
from relay.settings import is_default_agent, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.domain.alerts import Rate, Verdict
    from relay.domain.stats import Figures
    from relay.incident.cause import Headline
    from relay.store.backlog import BacklogState
    from relay.store.databases import Place
    from relay.store.gate import Hold, OpenBreaker
    from relay.store.overview import Overview

_NAME_CHARS = 40
_MOST_NAMES = 8


@click.command("status")
@as_json
def command(*, as_json: bool) -> None:
    """Show what the console's overview shows. Exit 1 if an alert fires or no relay is alive."""
    settings = load_settings()

    async def show(place: Place) -> int:
        async with connected(place.dsn) as connection:
            state, whole = await incident_state.read(connection)
        cause = headline(whole)
        source = Source(place.name, state.demo)
        if as_json:
            print_json(document(state, source, cause))
        else:
            say(lines(state, source, cause))
            if place.note:
                say(place.note, err=True)
        return 1 if state.firing or not state.alive else 0

    with database(settings, or_demo=True) as place:
        run(or_partly(show(place), settings, place.dsn, as_json=as_json))


def document(state: Overview, source: Source, cause: Headline) -> dict[str, Any]:
    """The overview as one JSON document; rates in percent, durations in the unit that their name ends in."""
    return {
        "at": state.at,
        "headline": {"sentence": cause.sentence, "kind": cause.kind, "level": cause.level},
        "database": source.document,
        "replica": state.replica,
        "alerts": [
            {
                "rule": verdict.rule.name,
                "severity": verdict.rule.severity,
                "condition": verdict.rule.condition,
                "firing": verdict.firing,
                "value": verdict.value,
                "threshold": verdict.threshold,
                "unit": verdict.rule.unit,
                "since": verdict.since,
                "acknowledged": _acknowledgement(verdict),
            }
            for verdict in state.verdicts
        ],
        "windows": {
            "10m": _figures(state.last_10min),
            "15m": _figures(state.last_15min),
            "30m": _figures(state.last_30min),
            "1h": _figures(state.last_1h),
            "24h": _figures(state.last_24h),
        },
        "tests": {"15m": state.tests_15min, "1h": state.tests_1h},
        "dead_letters": {
            "open": state.open_dead_letters,
            "1h": state.last_1h.dead_letters,
            "24h": state.last_24h.dead_letters,
        },
        "forwarding": {"held": _hold(state.backlog.hold), "breaker": _breaker(state.backlog.breaker)},
        "backlog": {
            "size": state.backlog.size,
            "waiting": state.backlog.waiting,
            "by_reason": {reason.value: state.backlog.by_reason.get(reason, 0) for reason in WaitReason},
            "oldest_s": state.backlog.oldest_s,
            "drain_per_s": state.backlog.drain_per_s,
            "empty_in_s": state.backlog.empty_in_s,
            "destinations_without_relay": [asdict(one) for one in state.backlog.gone],
        },
        "spool": _spool_document(state),
        "in_flight": state.in_flight,
        "oldest_in_flight_s": state.oldest_in_flight_s,
        "last_webhook_age_s": state.last_webhook_age_s,
        "health": [asdict(health) for health in state.health],
        "relays": [asdict(relay) | {"agent_is_default": is_default_agent(relay.agent)} for relay in state.relays],
    }


def _hold(hold: Hold | None) -> dict[str, Any] | None:
    if hold is None:
        return None
    return {"by": hold.who, "reason": hold.reason, "since": hold.since, "until": hold.until}


def _breaker(breaker: OpenBreaker | None) -> dict[str, Any] | None:
    return None if breaker is None else {"why": breaker.why, "since": breaker.since}


def _spool_document(state: Overview) -> dict[str, Any]:
    return {
        "receipts": sum(one.receipts for one in state.spools),
        "bytes": sum(one.bytes for one in state.spools),
        "max_bytes": sum(one.max_bytes for one in state.spools),
        "hosts": [asdict(one) for one in state.spools],
    }


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "delivered": figures.rate.delivered,
        "failed": figures.rate.failed,
        "success_rate_percent": figures.rate.percent,
        "average_attempts": figures.average_attempts,
        "average_ms": figures.average_ms,
        "p95_ms": figures.p95_ms,
        "dead_letters": figures.dead_letters,
        "by_attempts": {
            str(attempts): {"delivered": delivered, "dead": dead}
            for attempts, (delivered, dead) in figures.histogram.items()
        },
        "failures_by_status": figures.failures,
        "rejected_by_reason": figures.rejected,
        "replays": {"delivered": figures.replayed.delivered, "failed": figures.replayed.failed},
    }


def lines(state: Overview, source: Source, cause: Headline) -> list[str]:
    """The overview as text: the headline, the database, then a line for each figure."""
    hour, day = state.last_1h, state.last_24h
    rates = [(state.last_15min, "15 min"), (hour, "1 h"), (day, "24 h")]
    under_way = in_flight(state.in_flight, state.oldest_in_flight_s)
    stopped = None if cause.kind in {Kind.HELD, Kind.BREAKER_OPEN} else state.backlog.stopped
    rows = [] if stopped is None else [("forwarding", stopped)]
    rows += [("database", source.line)]
    if state.replica:
        rows.append(("", "a read-only replica (hot standby): its figures may lag behind the primary's"))
    rows += [("alerts", alert) for alert in _alerts(state)]
    rows += [
        ("success", ", ".join(f"{_percent(figures.rate)} in {window}" for figures, window in rates)),
        ("deliveries", f"{hour.rate.delivered} delivered, {hour.rate.failed} failed in 1 h; {under_way}"),
        ("backlog", _backlog(state.backlog)),
        *(("backlog", sentence) for sentence in state.backlog.without_relay),
        ("attempts", _attempts(hour)),
        ("forwarding", f"average {_ms(hour.average_ms)}, p95 {_ms(hour.p95_ms)} in 1 h"),
        ("failures", _counts(hour.failures) or "none in 1 h"),
        ("dead letters", f"{state.open_dead_letters} open; {hour.dead_letters} in 1 h, {day.dead_letters} in 24 h"),
    ]  # fmt: skip
    if state.tests_1h:
        counted = "only the runbook's SQL counts them"
        rows.append(("tests", f"{state.tests_15min} in 15 min, {state.tests_1h} in 1 h; {counted}"))
    if hour.rejected:
        rows.append(("rejected", _counts(hour.rejected)))
    rows += [("spool", spool) for spool in _spools(state)]
    rows += [("health", health) for health in _health(state)]
    rows += [("relays", relay) for relay in _relays(state)]
    shown, last = [f"DEMO: {cause.sentence}" if source.demo else cause.sentence], ""
    for name, text in rows:
        shown.append(f"{'' if name == last else name:13} {text}")
        last = name
    return shown


def _counts(counts: Mapping[str, int]) -> str:
    """How often what was: the most frequent ones, each name cut. Others may have written the names."""
    shown = [f"{count} × {clipped(name, _NAME_CHARS)}" for name, count in list(counts.items())[:_MOST_NAMES]]
    more = len(counts) - len(shown)
    return ", ".join(shown + ([plural(more, "more kind")] if more > 0 else []))


def _alerts(state: Overview) -> list[str]:
    return [
        f"{v.rule.severity:8} {v.rule.name}: {v.rule.condition} (now {figure(v.value, v.rule.unit)}{_since(v)})"
        for v in state.firing
    ] or ["none"]


def _since(verdict: Verdict) -> str:
    since = "" if verdict.since is None else f", since {utc_clock(verdict.since)}"
    note = verdict.acknowledged
    return (
        since if note is None else f"{since}; acknowledged by {note.who} until {utc_clock(note.until)}: {note.reason}"
    )


def _acknowledgement(verdict: Verdict) -> dict[str, Any] | None:
    note = verdict.acknowledged
    if note is None:
        return None
    return {"by": note.who, "reason": note.reason, "at": note.at, "until": note.until}


def _percent(rate: Rate) -> str:
    return percent(rate.percent, decimals=2, missing=NO_DATA)


def _ms(value: float | None) -> str:
    return milliseconds(value, missing=NO_DATA)


def _backlog(backlog: BacklogState) -> str:
    if not backlog.waiting:
        return "empty"
    reasons = ", ".join(f"{number} × {reason}" for reason, number in backlog.by_reason.items())
    oldest = "" if backlog.oldest_s is None else f", the oldest for {backlog.oldest_s:.0f} s"
    empty = "" if backlog.empty_in_s is None else f", empty in about {backlog.empty_in_s:.0f} s"
    wait = f"{backlog.waiting} {verb(backlog.waiting, 'wait')}"
    return f"{wait} ({reasons}){oldest}; {backlog.drain_per_s:.1f}/s finish{empty}"


def _attempts(figures: Figures) -> str:
    if figures.average_attempts is None:
        return "no data in 1 h"
    spread = ", ".join(
        f"{attempts}: {delivered} ok" + (f" {dead} dead" if dead else "")
        for attempts, (delivered, dead) in figures.histogram.items()
    )
    return f"average {average(figures.average_attempts)} in 1 h ({spread})"


def _health(state: Overview) -> list[str]:
    shown = []
    for health in state.health:
        verdict = "ok" if health.ok else f"FAILED: {health.error}"
        shown.append(f"{title(health.target)}: {verdict}, {_ms(health.latency_ms)}, probed {span(health.age_s)} ago")
    return shown or ["not probed in the last hour"]


def _spools(state: Overview) -> list[str]:
    shown = []
    for one in state.spools:
        held = "empty"
        if one.receipts:
            held = f"{plural(one.receipts, 'receipt')}, the oldest for {span(one.oldest_s or 0)}"
        refused = f"; Postgres refuses {one.refused}" if one.refused else ""
        broken = f"; TAKES NONE: {one.error}" if one.error else ""
        size = f"{data_size(one.bytes)} of {data_size(one.max_bytes)}"
        shown.append(f"{one.host}: {held}, {size}{refused}{broken}; reported {span(one.reported_s)} ago")
    return shown or ["none is reported"]


def _relays(state: Overview) -> list[str]:
    if not state.relays:
        return ["none has run in the last day; start one with: relay serve"]
    if not state.alive:
        return [f"NONE ALIVE; the last heartbeat was {span(state.relays[0].age_s)} ago"]
    alive = [
        f"{relay.name.rpartition('/')[2]} worker {relay.slot}, v{relay.version}, beat {span(relay.age_s)} ago, "
        + ("signed webhooks only" if relay.signed else "UNSIGNED webhooks accepted")
        for relay in state.alive
    ]
    by_default = sorted({relay.agent for relay in state.alive if is_default_agent(relay.agent)})
    return alive + [f"AGENT_SDK_URL is the default: deliveries go to {agent}" for agent in by_default]
