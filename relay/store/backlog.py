"""What waits: how many deliveries, for which reason, how long, and what stops or slows their forwarding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.domain.delivery import WaitReason
from relay.domain.format import minute_clock, utc_clock
from relay.store import destinations, gate
from relay.store.database import together

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg.abc import Query

    from relay.store.database import Connection
    from relay.store.destinations import Gone
    from relay.store.gate import Hold, OpenBreaker

_COUNTS = "SELECT kind, sum(number)::bigint FROM relay.backlog_counts GROUP BY kind HAVING sum(number) > 0"
# Ages come from indexes: the oldest delivery that waits at all, and the oldest that nothing but a slot is missing for.
_OLDEST = """
    SELECT extract(epoch FROM now() - min(received_at))::float8 FROM relay.deliveries
     WHERE state IN ('received', 'waiting')
"""
_FINISHED = """
    SELECT coalesce(sum(facts), 0)::float8 / 60 FROM relay.minutes
     WHERE minute >= date_trunc('minute', now()) - interval '1 minute' AND minute < date_trunc('minute', now())
       AND fact_type IN ('support.webhook.retry', 'support.webhook.replay') AND NOT test
"""
_FINISHED_NOW = """
    SELECT coalesce(sum(facts), 0)::float8
           / greatest(extract(epoch FROM now() - date_trunc('minute', now())), 1)::float8
      FROM relay.minutes
     WHERE minute >= date_trunc('minute', now()) AND fact_type IN ('support.webhook.retry', 'support.webhook.replay')
       AND NOT test
"""

_OWN_REASONS = {WaitReason.ORDER, WaitReason.RETRY, WaitReason.DESTINATION}
"""Reasons that a hold or the breaker does not replace."""


@dataclass(frozen=True, slots=True)
class BacklogState:
    """What waits at one moment.

    `by_reason` has a number for each reason for which something waits. `oldest_s` is the age of the oldest of all.
    `drain_per_s` is how many deliveries finish a second, of the last minute or of this one, whichever is more.
    `gone` are the destinations that deliveries wait for and no live relay forwards to, longest first.
    """

    by_reason: Mapping[WaitReason, int]
    oldest_s: float | None
    drain_per_s: float
    hold: Hold | None
    breaker: OpenBreaker | None
    gone: Sequence[Gone] = ()

    @property
    def waiting(self) -> int:
        """Every delivery that waits."""
        return sum(self.by_reason.values())

    @property
    def size(self) -> int:
        """What waits for capacity, a hold, the breaker or its destination (waits for order and retries are none)."""
        return self.waiting - self.by_reason.get(WaitReason.ORDER, 0) - self.by_reason.get(WaitReason.RETRY, 0)

    @property
    def empty_in_s(self) -> float | None:
        """Seconds until the backlog is empty at the present rate; None if nothing drains or nothing waits.

        What waits for a destination without a relay does not drain and is left out.
        """
        stuck = self.by_reason.get(WaitReason.DESTINATION, 0)
        if self.size <= stuck or not self.drain_per_s or self.hold is not None or self.breaker is not None:
            return None
        return (self.waiting - stuck) / self.drain_per_s

    @property
    def stopped(self) -> str | None:
        """One sentence: who holds forwarding since when and why, or why the breaker is open; None if neither is so."""
        waits = f"{self.waiting:,} {'waits' if self.waiting == 1 else 'wait'}."
        if self.hold is not None:
            until = "" if self.hold.until is None else f" until {minute_clock(self.hold.until)}"
            who, reason = self.hold.who, self.hold.reason
            return f"Forwarding is held by {who} since {minute_clock(self.hold.since)}{until} ({reason}). {waits}"
        if self.breaker is not None:
            return f"The circuit breaker is open since {utc_clock(self.breaker.since)} ({self.breaker.why}). {waits}"
        return None

    @property
    def overdue_s(self) -> float | None:
        """The age of the oldest delivery that waits for another reason than an operator's hold."""
        if self.hold is None:
            return self.oldest_s
        return max((one.oldest_s for one in self.gone), default=None)

    @property
    def without_relay(self) -> list[str]:
        """A sentence for each destination without a live relay."""
        return [
            f"No live relay forwards to {one.destination}: start one with that AGENT_SDK_URL, or move what waits with "
            f"`relay redirect --from {one.destination} --to URL`"
            for one in self.gone
        ]


async def _rows(connection: Connection, statement: Query) -> Sequence[Sequence[Any]]:
    return await (await connection.execute(statement)).fetchall()


async def read(connection: Connection) -> BacklogState:
    """The backlog now."""
    counts, oldest, *rates, hold, breaker, gone = await together(
        connection,
        _rows(connection, _COUNTS),
        *(_rows(connection, query) for query in (_OLDEST, _FINISHED, _FINISHED_NOW)),
        gate.current_hold(connection),
        gate.open_breaker(connection),
        destinations.gone(connection),
    )
    kinds = {row[0]: int(row[1]) for row in counts}
    return BacklogState(
        by_reason=_reasons(kinds, hold, breaker),
        oldest_s=oldest[0][0] if oldest else None,
        drain_per_s=max(float(rows[0][0]) for rows in rates if rows),
        hold=hold,
        breaker=breaker,
        gone=gone,
    )


def _reasons(kinds: Mapping[str, int], hold: Hold | None, breaker: OpenBreaker | None) -> dict[WaitReason, int]:
    """What waits, by what stops it now: a delivery that was stored during a hold waits for a slot once that is over."""
    stopped = WaitReason.CAPACITY
    if hold is not None:
        stopped = WaitReason.HOLD
    elif breaker is not None:
        stopped = WaitReason.BREAKER
    found: dict[WaitReason, int] = {}
    for kind, number in kinds.items():
        reason = WaitReason(kind) if kind in _OWN_REASONS else stopped
        found[reason] = found.get(reason, 0) + number
    return found
