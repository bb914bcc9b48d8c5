"""A summary for the next shift, as Markdown: what happened, what is open, what was done. Pure; it holds no payload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.format import figure, plural, span, utc_clock, verb
from relay.domain.targets import title_with_route
from relay.incident.markdown import section, table, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from relay.domain.alerts import Verdict
    from relay.incident.cause import Headline
    from relay.incident.timeline import Entry
    from relay.store.browse import Group
    from relay.store.overview import Overview
    from relay.store.replays import Plan

_MOST = 60
_GROUPS = 10


def handover(
    state: Overview,
    groups: Sequence[Group],
    plans: Sequence[Plan],
    cause: Headline,
    entries: Sequence[Entry],
    since: datetime,
) -> str:
    """The summary, ending in a line end. `entries` are the timeline since then, oldest first."""
    demo = "DEMO, invented data: " if state.demo else ""
    happened = [one for one in entries if one.by is None]
    done = [one for one in entries if one.by is not None]
    parts = [
        f"## Handover {since:%Y-%m-%d %H:%M}Z to {state.at:%Y-%m-%d %H:%M}Z",
        f"Now: {demo}{text(cause.sentence)}",
        section("What happened", lines_of(happened, "Nothing is on record.", most=_MOST)),
        section("What is open", [f"- {line}" for line in _open(state, groups, plans)] or ["Nothing."]),
        section("What was done", lines_of(done, "No operator acted.", most=_MOST)),
    ]
    return "\n\n".join(parts) + "\n"


def lines_of(entries: Sequence[Entry], otherwise: str, *, most: int) -> list[str]:
    """The newest `most` entries as a table, and how many earlier ones are left out; `otherwise` if there are none."""
    if not entries:
        return [otherwise]
    rows = [
        (f"{one.at:%m-%d %H:%M:%S}Z", one.kind, one.text if one.by is None else f"{one.by}: {one.text}")
        for one in entries[-most:]
    ]
    left = len(entries) - len(rows)
    more = [f"{plural(left, 'earlier entry')} {verb(left, 'are')} left out: `relay timeline`.", ""] if left else []
    return [*more, *table(("when", "about", "what"), rows)]


def _open(state: Overview, groups: Sequence[Group], plans: Sequence[Plan]) -> Iterator[str]:
    yield from (f"Alert {_alert(verdict)}" for verdict in state.firing)
    yield from _waiting(state)
    if not state.alive:
        yield "No relay is alive"
    for health in state.health:
        if not health.ok:
            yield f"{text(title_with_route(health.target))} fails: {text(health.error or 'no reason given')}"
    for plan in plans:
        if not plan.ended:
            settled = f"{plan.total - plan.left:,} of {plan.total:,} settled"
            yield f"Replay plan {plan.id} of {text(plan.who)} is {plan.state}: {settled}"
    if state.open_dead_letters:
        yield plural(state.open_dead_letters, "open dead letter")
    for group in groups[:_GROUPS]:
        yield f"{group.count:,} × {text(group.last_error or group.final_status or 'no reason given')}"


def _waiting(state: Overview) -> Iterator[str]:
    backlog = state.backlog
    if backlog.stopped is not None:
        yield text(backlog.stopped)
    if backlog.waiting:
        age = "" if backlog.oldest_s is None else f", the oldest for {span(backlog.oldest_s)}"
        yield f"{plural(backlog.waiting, 'delivery')} {verb(backlog.waiting, 'wait')}{age}"
    for spool in state.spools:
        if spool.receipts:
            yield f"The spool of {text(spool.host)} holds {plural(spool.receipts, 'receipt')}"


def _alert(verdict: Verdict) -> str:
    since = "" if verdict.since is None else f", since {utc_clock(verdict.since)}"
    note = verdict.acknowledged
    seen = "not acknowledged"
    if note is not None:
        seen = f"acknowledged by {text(note.who)} until {utc_clock(note.until)}: {text(note.reason)}"
    now = figure(verdict.value, verdict.rule.unit)
    return f"{verdict.rule.severity} {verdict.rule.name}: {text(verdict.rule.condition)} (now {now}{since}); {seen}"
