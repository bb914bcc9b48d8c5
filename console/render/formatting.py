"""Formats figures: percentages, durations, ages, counts, glyphs. Pure text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.alerts import Severity
from relay.domain.delivery import State
from relay.store.actions import signed
from relay.text import clean

if TYPE_CHECKING:
    from datetime import datetime

    from relay.domain.alerts import Rule, Verdict

GLYPHS = {
    Severity.P0: "▲",
    Severity.P1: "◆",
    Severity.ESCALATE: "‼",
    Severity.P2: "●",
    Severity.WARNING: "▪",
    Severity.INFO: "·",
}
"""A glyph a severity, so that it can be read without colours."""

STYLES = {
    Severity.P0: "$text-error bold",
    Severity.P1: "$text-error",
    Severity.ESCALATE: "$text-error bold",
    Severity.P2: "$text-warning",
    Severity.WARNING: "$text-warning",
    Severity.INFO: "$text-accent",
}

STATE_STYLES = {
    State.RECEIVED: "$text-accent",
    State.FORWARDING: "$text-accent",
    State.DELIVERED: "$text-success",
    State.DEAD: "$text-error",
    State.DISCARDED: "$text-muted",
    State.IGNORED: "$text-muted",
}


QUIET_RELAY_S = 20
"""A relay sends a heartbeat every 10 seconds. After so many seconds without one it may be dead."""


def percent(value: float | None) -> str:
    """Return `71.4 %`, or `–` without data."""
    return "–" if value is None else f"{value:.1f} %"


def milliseconds(value: float | None) -> str:
    """Return `145 ms`, `2.4 s`, or `–` without data."""
    if value is None:
        return "–"
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def span(seconds: float | None) -> str:
    """Return a duration in at most its two largest units: `4s`, `29m`, `3h10m`, `2d4h`."""
    if seconds is None:
        return "–"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if hours < 1:
        return f"{minutes}m"
    if days < 1:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{days}d{hours % 24}h"


def clock(moment: datetime | None) -> str:
    """Return `14:02:11`, in UTC; `–` for None."""
    return "–" if moment is None else f"{moment:%H:%M:%S}"


def day_clock(moment: datetime | None, now: datetime) -> str:
    """Return `14:02:11`, or `Nov 22 14:02` for a day other than that of `now`."""
    if moment is None or moment.date() == now.date():
        return clock(moment)
    return f"{moment:%b %d %H:%M}"


def count(number: int) -> str:
    """Return `8,204`."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """Return `1 dead letter`, `204 dead letters`; `y` becomes `ies`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{number:,} {noun}s"


def measured(rule: Rule, value: float | None) -> str:
    """Return a rule's value in its unit."""
    if value is None:
        return "–"
    if rule.unit == "%":
        return percent(value)
    if rule.unit == "min":
        return span(value * 60)
    if rule.unit == "s":
        return span(value)
    if rule.unit == "ms":
        return milliseconds(value)
    return f"{value:,.0f}" if value == int(value) else f"{value:.2f}"


def badge(severity: Severity) -> str:
    """Return glyph and name: `▲P0`."""
    return f"{GLYPHS[severity]}{severity.value}"


def alert_state(verdict: Verdict, now: datetime) -> str:
    """Return `FIRING 19m`, `ending` for an alert whose condition has ended, or `quiet`."""
    if not verdict.firing:
        return "quiet"
    if not verdict.holds:
        return "ending"
    return "FIRING" if verdict.since is None else f"FIRING {span((now - verdict.since).total_seconds())}"


def brief_event(event: str) -> str:
    """Return an event's name shortened: `conv_status_changed`."""
    return event.replace("conversation_", "conv_", 1)


def worst(verdicts: list[Verdict]) -> Severity | None:
    """Return the worst severity of the firing alerts; None if none fires."""
    order = list(Severity)
    firing = [verdict.rule.severity for verdict in verdicts if verdict.firing]
    return min(firing, key=order.index) if firing else None


def signed_name(operator: str, login: str | None, *, limit: int) -> str:
    """Return an operator's name, and the database login if it differs; each cut at `limit` characters."""
    return signed(clean(operator, limit=limit), None if login is None else clean(login, limit=limit))
