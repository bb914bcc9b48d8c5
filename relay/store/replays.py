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

from relay.store.actions import signed
from relay.store.database import exact, one_moment, rows_of
from relay.store.failures import refusals
from relay.store.filters import of_deliveries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from relay.store.database import Connection
    from relay.store.filters import Condition

CHANNEL = "relay_replay"
AUTOMATIC = "auto-replay"
"""Who requests a replay that no operator asked for."""

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
    `paused_by` is the operator who paused it, with the login where it differs; None unless it is paused.
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
    paused_by: str | None = None

    @property
    def who(self) -> str:
        """The operator who asked, with the login where it differs."""
        return signed(self.requested_by, self.login)

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
    p.started_at, p.finished_at, p.login,
    CASE WHEN p.state = 'paused' THEN (
        SELECT ARRAY[a.operator, a.login] FROM relay.operator_actions a
         WHERE a.plan_id = p.id AND a.action = 'replay.pause' ORDER BY a.id DESC LIMIT 1) END AS paused
""")


def plan_of_row(*, state: str, paused: tuple[str, str | None] | None, **columns: Any) -> Plan:
    """A plan from the columns of `plan_columns`."""
    return Plan(state=PlanState(state), paused_by=None if paused is None else signed(*paused), **columns)


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
