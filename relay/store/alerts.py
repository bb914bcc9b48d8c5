"""Recorded alerts: which are active and since when, their transitions as facts, and pending notifications."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.domain.alerts import Acknowledgement, ActiveAlert, Transition, Verdict
from relay.domain.delivery import FactType
from relay.domain.facts import alert_fact
from relay.store import facts
from relay.store.actions import signed
from relay.store.database import rows_of
from relay.store.failures import refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from relay.store.database import Connection

CHANNEL = "relay_alerts"

_ACTIVE = "SELECT rule, since, held_at FROM relay.alerts"


async def active(connection: Connection) -> dict[str, ActiveAlert]:
    """The active alerts, by rule."""
    cursor = await connection.execute(_ACTIVE)
    return {row[0]: ActiveAlert(row[1], row[2]) for row in await cursor.fetchall()}


_ACKNOWLEDGE = "SELECT relay.acknowledge(operator => %s, rule => %s, reason => %s, for_s => %s)"


async def acknowledge(connection: Connection, operator: str, rule: str, reason: str, for_s: float) -> datetime:
    """Acknowledge a rule's alert for `for_s` seconds, in place of an earlier acknowledgement; returns its end.

    Raises:
        Refused: there is no reason, the time is not a positive one of 31 days at most, or this names no rule.
    """
    with refusals():
        row = await (await connection.execute(_ACKNOWLEDGE, (operator, rule, reason, for_s))).fetchone()
    assert row is not None
    until: datetime = row[0]
    return until


_ACKNOWLEDGED = "SELECT rule, operator, login, reason, at, until FROM relay.acknowledgements WHERE until > now()"


async def acknowledged(connection: Connection) -> dict[str, Acknowledgement]:
    """The acknowledgements in force, by rule."""
    cursor = await connection.execute(_ACKNOWLEDGED)
    return {
        rule: Acknowledgement(signed(operator, login), reason, at, until)
        for rule, operator, login, reason, at, until in await cursor.fetchall()
    }


_HOLD = """
    INSERT INTO relay.alerts AS a (rule) SELECT unnest(%s::text[])
    ON CONFLICT (rule) DO UPDATE SET held_at = now()
    RETURNING rule, since, xmax = 0
"""
_END = "DELETE FROM relay.alerts WHERE rule = ANY(%s) RETURNING rule, since"
_NOTICE = "INSERT INTO relay.notices (text, message) VALUES (%s, %s::jsonb)"


@dataclass(frozen=True, slots=True)
class NewNotice:
    """A notification to be sent: as text, and as the data that a channel's own form is made of."""

    text: str
    message: Mapping[str, Any]


async def record(
    connection: Connection,
    verdicts: Sequence[Verdict],
    at: datetime,
    *,
    notices: Callable[[Transition], Sequence[NewNotice]] = lambda _: (),
) -> list[Transition]:
    """Raise and clear alerts as `verdicts` say; returns what has changed.

    Each transition leaves a `support.alert` fact and its `notices`, in one transaction.
    """
    by_rule = {verdict.rule.name: verdict for verdict in verdicts}
    async with connection.transaction():
        cursor = await connection.execute(_HOLD, ([v.rule.name for v in verdicts if v.holds],))
        raised = [
            Transition(by_rule[rule], raised=True, at=at, since=since)
            for rule, since, is_new in await cursor.fetchall()
            if is_new
        ]
        cursor = await connection.execute(_END, ([v.rule.name for v in verdicts if not v.firing],))
        cleared = [
            Transition(by_rule[rule], raised=False, at=at, since=since) for rule, since in await cursor.fetchall()
        ]
        changes = raised + cleared
        if changes:
            await facts.record(connection, [alert_fact(change) for change in changes])
            for notice in (notice for change in changes for notice in notices(change)):
                await connection.execute(_NOTICE, (notice.text, json.dumps(dict(notice.message))))
            await connection.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
    return changes


_ADOPT = """
    INSERT INTO relay.alerts (rule, since, held_at)
    SELECT * FROM unnest(%s::text[], %s::timestamptz[], %s::timestamptz[]) ON CONFLICT DO NOTHING
"""


async def adopt(connection: Connection, changes: Sequence[Transition], active: Mapping[str, ActiveAlert]) -> None:
    """Record what was raised and cleared while Postgres was away: it has been notified already.

    The `active` alerts stay so until their condition has not held for a while, as if they had been recorded then.
    """
    async with connection.transaction():
        await facts.record(connection, [alert_fact(change) for change in changes])
        rows = [(rule, alert.since, alert.held_at) for rule, alert in active.items()]
        if rows:
            await connection.execute(_ADOPT, tuple(list(column) for column in zip(*rows, strict=True)))
        await connection.execute("SELECT pg_notify(%s, '')", (CHANNEL,))


@dataclass(frozen=True, slots=True)
class Raised:
    """One alert that was raised, and when."""

    rule: str
    severity: str
    at: datetime


_RAISED = """
    SELECT value ->> 'rule' AS rule, value ->> 'severity' AS severity, recorded_at AS at FROM dashboard_facts
     WHERE fact_type = %s AND value ->> 'state' = 'raised' AND recorded_at >= %s AND recorded_at <= now()
     ORDER BY recorded_at, id
"""


async def raised_since(connection: Connection, since: datetime) -> list[Raised]:
    """The alerts that were raised since then, oldest first."""
    cursor = await rows_of(connection, Raised).execute(_RAISED, (FactType.ALERT, since))
    return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification that waits to be sent. `tries` counts failed attempts. An earlier version's has no `message`."""

    id: int
    text: str
    tries: int
    message: dict[str, Any] | None = None


_DUE = (
    "SELECT id, text, tries, message FROM relay.notices WHERE sent_at IS NULL AND due_at <= now() ORDER BY id LIMIT 10"
)
_SENT = "UPDATE relay.notices SET sent_at = now() WHERE id = %s"
_AGAIN = "UPDATE relay.notices SET tries = tries + 1, due_at = now() + make_interval(secs => %s) WHERE id = %s"
_DROP = "DELETE FROM relay.notices WHERE id = %s"


async def due(connection: Connection) -> list[Notice]:
    """The notices to be sent now, oldest first."""
    cursor = await rows_of(connection, Notice).execute(_DUE)
    return await cursor.fetchall()


async def sent(connection: Connection, notice: Notice) -> None:
    """Marks a notice as sent."""
    await connection.execute(_SENT, (notice.id,))


async def try_again(connection: Connection, notice: Notice, in_s: float) -> None:
    """Makes a notice due again in `in_s` seconds."""
    await connection.execute(_AGAIN, (in_s, notice.id))


async def drop(connection: Connection, notice: Notice) -> None:
    """Deletes a notice that was tried often enough."""
    await connection.execute(_DROP, (notice.id,))
