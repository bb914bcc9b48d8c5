"""Replay plans in Postgres: requested by operators, claimed by a relay, worked on item by item.

Operators call functions of the schema, which check what they are given: one asks for a plan with its frozen
deliveries, one pauses, resumes or stops it. Relays do the rest. A plan's item is one failed run of one
delivery: once that delivery has been run again, by this plan or any other, the item is skipped, so that two plans
that hold it send it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.sql import SQL

from relay.store.claims import claimed_columns, read_claimed
from relay.store.database import exact, one_moment, rows_of
from relay.store.failures import refusals
from relay.store.filters import of_deliveries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from relay.store.database import Connection
    from relay.store.deliveries import Claimed
    from relay.store.filters import Condition

CHANNEL = "relay_replay"
LEAST_RATE, MOST_RATE = 0.001, 10_000
"""The bounds of a plan's rate in deliveries a second; `relay.ask_replay` has the same ones."""


class PlanState(StrEnum):
    """The state of a plan. `stopped` and `done` are final."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DONE = "done"


class Control(StrEnum):
    """What an operator can ask of a plan: the `action` of a row in `operator_actions`."""

    PAUSE = "replay.pause"
    RESUME = "replay.resume"
    STOP = "replay.stop"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was last asked of a plan, and by whom: the operator's own name, and their database login."""

    control: Control
    operator: str
    login: str | None


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What an operator asks for. `rate` is sends a second, None for as fast as it goes; `canary` the number
    that go alone first; `stop_after` the failures in a row that end it, 0 for never. `edited_body` replaces
    the body of a plan's only delivery.
    """

    request_id: UUID
    requested_by: str
    reason: str = ""
    filter: str = ""
    rate: float | None = None
    canary: int = 0
    stop_after: int = 0
    edited_body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The current state of a plan. What is `left` was not sent yet, or is on its way.

    `login` is the database login of the session that asked, None of a plan from before logins were recorded.
    """

    id: int
    request_id: UUID
    state: PlanState
    requested_by: str
    reason: str
    filter: str
    rate: float | None
    canary: int
    stop_after: int
    edited: bool
    total: int
    delivered: int
    dead: int
    skipped: int
    stopped_why: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    login: str | None

    @property
    def left(self) -> int:
        """Deliveries of the plan that are not settled."""
        return self.total - self.delivered - self.dead - self.skipped

    @property
    def ended(self) -> bool:
        """True once no more of it will be sent."""
        return self.state in {PlanState.STOPPED, PlanState.DONE}


plan_columns = SQL("""
    p.id, p.request_id, p.state, p.requested_by, p.reason, p.filter, p.rate, p.canary, p.stop_after,
    p.edited_body IS NOT NULL AS edited, p.total, p.delivered, p.dead, p.skipped, p.stopped_why, p.created_at,
    p.started_at, p.finished_at, p.login
""")


def plan_of_row(*, state: str, **columns: Any) -> Plan:
    """A plan from the columns of `plan_columns`."""
    return Plan(state=PlanState(state), **columns)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One delivery of the dead-letter queue, as a replay freezes and shows it."""

    id: int
    delivery_id: str
    run: int
    event: str | None
    conversation_id: str | None
    final_status: str | None
    last_error: str | None
    finished_at: datetime | None


_MATCHING = SQL("""
    SELECT d.id, d.delivery_id, d.run, d.event, d.conversation_id, d.final_status, d.last_error, d.finished_at
      FROM relay.deliveries d WHERE d.state = 'dead' AND {condition}
     ORDER BY d.finished_at, d.id LIMIT %(most)s
""")


async def matching(connection: Connection, condition: Condition, *, limit: int | None = None) -> list[DeadLetter]:
    """The dead letters that a filter matches, oldest first, `limit` of them at most."""
    statement = _MATCHING.format(condition=condition.sql)
    cursor = await rows_of(connection, DeadLetter).execute(statement, {**condition.parameters, "most": limit})
    return await cursor.fetchall()


_BY_ID = """
    SELECT d.delivery_id, d.state FROM relay.deliveries d WHERE d.delivery_id = ANY(%(ids)s)
