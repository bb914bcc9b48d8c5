"""Which failures are so now, which are over, and which group of dead letters is the one to name. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.retry import retry_helps

if TYPE_CHECKING:
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
    if not retry_helps(streak.status):
        return False
    if state.age_s(streak.last) < _quiet_s(streak):
        return False
    began = streak.first or streak.last
    return state.gets_through_since(streak.last) or state.agent_is_well_since(began, streak.last)


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


def current_streak(state: State) -> FailureStreak | None:
    """The largest of the failures of first runs that are current."""
    current = [one for one in state.streaks if not one.replayed and state.age_s(one.last) <= CURRENT_S]
    return max(current, key=lambda one: one.lately, default=None)


def failing_group(state: State) -> Group | None:
    """The group with the most recent failures, unless those are stragglers; else the largest group."""
    groups = state.real_groups
    if not groups:
        return None
    largest = max(groups, key=lambda group: (group.count, group.last))

    def lately(group: Group) -> int:
        streak = state.streak_of(group.final_status)
        return 0 if streak is None or state.age_s(streak.last) > CURRENT_S else streak.lately

    current = [group for group in groups if lately(group) >= _MANY or lately(group) * _SHARE >= max(1, largest.count)]
    return max(current, key=lambda group: (lately(group), group.count), default=largest)
