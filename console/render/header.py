"""Draws the top line: environment, database, age of the data, alerts, dead letters, running replay, operator. Pure.

Nothing vital is left out at any width: the operator, the clock and the time of the read give way first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content

from console.actions import ACTIVITY, DEAD, HEALTH, OVERVIEW
from console.render import formatting
from console.render.panels import growth
from relay.domain.alerts import Severity
from relay.domain.format import span, utc_clock
from relay.store.replays import PlanState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from console.data.snapshot import Snapshot
    from relay.domain.alerts import Verdict
    from relay.store.overview import Overview
    from relay.store.replays import Plan

_MUTED = "$text-muted"
_SEPARATOR = Content.styled(" │ ", _MUTED)
_STALE_S, _NEW_S = 5, 60
_TICK_S = 1
"""Figures are read so often. Younger ones are said to be as old, so that the line stays the same."""
_LEAST_PLACE = 6
_ENVIRONMENTS = (
    (("prod", "live"), "bold $text on $error"),
    (("stag", "test", "pre"), "bold $text on $primary"),
    (("dev", "local"), "bold $text on $success"),
)
"""Beginnings of an environment's name, and the colours that it gets; any other is in reverse."""


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """What the console itself knows. `is_away`: Postgres cannot be read now; `age_s`: the age of the last figures."""

    place: str
    environment: str | None
    operator: str
    read_only: bool
    paused: bool
    is_away: bool
    age_s: float
    round_trip_s: float = 0.0


SLOW_S = 0.3
"""A round trip to Postgres that takes longer is said."""


def slow_link(round_trip_s: float) -> Content:
    """Return the sentence about a slow link."""
    return Content(f" Postgres answers slowly from here (round trip {round_trip_s * 1000:.0f} ms)")


def environment_badge(name: str) -> Content:
    """Return an environment's name in its colours."""
    style = next((style for heads, style in _ENVIRONMENTS if name.lower().startswith(heads)), "bold reverse")
    return Content.styled(f" {name.upper()} ", style)


def status_line(snapshot: Snapshot, status: SessionStatus, width: int) -> Content:
    """Return the top line. A line with little room says less, and cuts the database's name last."""
    state = snapshot.overview
    long, short, shortest = _dead_letters(snapshot)
    replay, replay_short = _replay(snapshot.plans, is_held=state.backlog.hold is not None)
    who = Content.assemble(
        (status.operator, "bold"), " · ", ("RO", "$text-warning bold") if status.read_only else ("RW", _MUTED)
    )
    read_only = [Content.styled("RO", "$text-warning bold")] if status.read_only else []
    now = Content.styled(utc_clock(state.at), _MUTED)
    took = Content.styled(f" · db {snapshot.took_ms:.0f} ms", _MUTED)
    if status.round_trip_s > SLOW_S:
        took = Content.styled(f" · slow link {status.round_trip_s * 1000:.0f} ms", "$text-warning")
    every, worst = _alerts(state, len(Severity)), _alerts(state, 1)
    place = status.place if state.last_webhook_age_s is not None else f"{status.place}, empty"
    layouts = (
        (took, [every, long, *replay, who, now]),
        (took, [worst, long, *replay, who, now]),
        (Content(), [worst, long, *replay, who, now]),
        (Content(), [worst, short, *replay, who, now]),
        (Content(), [worst, short, *replay, who]),
        (Content(), [worst, short, *replay, *read_only]),
        (Content(), [worst, shortest, *replay_short, *read_only]),
    )
    line = Content()
    for more, layout in layouts:
        line = _SEPARATOR.join([_head(state, status, place) + more, *layout])
        if line.cell_length <= width:
            return line
    room = max(_LEAST_PLACE, len(place) - (line.cell_length - width))
    cut = Content(place).truncate(room, ellipsis=True).plain
    return _SEPARATOR.join([_head(state, status, cut), *layouts[-1][1]])


