"""Draws the backlog: what waits by reason, the oldest, how fast it drains. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from console.actions import OVERVIEW
from console.keymap import key_of
from relay.domain.format import span, verb

if TYPE_CHECKING:
    from relay.store.backlog import BacklogState

_MUTED = "$text-muted"


def why_replays_wait(backlog: BacklogState) -> str:
    """Return what keeps replays from being sent, and what ends it; empty while nothing does."""
    if backlog.hold is not None:
        released = f"{key_of(OVERVIEW, 'hold')} releases it"
        return f"forwarding is held by {backlog.hold.who}, so a replay waits until {released}"
    return "the circuit breaker is open, so a replay waits until it closes" if backlog.breaker is not None else ""


def backlog_line(backlog: BacklogState) -> Content:
    """Return the backlog in one line: number and oldest, reasons, rate and time to empty."""
    if not backlog.waiting:
        return Content.styled("nothing waits", _MUTED)
    reasons = " · ".join(f"{reason.value} {number:,}" for reason, number in sorted(backlog.by_reason.items()))
    empty = "" if backlog.empty_in_s is None else f", empty in {span(backlog.empty_in_s)}"
    drains = "" if backlog.stopped is not None else f"   drains {backlog.drain_per_s:.1f}/s{empty}"
    return Content.assemble(
        (f"{backlog.waiting:,} {verb(backlog.waiting, 'wait')}", "$text-warning bold"),
        f", the oldest for {span(backlog.oldest_s)}   {reasons}",
        (drains, _MUTED),
    )


def backlog_lines(backlog: BacklogState) -> list[Content]:
    """Return the backlog with what stops it: who holds forwarding and why, or why the breaker is open."""
    stopped = [Content.styled(backlog.stopped, "$text-warning bold")] if backlog.stopped else []
    return [*stopped, backlog_line(backlog)]
