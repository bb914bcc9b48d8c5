"""The first thing on the first screen: what is wrong, in a sentence. Pure: a snapshot in, words out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from console.words import day_clock, measured, plural, span

if TYPE_CHECKING:
    from console.snapshot import Snapshot
    from relay.store.browse import Group
    from relay.store.overview import Overview

RECENT_S = 120
"""A failure group whose last delivery died longer ago than this is no longer what is going wrong now."""
QUIET_S = 30
"""So long nothing more died of it, and the agent says it is well: then it is over."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The sentence, how bad it is (`bad`, `warning`, `well`), and the group it is about, if any.

    `short` says the same where there is little room.
    """

    sentence: str
    level: str
    group: Group | None = None
    short: str = ""

    def fitting(self, width: int) -> str:
        """The sentence if it has at most `width` characters, else the short one."""
        return self.sentence if len(self.sentence) <= width or not self.short else self.short


def _is_well_now(state: Overview, group: Group) -> bool:
    """True if the agent's health was well when it was last probed, some time after the group's last letter died."""
    agent = next((health for health in state.health if health.target == "agent"), None)
    quiet_s = (state.at - group.last).total_seconds()
    return agent is not None and agent.ok and agent.at > group.last and quiet_s > QUIET_S


def cause_of(snapshot: Snapshot) -> Cause:
    """What an operator must know first: relays gone, the agent failing, or what the dead letters share."""
    state = snapshot.overview
    if not state.alive:
        last = min((relay.age_s for relay in state.relays), default=None)
        heard = "none was ever heard of" if last is None else f"the last was heard of {span(last)} ago"
        return Cause(f"No relay is running: {heard}. Webhooks are being lost. Start one with `relay serve`.", "bad")
    failing = [group for group in snapshot.groups if (state.at - group.last).total_seconds() < RECENT_S]
    if failing:
        group = max(failing, key=lambda group: (group.per_minute, group.count))
        age = span((state.at - group.first).total_seconds())
        well = _is_well_now(state, group)
        since = f"{group.last_error} since {day_clock(group.first, state.at)} ({age})."
        if well:
            ended = f"from {day_clock(group.first, state.at)} to {day_clock(group.last, state.at)}"
            since = f"{group.last_error} {ended}; it is well now."
        shared = f"{group.count:,} of {plural(state.open_dead_letters, 'open dead letter')} share this cause."
        short = f"{group.count:,} of {state.open_dead_letters:,} share it."
        return Cause(f"{since} {shared}", "warning" if well else "bad", group, short=f"{since} {short}")
    agent = next((health for health in state.health if health.target == "agent" and not health.ok), None)
    if agent is not None:
        said = f"answers {agent.status}" if agent.status else f"fails: {agent.error}"
        return Cause(f"Agent SDK /health {said} ({span(agent.age_s)} ago).", "bad")
    if snapshot.groups:
        newest = max(group.last for group in snapshot.groups)
        largest = max(snapshot.groups, key=lambda group: group.count)
        quiet = span((state.at - newest).total_seconds())
        waiting = plural(state.open_dead_letters, "dead letter")
        of_them = f", {largest.count:,} of them: {largest.last_error}" if len(snapshot.groups) > 1 else ""
        said = f"Nothing has failed for {quiet}. {waiting} can be replayed"
        return Cause(f"{said}{of_them}.", "warning", largest, short=f"{said}.")
    if state.firing:
        verdict = state.firing[0]
        return Cause(f"{verdict.rule.condition}: {measured(verdict.rule, verdict.value)}.", "warning")
    return Cause("Nothing is failing. No dead letter waits.", "well")
