"""One read transaction, one frozen `Snapshot`: all that the screens show of the database at one moment.

Text that came from outside is clean already: the store cleans every row. Knows no widget; the SQL is the store's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import psycopg

from console.data.log_entry import entry_of
from relay.store import browse, overview, replays
from relay.store.database import one_moment
from relay.text import clean

if TYPE_CHECKING:
    from datetime import timedelta

    from console.data.log_entry import Entry
    from relay.store.browse import Group
    from relay.store.database import Connection
    from relay.store.overview import Overview
    from relay.store.replays import Plan

TAIL_LINES = 40
_PLANS = 8
_REST = 10
"""A slow reading of a view rests for so many times as long as it took, so that a search does not overload Postgres."""


class Reading(Protocol):
    """What the view in front wants read in the same transaction. Readings that are equal read the same."""

    async def read(self, connection: Connection) -> object:
        """Read it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The database at one moment. `read_at` is `time.monotonic()`, `took_ms` what reading it took.

    `view` is what `reading` gave. `plans` are the newest ones, newest first. `tail` are the newest lines of the
    forwarding log, oldest first.
    """

    overview: Overview
    groups: list[Group]
    plans: list[Plan]
    tail: list[Entry]
    reading: Reading | None
    seen: Seen
    read_at: float
    took_ms: float

    @property
    def view(self) -> object:
        """What `reading` gave."""
        return self.seen.view

    @property
    def view_age_s(self) -> float:
        """How much older than all else what the view wanted is: it may rest after it took long."""
        return self.read_at - self.seen.read_at


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reading gave, when (`time.monotonic()`), and how long it took."""

    view: object
    read_at: float
    took_s: float


async def read(
    connection: Connection,
    reading: Reading | None,
    *,
    minutes_of: timedelta,
    watched: int | None = None,
    last: Snapshot | None = None,
) -> Snapshot:
    """Read a snapshot, in one transaction. What `reading` wants is taken from the `last` one while it rests.

    `watched` is a plan that is read however old it is.

    Raises:
        psycopg.Error: Postgres is away, or took longer than the connection's `statement_timeout`.
    """
    began = time.perf_counter()
    async with one_moment(connection):
        state = await overview.read_within(connection, minutes_of=minutes_of)
        groups = await browse.groups(connection)
        plans = await browse.plans(connection, _PLANS)
        if watched is not None and all(plan.id != watched for plan in plans):
            older = await replays.plan(connection, watched)
            plans += [] if older is None else [older]
        tail = await browse.log_before(connection, None, TAIL_LINES)
        resting = last is not None and last.reading == reading and _rests(last.seen)
        seen = last.seen if last is not None and resting else await _see(connection, reading)
    return Snapshot(
        overview=state,
        groups=groups,
        plans=[short_plan(plan) for plan in plans],
        tail=[entry_of(line_id, line) for line_id, line in tail],
        reading=reading,
        seen=seen,
        read_at=time.monotonic(),
        took_ms=(time.perf_counter() - began) * 1000,
    )


@dataclass(frozen=True, slots=True)
class TooSlow:
    """What a view gets in place of what it wanted read, when that took longer than a statement may."""


def _rests(seen: Seen) -> bool:
    return time.monotonic() - seen.read_at < _REST * seen.took_s


async def _see(connection: Connection, reading: Reading | None) -> Seen:
    """What `reading` gives; a search through too much spoils nothing else that is read."""
    began, view = time.monotonic(), None
    if reading is not None:
        try:
            async with connection.transaction():
                view = await reading.read(connection)
        except psycopg.errors.QueryCanceled:
            view = TooSlow()
    ended = time.monotonic()
    return Seen(view, read_at=ended, took_s=ended - began)


def short_plan(plan: Plan) -> Plan:
    """`plan` with what people wrote into it cut to what a line has room for."""
    return replace(
        plan,
        requested_by=clean(plan.requested_by, limit=60),
        login=None if plan.login is None else clean(plan.login, limit=60),
        reason=clean(plan.reason, limit=200),
        filter=clean(plan.filter, limit=200),
        stopped_why=None if plan.stopped_why is None else clean(plan.stopped_why, limit=200),
    )