"""


async def states_of(connection: Connection, delivery_ids: Sequence[str]) -> dict[str, str]:
    """The state of each of `delivery_ids` that is known, by the exact id."""
    cursor = await exact(connection).execute(_BY_ID, {"ids": list(delivery_ids)})
    return {row[0]: row[1] for row in await cursor.fetchall()}


async def named(connection: Connection, delivery_ids: Sequence[str]) -> tuple[list[DeadLetter], dict[str, str]]:
    """The dead letters among `delivery_ids`, and the state of each that is known, both at one moment."""
    async with one_moment(connection):
        return await matching(connection, of_deliveries(delivery_ids)), await states_of(connection, delivery_ids)


_ASK = """
    SELECT relay.ask_replay(
        request => %(request_id)s, operator => %(requested_by)s, reason => %(reason)s, filter => %(filter)s,
        rate => %(rate)s::double precision, canary => %(canary)s, stop_after => %(stop_after)s,
        edited_body => %(edited_body)b::bytea, deliveries => %(deliveries)s::bigint[], runs => %(runs)s::int[])
"""
_BY_REQUEST = "SELECT id FROM relay.replay_plans WHERE request_id = %s"


async def is_known(connection: Connection, request_id: UUID) -> bool:
    """True if a plan was requested under this id."""
    cursor = await connection.execute(_BY_REQUEST, (request_id,))
    return await cursor.fetchone() is not None


async def ask(connection: Connection, request: PlanRequest, frozen: Sequence[DeadLetter]) -> int:
    """Enqueue a replay of the `frozen` dead letters and record who asked; returns the plan's id.

    One statement, one transaction. Asking for the same again with the same `request_id` from the same database login
    changes nothing and returns the plan that is there.

    Raises:
        Refused: the request cannot be carried out as it is, or its id belongs to another replay.
    """
    with refusals():
        cursor = await connection.execute(
            _ASK,
            {
                "request_id": request.request_id,
                "requested_by": request.requested_by,
                "reason": request.reason,
                "filter": request.filter,
                "rate": request.rate,
                "canary": request.canary,
                "stop_after": request.stop_after,
                "edited_body": request.edited_body,
                "deliveries": [letter.id for letter in frozen],
                "runs": [letter.run for letter in frozen],
            },
        )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


_CONTROL = "SELECT relay.control_replay(plan => %s, control => %s, operator => %s, reason => %s)"


async def control(connection: Connection, plan_id: int, action: Control, *, operator: str, reason: str = "") -> None:
    """Pause, resume or stop a plan. The relay that works on it, or the next one that reads it, acts on it.

    Raises:
        Refused: there is no such plan.
    """
    with refusals():
        await connection.execute(_CONTROL, (plan_id, action, operator, reason))


_PLAN = SQL("SELECT {} FROM relay.replay_plans p WHERE p.id = %s").format(plan_columns)


async def plan(connection: Connection, plan_id: int) -> Plan | None:
    """The plan's current state, or None."""
    cursor = await rows_of(connection, plan_of_row).execute(_PLAN, (plan_id,))
    return await cursor.fetchone()


