"""The audit: what operators did, and what they ask the relay to do about dead letters. Rows of it never change."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.store.database import as_object, rows_of
from relay.store.failures import refusals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from relay.store.database import Connection


def signed(operator: str, login: str | None) -> str:
    """`operator`, a name that they chose, with the database login beside it where the two differ."""
    return operator if login in {None, operator} else f"{operator} (login: {login})"


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """One thing that an operator did. `result` is what a relay made of it, where it had to do something.

    `login` is the database login of the session, None of an action from before logins were recorded.
    """

    id: int
    at: datetime
    operator: str
    login: str | None
    action: str
    plan_id: int | None
    reason: str
    details: dict[str, Any]
    result: dict[str, Any] | None

    @property
    def who(self) -> str:
        """The operator, with the login where it differs."""
        return signed(self.operator, self.login)


_NEWEST = """
    SELECT a.id, a.at, a.operator, a.login, a.action, a.plan_id, a.reason, a.details,
           coalesce(d.result, a.result) AS result
      FROM relay.operator_actions a LEFT JOIN relay.discards d ON d.action = a.id
     ORDER BY a.id DESC LIMIT %s
"""


async def newest(connection: Connection, limit: int) -> list[OperatorAction]:
    """The newest actions, newest first."""
    cursor = await rows_of(connection, _action).execute(_NEWEST, (limit,))
    return await cursor.fetchall()


def _action(*, details: Any, result: Any, **columns: Any) -> OperatorAction:
    done = None if result is None else as_object(result)
    return OperatorAction(details=as_object(details), result=done, **columns)


_RECORD = "SELECT relay.record_action(operator => %s, action => %s, reason => %s, details => %s::jsonb)"


async def record(
    connection: Connection, operator: str, action: str, reason: str, details: Mapping[str, object]
) -> None:
    """Record something that was done and asks nothing of a relay.

    Raises:
        Refused: the audit has no such action, or the details are too long.
    """
    with refusals():
        await connection.execute(_RECORD, (operator, action, reason, json.dumps(dict(details), default=str)))


_DISCARD = "SELECT relay.ask_discard(deliveries => %s::bigint[], operator => %s, reason => %s)"


async def discard(connection: Connection, row_ids: Sequence[int], operator: str, reason: str) -> None:
    """Ask the relay to discard dead letters; those that are none any more are left as they are.

    Raises:
        Refused: a delivery does not exist, or is named twice.
    """
    with refusals():
        await connection.execute(_DISCARD, (list(row_ids), operator, reason))
