"""The first thing on the first screen: what is wrong, in a sentence. Pure: a snapshot in, words out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from console.words import day_clock, measured, plural, span

if TYPE_CHECKING:
    from console.snapshot import Snapshot
    from relay.store.browse import Group

RECENT_S = 120
"""A failure group whose last delivery died longer ago than this is no longer what is going wrong now."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The sentence, how bad it is (`bad`, `warning`, `well`), and the group it is about, if any."""

    sentence: str
    level: str
    group: Group | None = None


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
        shared = f"{group.count:,} of {plural(state.open_dead_letters, 'open dead letter')} share this cause"
        since = day_clock(group.first, state.at)
        return Cause(f"{group.last_error} since {since} ({age}). {shared}.", "bad", group)
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
        said = f"Nothing has failed for {quiet}. {waiting} can be replayed{of_them}."
        return Cause(said, "warning", largest)
    if state.firing:
        verdict = state.firing[0]
        return Cause(f"{verdict.rule.condition}: {measured(verdict.rule, verdict.value)}.", "warning")
    return Cause("Nothing is failing. No dead letter waits.", "well")
