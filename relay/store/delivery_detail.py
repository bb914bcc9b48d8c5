"""One delivery close up, for consoles and `relay show`: its body, attempts, replays and discards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL

from relay.domain.delivery import State
from relay.domain.headers import shown
from relay.domain.retry import ANSWER_CHARS
from relay.store.browse import ROW, Row, make_row
from relay.store.database import fetched
from relay.store.round_trip import together

if TYPE_CHECKING:
    from datetime import datetime

    from relay.domain.delivery import Headers
    from relay.store.database import Connection

BODY_BYTES = 256 * 1024


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
    login: str | None
    reason: str
    state: str
    settled_at: datetime | None
    edited: bool
    plan_ended: bool


@dataclass(frozen=True, slots=True)
class Discarded:
    """Who requested that the delivery be discarded, when and why."""

    at: datetime
    operator: str
    login: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Detail:
    """One delivery close up. `body` is its beginning, as it came; `body_length` all of it in bytes. `headers` are those
    that may be shown, secrets masked. `destination` is the Agent SDK that it was accepted for, None of a row from
    before that was recorded. `claimed_at` is when a relay last took it.
    """

    row: Row
    headers: Headers
    body: bytes
    body_length: int
    agent_status: str | None
    destination: str | None = None
    claimed_at: datetime | None = None
    attempts: tuple[Try, ...] = ()
    replays: tuple[Replayed, ...] = ()
    discards: tuple[Discarded, ...] = ()


_DETAIL = SQL("""
    SELECT {row}, d.headers, substring(d.body FOR %(most)s) AS body, length(d.body) AS body_length, d.agent_status,
           d.destination, d.claimed_at
      FROM relay.deliveries d WHERE d.id = %(id)s
""").format(row=ROW)
_TRIES = """
    SELECT run, number, started_at, wait_ms, duration_ms, status, error, left(answer, %(chars)s) AS answer
      FROM relay.attempts WHERE delivery = %(id)s ORDER BY run, number LIMIT 500
"""
_REPLAYED = """
    SELECT p.id AS plan_id, p.requested_by, p.login, p.reason, i.state, i.settled_at,
           p.edited_body IS NOT NULL AS edited, p.state IN ('stopped', 'done') AS plan_ended
      FROM relay.replay_items i JOIN relay.replay_plans p ON p.id = i.plan_id
     WHERE i.delivery = %(id)s ORDER BY p.id LIMIT 50
"""
_DISCARDED = """
    SELECT at, operator, login, reason FROM relay.operator_actions
     WHERE action = 'discard' AND deliveries @> ARRAY[%(id)s]::bigint[] ORDER BY id LIMIT 10
"""


async def detail(connection: Connection, row_id: int) -> Detail | None:
    """Everything about one delivery; None if it no longer exists. Its statements share one round trip."""
    given = {"id": row_id, "chars": ANSWER_CHARS}
    details, attempts, replays, discards = await together(
        connection,
        fetched(connection, _detail, _DETAIL, {"id": row_id, "most": BODY_BYTES}),
        fetched(connection, Try, _TRIES, given, limit=ANSWER_CHARS, texts={"answer"}),
        fetched(connection, Replayed, _REPLAYED, given),
        fetched(connection, Discarded, _DISCARDED, given),
    )
    if not details:
        return None
    found: Detail = details[0]
    is_final = found.row.state in {State.DEAD, State.DISCARDED}
    return replace(
        found,
        attempts=tuple(attempts),
        replays=tuple(replays),
        discards=tuple(discards) if is_final else (),
    )


def _detail(
    *,
    headers: list[list[str]],
    body: bytes,
    body_length: int,
    agent_status: str | None,
    destination: str | None,
    claimed_at: datetime | None,
    **columns: Any,
) -> Detail:
    """A delivery close up, without attempts, replays and discards."""
    kept = shown(tuple((name, value) for name, value in headers))
    return Detail(make_row(**columns), kept, bytes(body), body_length, agent_status, destination, claimed_at)


async def body_of(connection: Connection, row_id: int) -> bytes:
    """The whole body of one delivery, empty if it no longer exists."""
    cursor = await connection.execute("SELECT body FROM relay.deliveries WHERE id = %s", (row_id,))
    row = await cursor.fetchone()
    return bytes(row[0]) if row else b""


async def row_of(connection: Connection, delivery_id: str) -> int | None:
    """The row of a delivery by Chatwoot's id; None if it is not known."""
    cursor = await connection.execute("SELECT id FROM relay.deliveries WHERE delivery_id = %s", (delivery_id,))
    row = await cursor.fetchone()
    return None if row is None else int(row[0])