def view_at(line: str, x: int) -> str | None:
    """Return the view that the part of the top line at the cell `x` is about; None if it is about none."""
    start = 0
    for part in line.split(_SEPARATOR.plain):
        end = start + len(part)
        if start <= x < end:
            if start == 0:
                return HEALTH
            if "▶" in part:
                return ACTIVITY
            if " dead" in part or part.startswith("dead letters"):
                return DEAD
            return OVERVIEW if any(glyph in part for glyph in (*formatting.GLYPHS.values(), "✓")) else None
        start = end + len(_SEPARATOR.plain)
    return None


def _head(state: Overview, status: SessionStatus, place: str) -> Content:
    """Return environment, database and the age of the data."""
    name = Content.styled(" hotdash ", "bold reverse")
    special = " DEMO " if state.demo else " REPLICA " if state.replica else ""
    if special:
        name = Content.styled(special, "bold reverse $text-warning")
    elif status.environment is not None:
        name = environment_badge(status.environment)
    return name + f" {place} " + _age(status)


def _age(status: SessionStatus) -> Content:
    age = span(status.age_s)
    if status.paused:
        return Content.styled(f"◉ PAUSED {age}", "$text-warning bold")
    if status.is_away or status.age_s > _STALE_S:
        return Content.styled(f"◉ STALE {age}", "$text-error bold")
    return Content.styled(f"◉ LIVE {span(max(_TICK_S, status.age_s))}", "$text-success")


def _alerts(state: Overview, most: int) -> Content:
    """Return the worst alert with its age, then firing alerts by severity: `most` severities, the rest as a number."""
    counts = [(severity, [v for v in state.firing if v.rule.severity is severity]) for severity in Severity]
    firing = [(severity, verdicts) for severity, verdicts in counts if verdicts]
    if not firing:
        return Content.styled("✓ no alerts", "$text-success")
    parts = [
        Content.styled(
            f"{formatting.badge(severity)}{_since(verdicts, state) if place == 0 else f' {len(verdicts)}'}",
            formatting.STYLES[severity],
        )
        for place, (severity, verdicts) in enumerate(firing)
    ]
    more = sum(len(verdicts) for _, verdicts in firing) - sum(len(verdicts) for _, verdicts in firing[:most])
    more += len(firing[0][1]) - 1
    return Content(" ").join([*parts[:most], *([Content.styled(f"+{more}", _MUTED)] if more else [])])


def _since(verdicts: Sequence[Verdict], state: Overview) -> str:
    """Return the age of the newest of `verdicts`: ` new 12s`, ` 19m`."""
    ages = [(state.at - verdict.since).total_seconds() for verdict in verdicts if verdict.since is not None]
    if not ages:
        return ""
    return f" new {formatting.coarse_age(min(ages))}" if min(ages) < _NEW_S else f" {span(max(ages))}"


def _dead_letters(snapshot: Snapshot) -> tuple[Content, Content, Content]:
    """Return the number of open dead letters and its growth, in three forms, the longest first."""
    state = snapshot.overview
    rate = sum(growth(snapshot, group) for group in snapshot.groups)
    growing = f" +{rate:,}/min" if rate else ""
    style = "$text-error bold" if growing else ("$text-warning" if state.open_dead_letters else _MUTED)
    number = f"{state.open_dead_letters:,}"
    return (
        Content.styled(f"dead letters {number} open{growing}", style),
        Content.styled(f"{number} dead{growing}", style),
        Content.styled(f"{number} dead", style),
    )


def _replay(plans: Sequence[Plan], *, is_held: bool) -> tuple[list[Content], list[Content]]:
    """Return the progress of the oldest replay that has not ended, in a long and a short form; nothing if none runs."""
    open_plans = [plan for plan in plans if not plan.ended]
    if not open_plans:
        return [], []
    plan = min(open_plans, key=lambda plan: plan.id)
    done = 100 * (plan.total - plan.left) // max(1, plan.total)
    others = f" +{len(open_plans) - 1}" if len(open_plans) > 1 else ""
    runs = plan.state is PlanState.RUNNING and not is_held
    how = "" if runs else f" {'held' if is_held and plan.state is PlanState.RUNNING else plan.state.value}"
    style = "$text-accent bold" if runs else "$text-warning bold"
    return (
        [Content.styled(f"▶ replay #{plan.id} {done} %{how}{others}", style)],
        [Content.styled(f"▶ replay {done} %", style)],
    )
