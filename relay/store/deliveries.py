"""Deliveries in Postgres: what the store's statements take and give, progress, hand-over, and discards.

Every transition of state is one statement: storing is in `storing`, finishing in `finishing`, claiming in `claims`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.domain.delivery import Attempt, Deferred, Delivery, Outcome, Receipt, State, WaitReason
from relay.domain.retry import retry_helps
from relay.store.database import rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from relay.domain.facts import Fact
    from relay.store.database import Connection


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this relay holds, under this claim."""

    claim: UUID
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A webhook whose delivery id or signature is known already; `delivery_id` and `state` are that delivery's."""

    delivery_id: str
    state: State


@dataclass(frozen=True, slots=True)
class Waiting:
    """A webhook that was stored and waits, and why. `id` is the row."""

    delivery_id: str
    id: int
    reason: WaitReason


@dataclass(frozen=True, slots=True)
class Spooled:
    """A webhook that is durable in the spool, since Postgres did not store it."""

    delivery_id: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A webhook that was stored and goes no further."""

    delivery_id: str


@dataclass(frozen=True, slots=True)
class Incoming:
    """A receipt on its way into the store, with the claim it is to be stored under.

    `order_key` names the conversation whose order it keeps, None for no order. It is forwarded at once only if it is
    `wanted`: if its relay has a slot for it. `received_at` is None for a receipt that is stored as soon as it comes.
    """

    claim: UUID
    receipt: Receipt
    order_key: str | None = None
    wanted: bool = True
    received_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The end or the interruption of one run: what to record, all of it or nothing.

    With `facts_later` its facts go aside, untried. `lock_ms` is how long it may wait for a row that another session
    holds, where it is committed by itself. `next_claim` is the claim under which the relay takes the next delivery of
    the conversation; None: it does not.
    """

    claim: UUID
    delivery: Delivery
    outcome: Outcome | Deferred
    facts: Sequence[Fact]
    facts_later: bool = False
    lock_ms: int = 20
    next_claim: UUID | None = None


@dataclass(frozen=True, slots=True)
class FactsAside:
    """How many facts of one statement went to `relay.facts_aside`: refused ones, and late ones.

    `reason` is a refused one's, else what made them late: an SQLSTATE and names (`relay.refusal`).
    """

    refused: int = 0
    late: int = 0
    reason: str | None = None

    def __bool__(self) -> bool:
        return self.refused + self.late > 0


Stored = Claimed | Waiting | Duplicate | Ignored | Spooled


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of one `Finish`.

    `recorded` is False if another claim has replaced its own. `state` is `waiting` of a run that had failed for good
    while the circuit breaker was open. `promoted` is True if another delivery of the batch's conversations may go now.
    `next` is the next delivery of the conversation, if the relay has it.
    """

    recorded: bool
    state: State | None = None
    promoted: bool = False
    next: Claimed | None = None


_HAND_BACK = """
    UPDATE relay.deliveries
       SET state = 'received', owner = NULL, waits = 'capacity', since = now(), run = run + (tries = 0)::integer
     WHERE owner = %s AND state = 'forwarding'
"""


async def hand_back(connection: Connection, owner: UUID) -> int:
    """Give up every lease of `owner`, so that any relay may take its deliveries on at once. Returns how many."""
    cursor = await connection.execute(_HAND_BACK, (owner,))
    return cursor.rowcount


_DISCARD = """
    WITH asked AS (
        SELECT w.action, a.deliveries FROM relay.discards w JOIN relay.operator_actions a ON a.id = w.action
        WHERE w.applied_at IS NULL ORDER BY w.action LIMIT 1 FOR UPDATE OF w SKIP LOCKED
    ), discarded AS (
        UPDATE relay.deliveries d SET state = 'discarded', finished_at = now() FROM asked
        WHERE d.id = ANY(asked.deliveries) AND d.state = 'dead' RETURNING d.id
    )
    UPDATE relay.discards w
       SET applied_at = now(),
           result = jsonb_build_object('discarded', (SELECT count(*) FROM discarded),
                                       'asked', coalesce(cardinality(asked.deliveries), 0))
      FROM asked WHERE w.action = asked.action
    RETURNING w.action
"""


async def apply_discards(connection: Connection) -> int:
    """Carry out every discard that operators asked for and no relay has applied yet. Returns how many."""
    applied = 0
    while (await connection.execute(_DISCARD)).rowcount:
        applied += 1
    return applied


_OUTCOMES = """
    SELECT id, state = 'delivered', attempts, duration_ms, final_status, last_error, agent_status, finished_at
      FROM relay.deliveries
     WHERE id = ANY(%s) AND state IN ('delivered', 'dead') AND attempts > 0 AND final_status IS NOT NULL
"""


async def outcomes(connection: Connection, rows: Sequence[int]) -> dict[int, Outcome]:
    """The outcomes of those of these deliveries whose run has ended, by row. Each has only its last attempt."""
    found: dict[int, Outcome] = {}
    for row, success, count, duration_ms, status, error, agent_status, at in await (
        await connection.execute(_OUTCOMES, (list(rows),))
    ).fetchall():
        last = Attempt(
            number=count,
            started_at=at,
            wait_ms=0,
            duration_ms=0,
            status=status,
            success=success,
            retryable=not success and retry_helps(status),
            error=error,
            agent_status=agent_status,
        )
        found[row] = Outcome((last,), duration_ms, earlier=count - 1)
    return found


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a delivery has got. `attempts` are those of its last finished run, as dicts of the table's columns."""

    state: State
    run: int
    final_status: str | None
    last_error: str | None
    agent_status: str | None
    attempts: list[dict[str, Any]]

    @property
    def settled(self) -> bool:
        """True once nothing more happens to it by itself."""
        return self.state in {State.DELIVERED, State.DEAD, State.DISCARDED}


_PROGRESS = """
    SELECT d.state, d.run, d.final_status, d.last_error, d.agent_status, coalesce((
               SELECT jsonb_agg(to_jsonb(a) - 'delivery' - 'run' ORDER BY a.number) FROM relay.attempts a
                WHERE a.delivery = d.id AND a.run = d.run), '[]') AS attempts
      FROM relay.deliveries d WHERE d.delivery_id = %s
"""


async def progress(connection: Connection, delivery_id: str) -> Progress | None:
    """How far the delivery has got, or None if it is not known."""
    return await (await rows_of(connection, _progress).execute(_PROGRESS, (delivery_id,))).fetchone()


def _progress(*, state: str, **columns: Any) -> Progress:
    return Progress(state=State(state), **columns)
