"""The headline's parts: its kinds, its levels, and what goes with each kind. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.store.browse import Group

BAD, WARNING, WELL = "bad", "warning", "well"
"""The levels of a headline, worst first."""


class Kind(StrEnum):
    """What a headline is about, in the order of what hurts customers most (CONSOLE, 6)."""

    NO_RELAY = "no_relay"
    RELAY_IN_DOUBT = "relay_in_doubt"
    STORE_AWAY = "store_away"
    SPOOL = "spool"
    REFUSED = "refused"
    STUCK = "stuck"
    HELD = "held"
    BREAKER_OPEN = "breaker_open"
    AGENT_FAILS = "agent_fails"
    AGENT_UNHEALTHY = "agent_unhealthy"
    BACKLOG = "backlog"
    SILENCE = "silence"
    AGENT_SLOW = "agent_slow"
    FACTS_ASIDE = "facts_aside"
    REPLAY_RUNS = "replay_runs"
    RECOVERED = "recovered"
    GAP = "gap"
    EARLIER_REFUSED = "earlier_refused"
    FINDING = "finding"
    DEAD_LETTERS = "dead_letters"
    EARLIER_FAILURE = "earlier_failure"
    FEW_REFUSED = "few_refused"
    ALERT = "alert"
    WELL = "well"


PRESENT = frozenset({
    Kind.RELAY_IN_DOUBT, Kind.SPOOL, Kind.AGENT_UNHEALTHY, Kind.BACKLOG, Kind.SILENCE, Kind.AGENT_SLOW,
    Kind.FACTS_ASIDE,
})  # fmt: skip
"""Kinds that may be so now without being bad, and that a diagnosis explains."""

REPLAYED = frozenset({Kind.RECOVERED, Kind.DEAD_LETTERS})
"""Kinds about dead letters whose cause is over."""

_COMMANDS = {
    Kind.NO_RELAY: "relay serve",
    Kind.HELD: "relay release",
    Kind.REPLAY_RUNS: "relay status",
    Kind.RECOVERED: "relay replay --dry-run",
    Kind.DEAD_LETTERS: "relay replay --dry-run",
    Kind.GAP: "relay backfill --since TIME --dry-run",
    Kind.EARLIER_REFUSED: "relay backfill --since TIME --dry-run",
    Kind.WELL: "relay status",
}


@dataclass(frozen=True, slots=True)
class Headline:
    """What is so now, in one sentence, its level, and the failure group that it is about, if any.

    `shorter` holds shorter forms of the sentence, longest first.
    """

    kind: Kind
    level: str
    sentence: str
    group: Group | None = None
    shorter: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command to type next."""
        return _COMMANDS.get(self.kind, "relay diagnose")

    def fitting(self, width: int) -> str:
        """The longest form that has at most `width` characters, else the shortest."""
        ways = (self.sentence, *self.shorter)
        return next((way for way in ways if len(way) <= width), ways[-1])
