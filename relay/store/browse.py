"""What consoles read of deliveries: keyset windows, counts that stop, failure groups, one delivery close up, the log.

No statement here looks at more rows than a screen needs or an index bounds, whatever the tables hold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.delivery import State
from relay.store.log import LogLine
from relay.store.replays import plan_columns, plan_of_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from relay.delivery import Headers
    from relay.filters import Condition
    from relay.store.database import Connection
    from relay.store.replays import Plan

COUNT_CAP = 10_000
BODY_BYTES = 256 * 1024
_ANSWER_CHARS = 2_000

Key = tuple["datetime | None", int]
"""Where a row stands in its list: when it died (None in the list of all deliveries), and its id."""


@dataclass(frozen=True, slots=True)
class Row:
    """One delivery as a list shows it. Times in UTC, durations in ms; those and the status are of the last run."""

    id: int
    delivery_id: str
    state: State
    run: int
    event: str | None
    conversation_id: str | None
    test: bool
    attempts: int | None
    duration_ms: int | None
    final_status: str | None
    last_error: str | None
    received_at: datetime
    finished_at: datetime | None

    @property
    def key(self) -> Key:
        """Its place in the list of all deliveries."""
        return None, self.id

    @property
    def dead_key(self) -> Key:
        """Its place in the dead-letter queue."""
        return self.finished_at, self.id


_ROW = """
    d.id, d.delivery_id, d.state, d.run, d.event, d.conversation_id, d.test, d.attempts, d.duration_ms,
    d.final_status, d.last_error, d.received_at, d.finished_at
"""


def _row(row: Sequence[Any]) -> Row:
    return Row(row[0], row[1], State(row[2]), *row[3:13])


async def window(
    connection: Connection,
    condition: Condition,
    *,
    states: Sequence[State] | None,
    anchor: Key | None = None,
    newer: bool = False,
    limit: int = 200,
) -> list[Row]:
    """Up to `limit` rows that `condition` holds for, newest first, from `anchor` on, that row included.

    With `newer` they are those that end at `anchor`. The dead-letter queue is ordered by when they died, all
    others by when they came.
    """
    dead = states is not None and tuple(states) == (State.DEAD,)
    where, order = ("d.state = 'dead'", "d.finished_at {0}, d.id {0}") if dead else ("true", "d.id {0}")
    parameters: dict[str, Any] = {**condition.parameters, "most": limit}
    if states is not None and not dead:
        where, parameters["states"] = "d.state = ANY(%(states)s)", [state.value for state in states]
    if anchor is not None:
        sign = ">=" if newer else "<="
        place = f"(d.finished_at, d.id) {sign} (%(at)s, %(id)s)" if dead else f"d.id {sign} %(id)s"
        where += f" AND {place}"
        parameters |= {"at": anchor[0], "id": anchor[1]}
    direction = "ASC" if newer else "DESC"
    sql = (
        f"SELECT {_ROW} FROM relay.deliveries d WHERE {where} AND {condition.sql} "  # noqa: S608 - constants
        f"ORDER BY {order.format(direction)} LIMIT %(most)s"
    )
    cursor = await connection.execute(sql.encode(), parameters)
    rows = [_row(row) for row in await cursor.fetchall()]
    return rows[::-1] if newer else rows


async def count(
    connection: Connection, condition: Condition, states: Sequence[State] | None, cap: int = COUNT_CAP
) -> int:
    """How many deliveries `condition` holds for; `cap + 1` stands for more than `cap`."""
    where = "true" if states is None else "d.state = ANY(%(states)s)"
    if states is not None and tuple(states) == (State.DEAD,):
        where = "d.state = 'dead'"
    sql = (
        f"SELECT count(*) FROM (SELECT FROM relay.deliveries d WHERE {where} AND {condition.sql} "  # noqa: S608 - constants
        "LIMIT %(most)s) AS found"
    )
    wanted = [state.value for state in states or ()]
    cursor = await connection.execute(sql.encode(), {**condition.parameters, "states": wanted, "most": cap + 1})
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True, slots=True)
class Group:
    """Open dead letters that share status and error. `per_minute` is over the last five minutes."""

    final_status: str
    last_error: str
    count: int
    per_minute: float
    first: datetime
    last: datetime
    events: tuple[str, ...]


_GROUPS = """
    SELECT final_status, last_error, sum(n)::bigint, sum(fresh)::float8 / 5, min(first), max(last),
           array_agg(event ORDER BY n DESC) FILTER (WHERE event IS NOT NULL)
      FROM (SELECT coalesce(d.final_status, '') AS final_status, coalesce(d.last_error, '') AS last_error, d.event,
                   count(*) AS n, count(*) FILTER (WHERE d.finished_at > now() - interval '5 minutes') AS fresh,
                   min(d.finished_at) AS first, max(d.finished_at) AS last
              FROM relay.deliveries d WHERE d.state = 'dead'
             GROUP BY 1, 2, 3) AS kinds
     GROUP BY 1, 2 ORDER BY 3 DESC LIMIT %(most)s
