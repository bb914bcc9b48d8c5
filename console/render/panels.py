"""The overview's panels as `Content`: pure functions of a snapshot and a width. They know no widget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from console.render import formatting
from console.render.backlog import backlog_line
from console.render.chart import bar
from console.render.wrapping import shortened
from relay.domain.alerts import rule_named
from relay.domain.format import average, clock, count, measured, milliseconds, percent, plural, span
from relay.domain.format import in_flight as in_flight_text
from relay.domain.retry import short_status
from relay.domain.targets import title, title_with_route
from relay.incident.cause import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from console.data.snapshot import Snapshot
    from relay.domain.alerts import Verdict
    from relay.domain.stats import Figures
    from relay.store.browse import Group
    from relay.store.facts import Health
    from relay.store.overview import Overview

_MUTED = "$text-muted"


def success(snapshot: Snapshot, window: Figures, window_name: str) -> list[Content]:
    """Return rates, latencies, traffic and dead letters, a line each. The sparkline follows the first line."""
    state = snapshot.overview
    delivered, failed = _finished(state, _MINUTE_S if state.at.second >= _ENOUGH_S else 2 * _MINUTE_S)
    now = 100 * delivered / (delivered + failed) if delivered + failed else None
    rates = [(window.rate.percent, window_name), (state.last_15min.rate.percent, "15 min"), (now, "now")]
    if window_name == "15 min":
        rates[0] = (state.last_1h.rate.percent, "1 h")
    shown = [Content.assemble((percent(value), _rate_style(value)), (f" {name}", _MUTED)) for value, name in rates]
    came = sum(_finished(state, 2 * _MINUTE_S)) + state.in_flight_of_late  # of which some came before and ended since
    per_second = came / (60.0 + state.at.second)
    return [
        Content("   ").join(shown),
        _pairs(
            ("forwarding", ""),
            ("avg", milliseconds(window.average_ms)),
            ("p95", milliseconds(window.p95_ms)),
            ("  avg attempts", average(window.average_attempts)),
        ),
        _pairs(
            ("in", f"{per_second:.1f}/s"),
            ("  delivered", count(window.rate.delivered)),
            ("  failed", count(window.rate.failed)),
            *([("  tests", f"{state.tests_1h:,} in 1 h")] if state.tests_1h else []),
        ),
        _pairs(
            ("dead letters", f"{state.last_1h.dead_letters:,} in 1 h"),
            ("·", f"{state.last_24h.dead_letters:,} in 24 h"),
            ("·", f"{state.open_dead_letters:,} open"),
        ),
    ]


_MINUTE_S, _ENOUGH_S = 60, 15
"""Once a minute has lasted so many seconds, it alone is now; before that, the last one as well."""


def _finished(state: Overview, within_s: float) -> tuple[int, int]:
    """Return how many deliveries of the calendar minutes that began `within_s` were delivered, and how many failed."""
    minutes = [minute for minute in state.minutes if (state.at - minute[0]).total_seconds() < within_s]
    return sum(minute[1] for minute in minutes), sum(minute[2] for minute in minutes)


def in_flight(state: Overview) -> Content:
    """Return how many deliveries are being forwarded, and for how long the oldest has been."""
    number, _, rest = in_flight_text(state.in_flight, state.oldest_in_flight_s).partition(" ")
    return Content.assemble((number, "bold"), (f" {rest}", _MUTED))


def figures_in_short(snapshot: Snapshot, window: Figures, window_name: str) -> list[Content]:
    """Return the figures and the retry histogram in five lines, for narrow screens."""
    _, forwarding, traffic, dead_letters = success(snapshot, window, window_name)
    counts = sorted(window.histogram.items())
    shown = [f"{number}: {good:,} ok {dead:,} dead" for number, (good, dead) in counts] or ["none"]
    return [
        forwarding,
        traffic + Content("   ") + in_flight(snapshot.overview),
        Content.assemble(("by attempts  ", _MUTED), "   ".join(shown)),
        failures(window),
        dead_letters,
    ]


def _rate_style(value: float | None) -> str:
    if value is None:
        return _MUTED
    return "$text-error bold" if rule_named("success-rate-critical").fires(value) else "$text-success bold"


def _pairs(*pairs: tuple[str, str]) -> Content:
    parts: list[Content] = []
    for label, value in pairs:
        bits: list[tuple[str, str]] = []
        if label:
            bits.append((f"{label} " if value else label, _MUTED))
        if value:
            bits.append((value, "bold"))
        parts.append(Content.assemble(*bits))
    return Content(" ").join(parts)


def attempts(figures: Figures, width: int, rows: int) -> list[Content]:
    """Return the retry histogram, then failures by final status; at most `rows` lines.

    Each line counts the deliveries that took so many attempts: delivered ones and dead ones. The last line sums up
    the attempt counts that have no line of their own.
    """
    counts = sorted(figures.histogram.items())
    if not counts:
        return [Content.styled("no delivery in this window", _MUTED)]
    most = max(1, rows - 1)
    named = [(f"{number}", *both) for number, both in counts[:most]]
    if len(counts) > most:
        rest = [both for _, both in counts[most - 1 :]]
        named[-1] = (f"{counts[most - 1][0]}+", sum(good for good, _ in rest), sum(dead for _, dead in rest))
    top = max(max(good, dead) for _, good, dead in named)
    tail = [f"{good:>7,} ok {dead:>6,} dead" for _, good, dead in named]
    half = max(2, (width - 4 - max(map(len, tail))) // 2)
    return [
        *(
            Content.assemble(
                (f"{number:>2} ", "bold"),
                (f"{bar(good, top, half):<{half}}", "$text-success"),
                (f"{good:>7,} ", "bold"),
                ("ok ", "$text-success"),
                (f"{bar(dead, top, half):<{half}}", "$text-error"),
                (f"{dead:>6,} ", "bold" if dead else _MUTED),
                ("dead", "$text-error" if dead else _MUTED),
            )
            for number, good, dead in named
        ),
        failures(figures),
    ]


def failures(figures: Figures) -> Content:
    """Return failures by final status, most frequent first."""
    if not figures.failures:
        return Content.styled("no failure in this window", _MUTED)
    parts = [
        Content.assemble((status, "$text-error bold"), (f" × {number:,}", ""))
        for status, number in figures.failures.items()
    ]
    return Content.assemble(("failures  ", _MUTED), Content("  ").join(parts))


def alerts(state: Overview, width: int, rows: int) -> list[Content]:
    """Return the firing alerts, worst first; how many rules are watched if none fires."""
    shown = [
        (verdict.rule, measured(verdict.value, verdict.rule.unit), _firing_since(verdict, state.at))
        for verdict in state.firing[: rows if len(state.firing) <= rows else rows - 1]
    ]
    value_width = max((len(value) for _, value, _ in shown), default=0)
    since_width = max((len(since) for _, _, since in shown), default=0)
    room = max(8, width - 15 - value_width - since_width)
    rules = [rule for rule, _, _ in shown]
    if any(form == rule.brief for rule, form in zip(rules, shortened(rules, room), strict=True)):
        shown = [(rule, value, since.removeprefix("for ")) for rule, value, since in shown]
        since_width = max(len(since) for _, _, since in shown)
        room = max(8, width - 15 - value_width - since_width)
    lines = [
        Content.assemble(
            (f"{formatting.badge(rule.severity):<10} ", formatting.STYLES[rule.severity]),
            f"{condition:<{room}} ",
            (f"{value:>{value_width}}", "bold"),
            (f"  {since:<{since_width}}", _MUTED),
        )
        for (rule, value, since), condition in zip(shown, shortened(rules, room), strict=True)
    ]
    if more := state.firing[len(lines) :]:
        badges = [Content.styled(formatting.badge(v.rule.severity), formatting.STYLES[v.rule.severity]) for v in more]
        lines.append(Content.styled(f"… and {len(more)} more:  ", _MUTED) + Content("  ").join(badges))
    if not lines:
        quiet = len(state.verdicts)
        lines = [Content.assemble(("✓ ", "$text-success"), (f"no active alerts; {quiet} rules watched", _MUTED))]
    return lines


def _firing_since(verdict: Verdict, now: datetime) -> str:
    """Return for how long an alert has fired, or `ending` if its condition has ended; and who acknowledged it."""
    since = ""
    if verdict.since is not None:
        since = f"for {formatting.coarse_age((now - verdict.since).total_seconds())}" if verdict.holds else "ending"
    return f"{since} {formatting.acknowledged_by(verdict)}".strip()


def health(state: Overview, width: int) -> list[Content]:
    """Return the last probes of agent and Chatwoot, then the relays, then the deliveries in flight."""
    lines = [_probe(health, state, width) for health in state.health] or [
        Content.styled("? nothing probed yet", _MUTED),
    ]
    waits = [Content("  ") + backlog_line(state.backlog)] if state.backlog.waiting else []
    return [*lines, _relays(state), Content("  ") + in_flight(state), *waits]


def health_in_short(state: Overview) -> list[Content]:
    """Return the probes with latency and age, and the relays, in two lines for narrow screens."""
    probes = [
        Content.assemble(
            _light(probe, state),
            f"{title(probe.target).removeprefix('Chatwoot ')} ",
            (_answer(probe), _light(probe, state)[1]),
            (f" {milliseconds(probe.latency_ms)}" if probe.status else "", _MUTED),
            (f" {formatting.coarse_age(probe.age_s)}", _MUTED),
        )
        for probe in state.health
    ]
    last = Content("  ") + backlog_line(state.backlog) if state.backlog.waiting else _relays(state)
    return [Content("  ").join(probes or [Content.styled("? nothing probed yet", _MUTED)]), last]


def _relays(state: Overview) -> Content:
    """Return how many relay workers are alive, and whether they accept unsigned webhooks."""
    alive = state.alive
    if not alive:
        return Content.styled("✗ no relay is alive", "$text-error bold")
    newest = min(relay.age_s for relay in alive)
    versions = ", ".join(sorted({f"v{relay.version}" for relay in alive}))
    signed = all(relay.signed for relay in alive)
    return Content.assemble(
        ("? ", "$text-warning bold") if newest > formatting.QUIET_RELAY_S else ("✓ ", "$text-success"),
        f"{plural(len(alive), 'relay worker')}  {versions}  beat {span(newest)} ago  ",
        ("signed only", _MUTED) if signed else ("! unsigned accepted", "$text-warning"),
    )


_OLD_PROBE_S, _OLD_WITHOUT_RELAY_S = 300, 45
"""A probe's result that is older says nothing of now: longer intervals are unusual, and no relay probes nothing."""


