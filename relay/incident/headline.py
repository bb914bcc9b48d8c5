"""Names what is wrong in one sentence: the only engine that does. Pure: one frozen state in, one headline out.

Console, `relay status`, `relay diagnose`, `relay escalate` and notifications show this sentence (DESIGN, 8). The order
of `_CAUSES` is that of what hurts customers most (CONSOLE, 6). The present outranks the past.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.incident import earlier, present
from relay.incident.cause import Headline, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.incident.state import State

_CAUSES: tuple[Callable[[State], Headline | None], ...] = (
    present.no_relay,
    present.relay_in_doubt,
    present.store_away,
    present.spool_fills,
    present.refused,
    present.stuck,
    present.held,
    present.breaker_open,
    present.agent_fails,
    present.agent_unhealthy,
    present.backlog_waits,
    present.silence,
    present.agent_slow,
    present.facts_aside,
    present.replay_runs,
    earlier.recovered,
    present.unhealthy_but_delivering,
    earlier.gap,
    earlier.refused,
    earlier.finding,
    earlier.dead_letters,
    earlier.last_failure,
    earlier.few_refused,
    earlier.alert,
)


def headline(state: State) -> Headline:
    """The one headline of `state`: the first cause that is so, or that all is well."""
    for cause in _CAUSES:
        found = cause(state)
        if found is not None:
            return found
    return earlier.well(state)


__all__ = ["Headline", "Kind", "headline"]