"""


async def groups(connection: Connection, *, limit: int = 100) -> list[Group]:
    """The failure groups of the dead-letter queue, largest first."""
    cursor = await connection.execute(_GROUPS, {"most": limit})
    return [
        Group(row[0], row[1], row[2], row[3], row[4], row[5], tuple(row[6] or ())) for row in await cursor.fetchall()
    ]


def group_filter(group: Group) -> str:
    """The filter that finds what is in `group`."""
    error = re.sub(r'(["\\])', r"\\\1", group.last_error)
    status = re.sub(r'(["\\])', r"\\\1", group.final_status)
    return f'status:{status} error:"{error}"'


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt as it was recorded; durations in ms."""

    run: int
    number: int
    started_at: datetime
    wait_ms: int
    duration_ms: int
    status: str
    error: str | None
    answer: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """A plan that held the delivery, and what became of it there."""

    plan_id: int
    requested_by: str
    reason: str
    state: str
    settled_at: datetime | None
    edited: bool


@dataclass(frozen=True, slots=True)
class Discarded:
    """Who asked for the delivery to be discarded, when and why."""

    at: datetime
    operator: str
    reason: str


@dataclass(frozen=True, slots=True)
class Detail:
    """One delivery close up. `body` is its beginning, `body_length` all of it in bytes. Nothing is cleaned."""

    row: Row
    headers: Headers
    body: bytes
    body_length: int
    agent_status: str | None
    attempts: tuple[Try, ...]
    replays: tuple[Replayed, ...]
    discards: tuple[Discarded, ...]


_DETAIL = f"""
    SELECT {_ROW}, d.headers, substring(d.body FOR %(most)s), length(d.body), d.agent_status
      FROM relay.deliveries d WHERE d.id = %(id)s
"""  # noqa: S608 - constants
_TRIES = """
    SELECT run, number, started_at, wait_ms, duration_ms, status, error, left(answer, %(chars)s)
      FROM relay.attempts WHERE delivery = %(id)s ORDER BY run, number LIMIT 500
"""
_REPLAYED = """
    SELECT p.id, p.requested_by, p.reason, i.state, i.settled_at, p.edited_body IS NOT NULL
      FROM relay.replay_items i JOIN relay.replay_plans p ON p.id = i.plan_id
     WHERE i.delivery = %(id)s ORDER BY p.id LIMIT 50
"""
_DISCARDED = """
    SELECT at, operator, reason FROM relay.operator_actions
     WHERE action = 'discard' AND deliveries @> ARRAY[%(id)s]::bigint[] ORDER BY id LIMIT 10
"""


async def detail(connection: Connection, row_id: int) -> Detail | None:
    """Everything about one delivery; None if it is gone."""
    cursor = await connection.execute(_DETAIL.encode(), {"id": row_id, "most": BODY_BYTES})
    found = await cursor.fetchone()
    if found is None:
        return None
    tries = await connection.execute(_TRIES, {"id": row_id, "chars": _ANSWER_CHARS})
    attempts = tuple(Try(*row) for row in await tries.fetchall())
    replays = await connection.execute(_REPLAYED, {"id": row_id})
    replayed = tuple(Replayed(*row) for row in await replays.fetchall())
    row = _row(found)
    discards: tuple[Discarded, ...] = ()
    if row.state in {State.DEAD, State.DISCARDED}:
        asked = await connection.execute(_DISCARDED, {"id": row_id})
        discards = tuple(Discarded(*discard) for discard in await asked.fetchall())
    headers = tuple((name, value) for name, value in found[13])
    return Detail(row, headers, bytes(found[14]), found[15], found[16], attempts, replayed, discards)


async def body_of(connection: Connection, row_id: int) -> bytes:
    """The whole body of one delivery, empty if it is gone."""
    cursor = await connection.execute("SELECT body FROM relay.deliveries WHERE id = %s", (row_id,))
    row = await cursor.fetchone()
    return bytes(row[0]) if row else b""


async def row_of(connection: Connection, delivery_id: str) -> int | None:
    """The row of a delivery by Chatwoot's id; None if it is not known."""
    cursor = await connection.execute("SELECT id FROM relay.deliveries WHERE delivery_id = %s", (delivery_id,))
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


_LOG_AFTER = """
    SELECT id, at, level, scope, message, fields, delivery_id FROM relay.log
     WHERE id > %(id)s ORDER BY id LIMIT %(most)s
"""
_LOG_BEFORE = """
    SELECT id, at, level, scope, message, fields, delivery_id FROM relay.log
     WHERE id < %(id)s ORDER BY id DESC LIMIT %(most)s
"""
_NEWEST = 2**63 - 1


async def log_after(connection: Connection, after: int, limit: int) -> list[tuple[int, LogLine]]:
    """Up to `limit` lines that come after the line `after`, oldest first, with their ids."""
    cursor = await connection.execute(_LOG_AFTER, {"id": after, "most": limit})
    return [(row[0], LogLine(*row[1:])) for row in await cursor.fetchall()]


async def log_before(connection: Connection, before: int | None, limit: int) -> list[tuple[int, LogLine]]:
    """The `limit` lines before the line `before` (None: the newest), oldest first, with their ids."""
    cursor = await connection.execute(_LOG_BEFORE, {"id": _NEWEST if before is None else before, "most": limit})
    return [(row[0], LogLine(*row[1:])) for row in await cursor.fetchall()][::-1]


_PLANS = f"SELECT {plan_columns} FROM relay.replay_plans p ORDER BY p.id DESC LIMIT %s"  # noqa: S608 - constants


async def plans(connection: Connection, limit: int) -> list[Plan]:
    """The newest replay plans, newest first."""
    cursor = await connection.execute(_PLANS.encode(), (limit,))
    return [plan_of_row(row) for row in await cursor.fetchall()]
