"""Draws replay plans: a line of a list, and the strip of the replay that is watched. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from console.actions import PROGRESS
from console.keymap import key_of
from console.render.chart import bar
from relay.domain.format import plural, span
from relay.store.replays import PlanState

if TYPE_CHECKING:
    from relay.store.replays import Plan

_MUTED = "$text-muted"


def progress(plan: Plan, room: int) -> Content:
    """Return a replay's progress bar, `room` cells wide."""
    drawn = bar(plan.total - plan.left, plan.total, room)
    return Content.assemble((drawn, "$primary"), ("░" * (room - len(drawn)), "$rule"))


_LEAST_ABOUT = 16


def _paused_by(plan: Plan) -> str:
    """Return who paused a replay, with a blank before it; nothing unless it is paused."""
    return "" if plan.paused_by is None else f" by {plan.paused_by}"


def plan_line(plan: Plan, head: Content, width: int) -> Content:
    """Return a replay plan as a line: `head`, state, progress, counts; filter and reason if there is room."""
    wide, by = width >= 100, _paused_by(plan)
    line = Content.assemble(
        head,
        f"{f'#{plan.id}':>4} {plan.state.value + by:<8} ",
        progress(plan, max(6, (24 if wide else 8) - len(by))),
        (f" {plan.delivered:,} {'delivered' if wide else 'ok'} ", "$text-success" if plan.delivered else _MUTED),
        (f" {plan.dead:,} dead {'again ' if wide else ''}", "$text-error bold" if plan.dead else _MUTED),
        f" {plan.left:,} left of {plan.total:,}" if plan.left else f" of {plan.total:,}",
        (f"  {plan.stopped_why}" if plan.stopped_why else "", "$text-warning"),
    )
    about = "  ".join(filter(None, (plan.filter, plan.reason)))
    if about and width - line.cell_length >= _LEAST_ABOUT:
        line += Content.styled(f"  {about}", _MUTED)
    return line.truncate(width, ellipsis=True)


def plan_lines(
    plan: Plan,
    width: int,
    quiet_s: float | None,
    left_s: float | None,
    why_it_waits: str = "",
    *,
    read_only: bool = False,
) -> list[Content]:
    """Return a running or ended replay as lines: progress, rate and time left; at the end, the outcome.

    `left_s` is the measured time left, None while it is not known.
    `quiet_s` is the age of the last relay heartbeat in seconds, 0 for a recent one, None if no relay is alive.
    `why_it_waits` says what keeps replays from being sent.
    """
    counts = Content.assemble(
        progress(plan, max(10, min(40, width - 40))),
        (f" {plan.total - plan.left:,}/{plan.total:,} ", "bold"),
        (f"{plan.delivered:,} delivered", "$text-success bold" if plan.delivered else "$text-muted"),
        ("  ", ""),
        (f"{plan.dead:,} dead again", "$text-error bold" if plan.dead else "$text-muted"),
        (f"  {plan.skipped} skipped" if plan.skipped else "", "$text-muted"),
    )
    if plan.ended:
        return [counts, _verdict(plan)]
    how = Content.assemble(
        (f"{plan.state.value}{_paused_by(plan)}", "$text-warning bold" if plan.state is PlanState.PAUSED else "bold"),
        f"  {plan.left:,} left",
        _pace(plan, quiet_s, left_s, why_it_waits),
    )
    pause, stop, close = (key_of(PROGRESS, name) for name in ("pause_replay", "stop_replay", "close"))
    keys = [f"{close} leaves it running"]
    if not read_only:
        resume = f"{pause} {'resumes' if plan.state is PlanState.PAUSED else 'pauses'}"
        keys = [resume, f"{stop} stops what was not sent yet", *keys]
    return [counts, how, Content.styled(", ".join(keys), "$text-muted")]


def _pace(plan: Plan, quiet_s: float | None, left_s: float | None, why_it_waits: str) -> tuple[str, str]:
    """Return rate and time left; or that no relay seems to send it, or what it waits for."""
    if quiet_s is None:
        return "; no relay is running, so nothing is sent. Start one: `relay serve`", "$text-error bold"
    if quiet_s:
        return f". No relay heartbeat for {quiet_s:.0f} s. The replay may be stalled.", "$text-warning bold"
    if why_it_waits:
        return f"; {why_it_waits}", "$text-warning bold"
    rate = ", as fast as it goes" if plan.rate is None else f", up to {plan.rate:g}/s"
    if plan.state is not PlanState.RUNNING or left_s is None:
        return rate, ""
    return f"{rate}, about {span(left_s + 0.9)} left at the pace so far", ""


def _verdict(plan: Plan) -> Content:
    lists, closes = key_of(PROGRESS, "list_ended"), key_of(PROGRESS, "close")
    if plan.state is PlanState.STOPPED:
        why = plan.stopped_why or "stopped"
        return Content.assemble(
            (f"Stopped: {why}. ", "$text-error bold"),
            f"{plural(plan.left, 'delivery')} not sent, or on their way. {lists} lists all, {closes} closes this",
        )
    if plan.delivered == plan.total:
        return Content.assemble(
            (f"Done: all {plan.total:,} delivered.", "$text-success bold"), f" {lists} lists them, {closes} closes this"
        )
    dead = f"{plan.dead} dead again" if plan.dead else "none dead again"
    skipped = f", {plan.skipped} handled elsewhere" if plan.skipped else ""
    return Content.assemble(
        (f"Done: {plan.delivered} delivered, {dead}{skipped}.", "bold"), f" {lists} lists them, {closes} closes this"
    )
