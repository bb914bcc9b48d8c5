"""What waits: how many deliveries, for which reason, how long, and what stops or slows their forwarding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL

from relay.domain.delivery import WaitReason
from relay.domain.format import minute_clock, utc_clock, verb
from relay.store import destinations, gate
from relay.store.database import rows_of
from relay.store.destinations import Gone
from relay.store.gate import Hold, OpenBreaker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from relay.store.database import Connection

# Ages come from indexes: the oldest delivery that waits at all, and the oldest that nothing but a slot is missing for.
# `drain_per_s` is that of the last whole minute or of this one.
_BACKLOG = SQL("""
    SELECT (SELECT jsonb_object_agg(c.kind, c.number)
              FROM (SELECT kind, sum(number)::bigint AS number FROM relay.backlog_counts
                     GROUP BY kind HAVING sum(number) > 0) AS c) AS kinds,
           (SELECT extract(epoch FROM greatest(now(), min(received_at)) - min(received_at))::float8
              FROM relay.deliveries WHERE state IN ('received', 'waiting')) AS oldest_s,
           (SELECT greatest(
                       coalesce(sum(facts) FILTER (WHERE minute < now.minute), 0)::float8 / 60,
                       coalesce(sum(facts) FILTER (WHERE minute >= now.minute), 0)::float8
                           / greatest(extract(epoch FROM now() - now.minute), 1)::float8)
              FROM relay.minutes
             WHERE minute >= now.minute - interval '1 minute'
               AND fact_type IN ('support.webhook.retry', 'support.webhook.replay') AND NOT test) AS drain_per_s,
           h.id, h.since, h.until, h.operator, h.login, h.reason, b.opened_at, b.why, b.probe_at,
           (SELECT array_agg(g.destination ORDER BY g.oldest_s DESC) FROM gone g) AS gone,
           (SELECT array_agg(g.oldest_s ORDER BY g.oldest_s DESC) FROM gone g) AS gone_s
      FROM (SELECT date_trunc('minute', now()) AS minute) AS now
      LEFT JOIN ({hold}) AS h ON true LEFT JOIN ({breaker}) AS b ON true
""")
_READ = SQL("WITH gone AS MATERIALIZED ({gone}) {read}").format(
    gone=destinations.GONE, read=_BACKLOG.format(hold=SQL(gate.CURRENT_HOLD), breaker=SQL(gate.OPEN_BREAKER))
)

_OWN_REASONS = frozenset({WaitReason.RETRY, WaitReason.DESTINATION})
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
        waits = f"{self.waiting:,} {verb(self.waiting, 'wait')}."
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


async def read(connection: Connection) -> BacklogState:
    """The backlog now, in one round trip."""
    state = await (await rows_of(connection, _state).execute(_READ)).fetchone()
    assert state is not None
    return state


def _state(
    *,
    kinds: Mapping[str, int] | None,
    oldest_s: float | None,
    drain_per_s: float,
    opened_at: datetime | None,
    why: str | None,
    probe_at: datetime | None,
    gone: Sequence[str] | None,
    gone_s: Sequence[float] | None,
    **held: Any,
) -> BacklogState:
    hold = None if held["id"] is None else Hold(**held)
    breaker = None if opened_at is None else OpenBreaker(opened_at, why or "", probe_at)
    return BacklogState(
        by_reason=_reasons(kinds or {}, hold, breaker),
        oldest_s=oldest_s,
        drain_per_s=drain_per_s,
        hold=hold,
        breaker=breaker,
        gone=[Gone(*pair) for pair in zip(gone or (), gone_s or (), strict=True)],
    )


def _reasons(kinds: Mapping[str, int], hold: Hold | None, breaker: OpenBreaker | None) -> dict[WaitReason, int]:
    """What waits, by what stops it now: a delivery that was stored during a hold waits for a slot once that is over.

    A hold and the breaker stop those, too, that wait for their turn in a conversation.
    """
    stopped: WaitReason | None = None
    if hold is not None:
        stopped = WaitReason.HOLD
    elif breaker is not None:
        stopped = WaitReason.BREAKER
    kept = _OWN_REASONS if stopped is not None else _OWN_REASONS | {WaitReason.ORDER}
    found: dict[WaitReason, int] = {}
    for kind, number in kinds.items():
        reason = WaitReason(kind) if kind in kept else stopped or WaitReason.CAPACITY
        found[reason] = found.get(reason, 0) + number
    return found
