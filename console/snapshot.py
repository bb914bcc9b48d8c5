"""One read transaction, one frozen `Snapshot`: all that the screens show of the database at one moment.

Text that came from outside is cleaned here, where rows leave the database. Knows no widget; the SQL is the
store's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import psycopg

from console.clean import clean
from relay.store import browse, overview
from relay.store.database import one_moment

if TYPE_CHECKING:
    from datetime import timedelta

    from relay.store.browse import Group
    from relay.store.database import Connection
    from relay.store.log import LogLine
    from relay.store.overview import Overview
    from relay.store.replays import Plan

TAIL_LINES = 40
_PLANS = 8


class Reading(Protocol):
    """What the view in front wants read in the same transaction. Readings that are equal read the same."""

    async def read(self, connection: Connection) -> object:
        """Read it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The database at one moment. `read_at` is `time.monotonic()`, `took_ms` what reading it took.

    `view` is what `reading` gave. `plans` are the newest ones, newest first. `tail` are the newest lines of the
    forwarding log, oldest first, with ids.
    """

    overview: Overview
    groups: list[Group]
    plans: list[Plan]
    tail: list[tuple[int, LogLine]]
    reading: Reading | None
    view: object
    read_at: float
    took_ms: float


async def read(connection: Connection, reading: Reading | None, *, minutes_of: timedelta) -> Snapshot:
    """Read a snapshot, in one transaction.

    Raises:
        psycopg.Error: Postgres is away, or took longer than the connection's `statement_timeout`.
    """
    began = time.perf_counter()
    async with one_moment(connection):
        state = await overview.read_within(connection, minutes_of=minutes_of)
        groups = await browse.groups(connection)
        plans = await browse.plans(connection, _PLANS)
        tail = await browse.log_before(connection, None, TAIL_LINES)
        view = None if reading is None else await _within_time(connection, reading)
    return Snapshot(
        overview=state,
        groups=[clean_group(group) for group in groups],
        plans=[clean_plan(plan) for plan in plans],
        tail=[(line_id, clean_line(line)) for line_id, line in tail],
        reading=reading,
        view=view,
        read_at=time.monotonic(),
        took_ms=(time.perf_counter() - began) * 1000,
    )


@dataclass(frozen=True, slots=True)
class TooSlow:
    """What a view gets in place of what it wanted read, when that took longer than a statement may."""


async def _within_time(connection: Connection, reading: Reading) -> object:
    """What `reading` gives; a search through too much spoils nothing else that is read."""
    try:
        async with connection.transaction():
            return await reading.read(connection)
    except psycopg.errors.QueryCanceled:
        return TooSlow()


def clean_group(group: Group) -> Group:
    """`group` as it may be shown; its events only, for status and error are the relay's own words."""
    return replace(group, events=tuple(clean(event, limit=60) for event in group.events))


def clean_plan(plan: Plan) -> Plan:
    """`plan` as it may be shown: who asked, why, and for what, are people's own text."""
    return replace(
        plan,
        requested_by=clean(plan.requested_by, limit=60),
        reason=clean(plan.reason, limit=200),
        filter=clean(plan.filter, limit=200),
    )


def clean_line(line: LogLine) -> LogLine:
    """A log line as it may be shown."""
    fields = {
        clean(key, limit=60): clean(value, limit=300) if isinstance(value, str) else value
        for key, value in line.fields.items()
    }
    return replace(line, message=clean(line.message, limit=300), fields=fields, level=clean(line.level, limit=20))