_LAST_CONTROL = SQL("""
    LEFT JOIN LATERAL (
        SELECT a.action, a.operator, a.login FROM relay.operator_actions a
        WHERE a.plan_id = p.id AND a.action IN ('replay.pause', 'replay.resume', 'replay.stop')
        ORDER BY a.id DESC LIMIT 1) AS c ON true
""")
_CLAIM = SQL("""
    UPDATE relay.replay_plans p
       SET started_at = coalesce(p.started_at, now()),
           (total, state, owner, stopped_why, finished_at) = (
               SELECT items.n, CASE WHEN fault.why IS NULL THEN 'running' ELSE 'stopped' END,
                      CASE WHEN fault.why IS NULL THEN %(owner)s::uuid END, fault.why,
                      CASE WHEN fault.why IS NOT NULL THEN now() END
                 FROM (SELECT count(*) AS n FROM relay.replay_items i WHERE i.plan_id = p.id) AS items,
              LATERAL (SELECT CASE
                           WHEN p.edited_body IS NOT NULL AND items.n > 1
                           THEN format('it has one edited body for %%s deliveries', items.n)
                           WHEN NOT (p.rate >= {least} AND p.rate <= {most})
                           THEN 'its rate is not from {least} to {most} a second' END AS why) AS fault)
     WHERE p.id = (
        SELECT p.id FROM relay.replay_plans p
          {last_control}
         WHERE p.state IN ('queued', 'running', 'paused') AND p.id <> ALL(%(working)s)
           AND (coalesce((SELECT o.lease_until FROM relay.instances o WHERE o.id = p.owner), '-infinity') < now()
                OR p.owner = %(owner)s)
           AND (p.state <> 'paused' OR c.action IS DISTINCT FROM 'replay.pause')
         ORDER BY p.id LIMIT 1 FOR UPDATE OF p SKIP LOCKED)
    RETURNING {columns}
""").format(columns=plan_columns, last_control=_LAST_CONTROL, least=SQL(str(LEAST_RATE)), most=SQL(str(MOST_RATE)))


async def claim(connection: Connection, owner: UUID, *, working: Sequence[int]) -> Plan | None:
    """Claim the oldest plan that waits: queued, resumed or stopped after a pause, left by a dead relay, or
    `owner`'s own. None that it is `working` on, even if its own lease has run out in the meantime.

    A plan that can never be sent as it is comes back `stopped`, with the reason.
    """
    given = {"owner": owner, "working": list(working)}
    cursor = await rows_of(connection, plan_of_row).execute(_CLAIM, given)
    return await cursor.fetchone()


_CHECK = SQL("""
    SELECT p.owner = %(owner)s AS is_owner, c.action AS asked, c.operator AS asked_by, c.login AS asked_login,
           {columns}
      FROM relay.replay_plans p {last_control} WHERE p.id = %(plan)s
""").format(columns=plan_columns, last_control=_LAST_CONTROL)


async def check(connection: Connection, plan_id: int, owner: UUID) -> tuple[Plan, Asked | None] | None:
    """The plan and what an operator last asked of it; None if `owner` does not have it any more."""
    cursor = await rows_of(connection, _checked).execute(_CHECK, {"owner": owner, "plan": plan_id})
    return await cursor.fetchone()


def _checked(
    *, is_owner: bool | None, asked: str | None, asked_by: str, asked_login: str | None, **columns: Any
) -> tuple[Plan, Asked | None] | None:
    if not is_owner:
        return None
    return plan_of_row(**columns), None if asked is None else Asked(Control(asked), asked_by, asked_login)


_NEXT = SQL("""
    WITH next AS (
        SELECT i.position, i.delivery, i.run FROM relay.replay_items i
         WHERE i.plan_id = %(plan)s AND i.state = 'pending'
         ORDER BY i.position LIMIT %(most)s FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE relay.deliveries d
           SET state = 'forwarding', owner = %(owner)s, claim = gen_random_uuid(), claimed_at = now(),
               run = d.run + 1, plan_id = %(plan)s, finished_at = NULL, conversation_key = NULL, tries = 0,
               spent_ms = 0, waited_ms = 0
          FROM next n
         WHERE d.id = n.delivery AND d.run = n.run AND d.state = 'dead'
        RETURNING {}
    ), marked AS (
        UPDATE relay.replay_items i
           SET state = CASE WHEN c.id IS NULL THEN 'skipped' ELSE 'sending' END,
               settled_at = CASE WHEN c.id IS NULL THEN now() END
          FROM next n LEFT JOIN claimed c ON c.id = n.delivery
         WHERE i.plan_id = %(plan)s AND i.position = n.position
        RETURNING i.state
    ), counted AS (
        UPDATE relay.replay_plans p SET skipped = p.skipped + s.skipped
          FROM (SELECT count(*) AS skipped FROM marked WHERE state = 'skipped') s
         WHERE p.id = %(plan)s AND s.skipped > 0
    )
    SELECT (SELECT count(*) FROM marked WHERE state = 'skipped'), c.* FROM (SELECT 1) AS one
      LEFT JOIN claimed c ON true
""").format(claimed_columns)


