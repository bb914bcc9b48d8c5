"""Glyphs, styles and short texts of alerts, deliveries and operators. Pure. Figures are `relay.domain.format`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.domain.alerts import Severity
from relay.domain.delivery import State
from relay.domain.format import clipped, span
from relay.domain.retry import BRIEF_ERRORS
from relay.store.actions import signed
from relay.text import clean

if TYPE_CHECKING:
    from datetime import datetime

    from relay.domain.alerts import Verdict

GLYPHS = {
    Severity.P0: "▲",
    Severity.P1: "◆",
    Severity.CRITICAL: "◈",
    Severity.ESCALATE: "‼",
    Severity.P2: "●",
    Severity.WARNING: "▪",
    Severity.INFO: "·",
}
"""A glyph a severity, so that it can be read without colours."""

STYLES = {
    Severity.P0: "$text-error bold",
    Severity.P1: "$text-error",
    Severity.CRITICAL: "$text-error",
    Severity.ESCALATE: "$text-error bold",
    Severity.P2: "$text-warning",
    Severity.WARNING: "$text-warning",
    Severity.INFO: "$text-accent",
}

STATE_STYLES = {
    State.RECEIVED: "$text-accent",
    State.FORWARDING: "$text-accent",
    State.WAITING: "$text-warning",
    State.DELIVERED: "$text-success",
    State.DEAD: "$text-error",
    State.DISCARDED: "$text-muted",
    State.IGNORED: "$text-muted",
}


_NAME = 12
QUIET_RELAY_S = 12
"""A relay sends a heartbeat every 5 seconds. After so many seconds without one it may be dead."""


_EXACT_S, _STEP_S = 10, 5


def coarse_age(seconds: float) -> str:
    """Return an age in steps of five seconds from ten on, so that what is at rest is not painted every second."""
    return span(seconds if seconds < _EXACT_S else seconds - seconds % _STEP_S)


def cut(text: str, most: int) -> str:
    """Return text from outside, safe to show, on one line of at most `most` characters."""
    return clipped(clean(text[: 2 * most], limit=None), most)


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


def acknowledged_by(verdict: Verdict) -> str:
    """Return `ack maria` for an acknowledged alert; empty for another."""
    if verdict.acknowledged is None:
        return ""
    name, *_ = verdict.acknowledged.who.split() or ["?"]
    return f"ack {cut(name, _NAME)}"


def brief_event(event: str) -> str:
    """Return an event's name shortened: `conv_status_changed`."""
    return event.replace("conversation_", "conv_", 1)


def signed_name(operator: str, login: str | None, *, limit: int) -> str:
    """Return an operator's name, and the database login if it differs; each cut at `limit` characters."""
    return signed(cut(operator, limit), None if login is None else cut(login, limit))


_UNSAID = re.compile(r"^Agent SDK (?:is )?|\bthe |(?<!^) \(\d{3}\)$")


def cause_beside_status(cause: str) -> str:
    """Return a cause of failure without the agent's name, articles, and the status, which is shown beside it."""
    return _UNSAID.sub("", cause)


_BRIEF = (
    ("did not answer within", "no answer in"),
    ("refused relay's credentials", "refused credentials"),
    ("answered with a redirect", "redirects"),
    (", which is not followed", ""),
    *((_UNSAID.sub("", whole), brief) for whole, brief in BRIEF_ERRORS.items()),
)
"""Parts of the relay's own sentences, and what a narrow column has in their place."""


def brief_cause(cause: str) -> str:
    """Return a cause of failure in fewer words, for a narrow column."""
    for whole, brief in _BRIEF:
        cause = cause.replace(whole, brief)
    return cause
