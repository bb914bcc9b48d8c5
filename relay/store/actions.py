"""The audit: what operators did, and what they ask the relay to do about dead letters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.store.database import as_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from relay.store.database import Connection


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """One thing somebody did. `result` is what a relay made of it, where it had to do something."""

    id: int
    at: datetime
    operator: str
    action: str
    plan_id: int | None
    reason: str
    details: dict[str, Any]
    result: dict[str, Any] | None


_NEWEST = """
    SELECT id, at, operator, action, plan_id, reason, details, result FROM relay.operator_actions
     ORDER BY id DESC LIMIT %s
"""


async def newest(connection: Connection, limit: int) -> list[OperatorAction]:
    """The newest actions, newest first."""
    cursor = await connection.execute(_NEWEST, (limit,))
    return [_action(row) for row in await cursor.fetchall()]


def _action(row: Sequence[Any]) -> OperatorAction:
    action_id, at, operator, action, plan_id, reason, details, result = row
    done = None if result is None else as_object(result)
    return OperatorAction(action_id, at, operator, action, plan_id, reason, as_object(details), done)


_RECORD = "INSERT INTO relay.operator_actions (operator, action, reason, details) VALUES (%s, %s, %s, %s::jsonb)"


async def record(
    connection: Connection, operator: str, action: str, reason: str, details: Mapping[str, object]
) -> None:
    """Leave a trace of something that was done."""
    await connection.execute(_RECORD, (operator, action, reason, json.dumps(dict(details), default=str)))


_DISCARD = """
    INSERT INTO relay.operator_actions (operator, action, deliveries, reason)
    VALUES (%s, 'discard', %s::bigint[], %s)
"""


async def discard(connection: Connection, row_ids: Sequence[int], operator: str, reason: str) -> None:
    """Ask the relay to discard dead letters; those that are none any more are left as they are."""
    await connection.execute(_DISCARD, (operator, list(row_ids), reason))