def _light(health: Health, state: Overview) -> tuple[str, str]:
    if health.age_s > (_OLD_PROBE_S if state.alive else _OLD_WITHOUT_RELAY_S):
        return "? ", _MUTED
    return ("✓ ", "$text-success") if health.ok else ("✗ ", "$text-error bold")


def _answer(health: Health) -> str:
    """Return the status of a probe, or its error, in a short form."""
    answer = health.status or health.error or "–"
    return short_status(answer)


def _probe(health: Health, state: Overview, width: int) -> Content:
    name = title_with_route(health.target)
    glyph, style = _light(health, state)
    latency = milliseconds(health.latency_ms)
    tail = f"{latency:>7}  {formatting.coarse_age(health.age_s)} ago"
    name = f"{name:<23}" if width >= 50 else name
    return Content.assemble((glyph, style), name, " ", (f"{_answer(health):<4}", style), (f" {tail}", _MUTED))


_EVENTS_ROOM = 26
_GROUP_HEADER, _SHORT_GROUP_HEADER = "   COUNT   /MIN  FIRST     LAST      STATUS     ", "   COUNT   /MIN  LAST      "
_LEAST_WITH_STATUS = 70
"""Narrower lines leave out the first failure, and the status, which the cause names."""


def _group_head(width: int) -> str:
    return _GROUP_HEADER if width >= _LEAST_WITH_STATUS else _SHORT_GROUP_HEADER


