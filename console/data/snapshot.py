"""Reads one frozen `Snapshot` in one transaction: all that the screens show of the database at one moment.

The store cleans every row, so text from outside is already safe. This module knows no widget and holds no SQL.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import psycopg

from console.data.log_entry import entry_of
from relay.incident.headline import headline
from relay.incident.state import state_of
from relay.store import browse, log, overview, replays
from relay.store.round_trip import clock_s, together
from relay.text import clean

if TYPE_CHECKING:
    from datetime import timedelta

    from console.data.log_entry import Entry
    from relay.incident.cause import Headline
    from relay.store.browse import Group
    from relay.store.database import Connection
    from relay.store.overview import Overview
    from relay.store.replays import Plan

TAIL_LINES = 40
_REST = 10
"""A slow reading is skipped for so many times as long as it took, so that a search does not overload Postgres."""


class Reading(Protocol):
    """What the view in front reads in the same transaction, by statements that it sends at once.

    Equal readings return the same rows.
    """

    async def read(self, connection: Connection) -> object:
        """Read it and return the result."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The database at one moment. `headline` names the cause. `read_at` is `time.monotonic()`; `took_ms` is how long
    the read took.

    `view` is the result of `reading`. `plans` holds the newest plans, newest first. `tail` holds the newest lines of
    the forwarding log, oldest first.
    """

    overview: Overview
    headline: Headline
    groups: list[Group]
    plans: list[Plan]
    tail: list[Entry]
    reading: Reading | None
    seen: Seen
    read_at: float
    took_ms: float

    @property
    def view(self) -> object:
        """The result of `reading`."""
        return self.seen.view

    @property
    def view_age_s(self) -> float:
        """Seconds by which `view` is older than the rest: a slow reading is not repeated every tick."""
        return self.read_at - self.seen.read_at


@dataclass(frozen=True, slots=True)
class Seen:
    """The result of a reading, when it ended (`time.monotonic()`), and how long it took Postgres."""

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
    """Read a snapshot in one transaction and one round trip.

    While `reading` is skipped, its result is taken from the `last` snapshot.

    `watched` is the id of a plan that is read even if it is not among the newest.

    Raises:
        psycopg.Error: Postgres is away, or took longer than the connection's `statement_timeout`.
    """
    began = time.perf_counter()
    is_resting = last is not None and last.reading == reading and _rests(last.seen)
    state, groups, plans, tail, older, seen = await together(
        connection,
        overview.read_within(connection, minutes_of=minutes_of),
        browse.groups(connection),
        browse.plans(connection),
        log.before(connection, None, TAIL_LINES),
        _watched(connection, watched),
        _see(connection, None if is_resting else reading),
        one_moment=True,
    )
    if older is not None and all(plan.id != older.id for plan in plans):
        plans.append(older)
    if last is not None and is_resting:
        seen = last.seen
    return Snapshot(
        overview=state,
        headline=headline(state_of(state, groups, plans)),
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
    """Takes the place of a reading's result if the reading exceeded `statement_timeout`."""


def _rests(seen: Seen) -> bool:
    return time.monotonic() - seen.read_at < _REST * seen.took_s


async def _watched(connection: Connection, plan_id: int | None) -> Plan | None:
    return None if plan_id is None else await replays.plan(connection, plan_id)


async def _see(connection: Connection, reading: Reading | None) -> Seen:
    """Return the result of `reading`. It is the last one to ask: a search that is too slow fails for itself alone."""
    if reading is None:
        return Seen(None, read_at=time.monotonic(), took_s=0.0)
    began = time.monotonic()
    try:
        before_s, view, after_s = await together(
            connection, clock_s(connection), reading.read(connection), clock_s(connection)
        )
    except psycopg.errors.QueryCanceled:
        ended = time.monotonic()
        return Seen(TooSlow(), read_at=ended, took_s=ended - began)
    return Seen(view, read_at=time.monotonic(), took_s=after_s - before_s)


def short_plan(plan: Plan) -> Plan:
    """Return `plan` with its free texts cut to what a line has room for."""
    return replace(
        plan,
        requested_by=clean(plan.requested_by, limit=60),
        paused_by=None if plan.paused_by is None else clean(plan.paused_by, limit=60),
        login=None if plan.login is None else clean(plan.login, limit=60),
        reason=clean(plan.reason, limit=200),
        filter=clean(plan.filter, limit=200),
        stopped_why=None if plan.stopped_why is None else clean(plan.stopped_why, limit=200),
    )
