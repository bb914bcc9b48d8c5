"""Which failures are so now, which are over, and which group of dead letters is the one to name. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.retry import retry_helps

if TYPE_CHECKING:
    from datetime import datetime

    from relay.domain.stats import FailureStreak
    from relay.incident.state import State
    from relay.store.browse import Group
    from relay.store.refused import Refused

CURRENT_S = 60
"""A cause whose last event is older than this is an earlier one (CONSOLE, 6)."""

MANY_REFUSED = 5
"""Fewer refused webhooks, none of which is lost, may be a stranger's: they are not worth the headline."""

_LEAST_QUIET_S = 3
_GAPS = 3
_LEAST_RUN = 2
_COUNTED_S = 180  # `FailureStreak.lately` counts so far back
_MANY = 5
_SHARE = 20
"""Fewer than `_MANY` recent failures, and less than one in `_SHARE` of the largest group, are stragglers."""


def is_over(state: State, streak: FailureStreak) -> bool:
    """True if failures of this kind have ended: something shows it, and the next of them is overdue.

    Where only some deliveries fail, the next failure is due after the usual gap between two of them.
    """
    if state.age_s(streak.last) < _quiet_s(streak):
        return False
    began = streak.first or streak.last
    is_well = retry_helps(streak.status) and state.agent_is_well_since(began, streak.last)
    return is_well or state.gets_through_since(streak.last)


def _quiet_s(streak: FailureStreak) -> float:
    began = streak.first or streak.last
    lasted_s = min(_COUNTED_S, max(1.0, (streak.last - began).total_seconds()))
    return min(CURRENT_S, max(_LEAST_QUIET_S, _GAPS * lasted_s / max(1, streak.lately)))


def refusals_are_over(state: State, run: Refused) -> bool:
    """True if webhooks are refused for this reason no more: the last time is long ago, or one was accepted since and
    the next refusal is overdue. After a single refusal it is not known when the next one is due.
    """
    age_s = state.age_s(run.last)
    if age_s > CURRENT_S:
        return True
    if run.in_run < _LEAST_RUN or state.accepted_s is None or state.accepted_s >= age_s:
        return False
    lasted_s = (run.last - run.since).total_seconds()
    return age_s > min(CURRENT_S, max(_LEAST_QUIET_S, _GAPS * lasted_s / run.in_run))


def _has_ended(state: State, streak: FailureStreak) -> bool:
    """True if it is over, or if deliveries fail in another way since, and the next failure of this kind is overdue."""
    if is_over(state, streak):
        return True
    others = [one.last for one in state.streaks if not one.replayed and one.status != streak.status]
    return state.age_s(streak.last) >= _quiet_s(streak) and any(last > streak.last for last in others)


def current_streak(state: State) -> FailureStreak | None:
    """The largest of the failures of first runs that are current, one that goes on if there is any."""
    current = [one for one in state.streaks if not one.replayed and state.age_s(one.last) <= CURRENT_S]
    going_on = [one for one in current if not _has_ended(state, one)]
    return max(going_on or current, key=lambda one: one.lately, default=None)


def failing_group(state: State) -> Group | None:
    """The group with the most recent failures, unless those are stragglers; else the largest group.

    A group that goes on is chosen before one whose failures have ended, unless it has only a few.
    """
    groups = state.real_groups
    if not groups:
        return None
    largest = max(groups, key=lambda group: (group.count, group.last))
    lately = {group: _lately(state, group) for group in groups}
    current = [group for group in groups if lately[group] >= _MANY or lately[group] * _SHARE >= max(1, largest.count)]
    if not current:
        return largest
    first = max(current, key=lambda group: (lately[group], group.last))
    ended = state.streak_of(first.final_status)
    if ended is None or not _has_ended(state, ended):
        return first
    later = [group for group in current if lately[group] >= _MANY and _goes_on_after(state, group, ended)]
    return max(later, key=lambda group: (lately[group], group.last), default=first)


def _goes_on_after(state: State, group: Group, ended: FailureStreak) -> bool:
    """True if the failures of `group` go on, and not just because their last one came a moment later."""
    streak = state.streak_of(group.final_status)
    if streak is None or _has_ended(state, streak):
        return False
    return (streak.last - ended.last).total_seconds() >= _LEAST_QUIET_S


def _lately(state: State, group: Group) -> int:
    """The recent failures of its status; 0 if another group with this status, but another error, has them."""
    streak = state.streak_of(group.final_status)
    if streak is None or state.age_s(streak.last) > CURRENT_S:
        return 0
    newest = max(one.last for one in state.groups_of(group.final_status))
    return streak.lately if group.last == newest or state.age_s(group.last) <= CURRENT_S else 0


def began_at(state: State, group: Group, streak: FailureStreak) -> datetime | None:
    """When the failures of `group` began; None if that is more than a day ago.

    A streak is one of a status: of several groups that share it, none began before its own first dead letter.
    """
    if streak.first is None or len(state.groups_of(group.final_status)) == 1:
        return streak.first
    return max(streak.first, group.first)
