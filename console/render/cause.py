"""Names what is wrong in one sentence, for the headline of every screen. Pure.

Times of failures come from facts recorded when a delivery failed, because replays change which dead letters are open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.domain.format import day_clock, measured, plural, span
from relay.domain.retry import retry_helps
from relay.domain.targets import Target

if TYPE_CHECKING:
    from datetime import datetime

    from console.data.snapshot import Snapshot
    from relay.store.browse import Group
    from relay.store.overview import Overview

RECENT_S = 120
"""A failure older than this is not a current one."""
QUIET_S = 30
"""A failure is over once it has not recurred for so long and something shows that deliveries succeed again."""
_MANY = 5
_SHARE = 20
"""Fewer than `_MANY` recent failures, and less than one in `_SHARE` of the largest group, are stragglers."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The sentence, its level (`bad`, `warning`, `well`), and the failure group that it is about, if any.

    `shorter` holds shorter forms of the sentence, longest first.
    """

    sentence: str
    level: str
    group: Group | None = None
    shorter: tuple[str, ...] = ()

    def fitting(self, width: int) -> str:
        """Return the longest form that has at most `width` characters, else the shortest."""
        ways = (self.sentence, *self.shorter)
        return next((way for way in ways if len(way) <= width), ways[-1])


def cause_of(snapshot: Snapshot) -> Cause:
    """Return the most urgent problem: no relay, a current failure, an unhealthy agent, or open dead letters."""
    state = snapshot.overview
    if not state.alive:
        last = min((relay.age_s for relay in state.relays), default=None)
        seen = "no heartbeat was ever recorded" if last is None else f"the last heartbeat was {span(last)} ago"
        remedy = "Webhooks are being lost. Start one with `relay serve`."
        return Cause(f"No relay is running: {seen}. {remedy}", "bad", shorter=(f"No relay is running! {remedy}",))
    groups = [group for group in snapshot.groups if not group.only_tests]
    if groups:
        main = _weightiest(state, groups)
        recent = _recent_failure(state, main)
        if recent is not None:
            sentence, level = recent
            shared = f"{main.count:,} of {plural(state.open_dead_letters, 'open dead letter')} share this cause."
            short = f"{sentence} {main.count:,} of {state.open_dead_letters:,} share it."
            return Cause(f"{sentence} {shared}", level, main, (short, sentence))
    agent = next((health for health in state.health if health.target == Target.AGENT and not health.ok), None)
    if agent is not None:
        said = f"answers {agent.status}" if agent.status else f"fails: {agent.error}"
        return Cause(f"Agent SDK /health {said} ({span(agent.age_s)} ago).", "bad")
    if groups:
        return _waiting(state, groups)
    quiet = _quiet(state, groups)
    if quiet is not None and quiet.seconds < RECENT_S:
        return Cause(f"{quiet.sentence} No dead letter waits.", "warning")
    if state.firing:
        verdict = state.firing[0]
        return Cause(f"{verdict.rule.condition}: {measured(verdict.value, verdict.rule.unit)}.", "warning")
    if state.open_dead_letters:
        tests = f"{plural(state.open_dead_letters, 'dead letter')} of test webhooks"
        return Cause(f"Nothing is failing. There is nothing but {tests}.", "well")
    return Cause("Nothing is failing. No dead letter waits.", "well")


def _weightiest(state: Overview, groups: list[Group]) -> Group:
    """Return the group with the most recent failures, unless those are stragglers; else the largest group."""
    largest = max(groups, key=lambda group: (group.count, group.last))

    def lately(group: Group) -> int:
        streak = state.streak_of(group.final_status)
        return 0 if streak is None or (state.at - streak.last).total_seconds() >= RECENT_S else streak.lately

    current = [group for group in groups if lately(group) >= _MANY or lately(group) * _SHARE >= max(1, largest.count)]
    return max(current, key=lambda group: (lately(group), group.count), default=largest)


def _recent_failure(state: Overview, group: Group) -> tuple[str, str] | None:
    """Return a sentence about a group that failed recently, and its level; None if it did not."""
    error, streak = group.last_error, state.streak_of(group.final_status)
    if streak is not None and _age_s(state, streak.last) < RECENT_S:
        first, last = streak.first, streak.last
        if _age_s(state, last) > QUIET_S and retry_helps(group.final_status) and first is not None:
            ended = f"{error} from {day_clock(first, state.at)} to {day_clock(last, state.at)}"
            if state.gets_through_since(last):
                return f"{ended}; deliveries succeed again.", "warning"
            if state.agent_is_well_since(first, last):
                return f"{ended}; its /health answers again.", "warning"
        if first is None:
            return f"{error} for more than a day.", "bad"
        return f"{error} since {day_clock(first, state.at)} ({span(_age_s(state, first))}).", "bad"
    replayed = state.streak_of(group.final_status, replayed=True)
    if replayed is not None and _age_s(state, replayed.last) < RECENT_S and not state.gets_through_since(replayed.last):
        return f"A replay failed {span(_age_s(state, replayed.last))} ago: {error}.", "bad"
    return None


def _waiting(state: Overview, groups: list[Group]) -> Cause:
    """Return the cause when nothing fails now but dead letters are open: how many a replay can help."""
    ready = [group for group in groups if retry_helps(group.final_status)]
    final = [group for group in groups if not retry_helps(group.final_status)]
    quiet = _quiet(state, groups)
    said = "" if quiet is None else f"{quiet.sentence} "
    in_short = "" if quiet is None else f"{quiet.short} "
    if ready:
        largest = max(ready, key=lambda group: group.count)
        what = f"{plural(sum(group.count for group in ready), 'dead letter')} can be replayed"
        named = f", {largest.count:,} of them: {largest.last_error}" if len(ready) > 1 else f": {largest.last_error}"
        refused = f"; {sum(group.count for group in final):,} rejected, retrying will not help" if final else ""
    else:
        largest = max(final, key=lambda group: group.count)
        rejected = plural(sum(group.count for group in final), "dead letter")
        what = f"{rejected} rejected by the Agent SDK; retrying will not help"
        named = f": {largest.last_error}" if len(final) == 1 else f", {largest.count:,} of them: {largest.last_error}"
        refused = ""
    return Cause(
        f"{said}{what}{named}{refused}.", "warning", largest, (f"{in_short}{what}{refused}.", f"{in_short}{what}.")
    )


@dataclass(frozen=True, slots=True)
class _Quiet:
    """For how long nothing has failed, in seconds and as a sentence."""

    seconds: float
    sentence: str
    short: str


def _quiet(state: Overview, groups: list[Group]) -> _Quiet | None:
    """Return for how long nothing has failed, replays included; None if no failure is on record."""
    failed = [streak.last for streak in state.streaks] + [group.last for group in groups]
    if state.last_failure_at is not None:
        failed.append(state.last_failure_at)
    if not failed:
        return None
    quiet_s = _age_s(state, max(failed))
    if quiet_s < RECENT_S:
        latest = max(state.streaks, key=lambda streak: streak.last, default=None)
        status = "" if latest is None else f" ({latest.status})"
        sentence = f"The last failure was {span(quiet_s)} ago{status}."
        return _Quiet(quiet_s, sentence, sentence)
    silent = state.last_webhook_age_s is not None and state.last_webhook_age_s > quiet_s
    short = f"Nothing has failed for {span(quiet_s)}"
    return _Quiet(quiet_s, f"{short}{', and no webhook has come' if silent else ''}.", f"{short}.")


def _age_s(state: Overview, moment: datetime) -> float:
    return (state.at - moment).total_seconds()