def _cause_room(width: int) -> int:
    return max(10, width - len(_group_head(width)) - (_EVENTS_ROOM if width >= 100 else 0) - 2)


def group_header(width: int) -> Content:
    """Return the header of the failure groups."""
    events = "EVENTS" if width >= 100 else ""
    return Content(f"{_group_head(width)}{'CAUSE':<{_cause_room(width)}} {events}")


def growth(snapshot: Snapshot, group: Group) -> int:
    """Return how many dead letters come to a group a minute; 0 once that is over."""
    return 0 if snapshot.headline.kind is Kind.RECOVERED else group.growth(snapshot.overview.at)


def group_line(group: Group, growth: int, now: datetime, width: int) -> Content:
    """Return one failure group as a line: count, rate, first and last failure, status, cause, events."""
    events = _events(group.events) if width >= 100 and group.events else ""
    room = _cause_room(width)
    cause = f"{group.last_error} (tests)" if group.only_tests else group.last_error
    error = cause if len(cause) <= room else cause.removeprefix("Agent SDK ")
    error = error if len(error) <= room else error[: room - 1] + "…"
    rate = f"+{growth:,}" if growth else "0"
    hot = "$text-error bold" if growth else ""
    has_status = width >= _LEAST_WITH_STATUS
    status = f"{short_status(group.final_status)[:10]:<10} " if has_status else ""
    return Content.assemble(
        (f"{group.count:>8,}", "bold"),
        (f"{rate:>7}", hot or _MUTED),
        f"  {_short(group.first, now)}" if has_status else "",
        f"  {_short(group.last, now)}  ",
        (status, "$text-error"),
        f"{error:<{room}} ",
        (events, _MUTED),
    )


def group_answer(group: Group | None, width: int) -> Content:
    """Return the beginning of the agent's answer to the newest of a group, on one line; nothing if it said nothing."""
    if group is None or not group.answer.strip():
        return Content("")
    said = " ".join(group.answer.split())
    return Content.assemble((" answered: ", _MUTED), said).truncate(width, ellipsis=True)


def _events(names: Sequence[str]) -> str:
    """Return the first event and how many more there are, in `_EVENTS_ROOM` cells."""
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    room = _EVENTS_ROOM - len(more)
    return (
        Content(names[0] if len(names[0]) <= room else formatting.brief_event(names[0]))
        .truncate(room, ellipsis=True)
        .plain
        + more
    )


def _short(moment: datetime, now: datetime) -> str:
    return clock(moment) if moment.date() == now.date() else f"{moment:%b %d}  "