async def claim_next(connection: Connection, plan_id: int, owner: UUID, most: int) -> tuple[list[Claimed], int]:
    """Claim up to `most` of the plan's next deliveries; also returns how many had to be skipped instead.

    Neither any claimed nor any skipped means that nothing is left to send.
    """
    cursor = await exact(connection).execute(_NEXT, {"plan": plan_id, "owner": owner, "most": most})
    rows = await cursor.fetchall()
    skipped = int(rows[0][0]) if rows else 0
    return await read_claimed(connection, [row[1:] for row in rows if row[1] is not None]), skipped


_IN_FLIGHT = "SELECT count(*) FROM relay.replay_items WHERE plan_id = %s AND state = 'sending'"


async def in_flight(connection: Connection, plan_id: int) -> int:
    """How many of the plan's deliveries are on their way, whichever relay forwards them."""
    cursor = await connection.execute(_IN_FLIGHT, (plan_id,))
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


_STREAK = """
    SELECT count(*) FROM relay.replay_items i
     WHERE i.plan_id = %(plan)s AND i.state = 'dead'
       AND i.settled_at > coalesce((SELECT max(o.settled_at) FROM relay.replay_items o
                                     WHERE o.plan_id = %(plan)s AND o.state = 'delivered'), '-infinity')
"""


async def failures_in_a_row(connection: Connection, plan_id: int) -> int:
    """How many of the plan's deliveries have failed since the last one that succeeded."""
    cursor = await connection.execute(_STREAK, {"plan": plan_id})
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


_SETTLE = """
    UPDATE relay.replay_plans
       SET state = %(state)s, stopped_why = %(why)s, owner = NULL,
           finished_at = CASE WHEN %(state)s IN ('stopped', 'done') THEN now() END
     WHERE id = %(plan)s AND owner = %(owner)s
"""


async def settle(connection: Connection, plan_id: int, owner: UUID, state: PlanState, why: str | None = None) -> None:
    """End, pause or release a plan that `owner` works on, with the reason."""
    await connection.execute(_SETTLE, {"plan": plan_id, "owner": owner, "state": state, "why": why})
    await notify(connection, plan_id)


_LET_GO = "UPDATE relay.replay_plans SET owner = NULL WHERE owner = %s"


async def release_plans(connection: Connection, owner: UUID) -> None:
    """Release every plan that `owner` works on, so that another relay can claim it."""
    await connection.execute(_LET_GO, (owner,))


async def notify(connection: Connection, plan_id: int) -> None:
    """Notify listeners that the plan has changed."""
    await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, str(plan_id)))


_DELIVERED_ELSEWHERE = """
    SELECT count(*) FROM relay.replay_items i JOIN relay.deliveries d ON d.id = i.delivery
     WHERE i.plan_id = %s AND i.state = 'skipped' AND d.state = 'delivered'
"""


async def delivered_elsewhere(connection: Connection, plan_id: int) -> int:
    """How many of the plan's skipped deliveries were delivered by another run."""
    cursor = await connection.execute(_DELIVERED_ELSEWHERE, (plan_id,))
    row = await cursor.fetchone()
    return int(row[0]) if row else 0
