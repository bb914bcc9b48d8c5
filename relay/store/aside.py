"""`relay.facts_aside`: facts that `dashboard_facts` refused or did not take in time, and their way back into it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.store.database import time_limit
from relay.store.refusal import MOST_COUNTED

if TYPE_CHECKING:
    from relay.store.database import Connection

_BATCH = 100
_BATCH_LIMIT_MS = 2_000
_ONE_LIMIT_MS = 2_000
_ROUND_S = 20.0
_MOST_CUT = 5

_WAITING = """
    SELECT count(*), extract(epoch FROM now() - min(at))::float8,
           (array_agg(reason ORDER BY id DESC) FILTER (WHERE refused))[1],
           (array_agg(reason ORDER BY id DESC) FILTER (WHERE reason IS NOT NULL))[1]
      FROM (SELECT id, at, refused, reason FROM relay.facts_aside
             WHERE refused OR at < now() - interval '60 s' ORDER BY id LIMIT %s) AS aside
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Facts that wait aside: those refused, and those that have been late for a minute.

    `facts` counts up to `MOST_COUNTED`; `oldest_s` is the age of the oldest in seconds. `reason` is the newest
    refusal, an SQLSTATE and names, for `relay.store.refusal.explain`.
    """

    facts: int
    oldest_s: float
    reason: str | None


async def waiting(connection: Connection) -> Waiting | None:
    """What waits aside, or None if nothing does."""
    cursor = await connection.execute(_WAITING, (MOST_COUNTED,))
    facts, oldest_s, refusal, delay = await cursor.fetchone() or (0, 0.0, None, None)
    return Waiting(facts, oldest_s, refusal or delay) if facts else None


@dataclass(frozen=True, slots=True)
class Restored:
    """What one round of `restore` did. `caught_up` is True if no fact is left that was not tried."""

    moved: int
    refused: int
    late: int
    caught_up: bool
    reason: str | None


_RESTORE = "SELECT moved, refused, late, cut, reason FROM relay.restore_facts(%s)"


async def restore(connection: Connection, *, one_by_one: bool = False) -> Restored:
    """Move facts into `dashboard_facts`, in batches of 100, until none is due or 20 s have passed.

    A fact that does not go over is due again a minute later. A batch that takes too long goes over fact by fact.
    `one_by_one` moves single facts in random order, for after a round that lost its connection: if a fact ended it,
    those before that fact go over, and each round has others before it. Several relays may do so at once.
    """
    ends = time.monotonic() + _ROUND_S
    moved = refused = late = cuts = 0
    reason: str | None = None
    most = -1 if one_by_one else _BATCH
    left_of_cut = 0
    while time.monotonic() < ends and cuts < _MOST_CUT:
        async with time_limit(connection, _BATCH_LIMIT_MS if most == _BATCH else _ONE_LIMIT_MS):
            cursor = await connection.execute(_RESTORE, (most,))
        row = await cursor.fetchone()
        assert row is not None
        went, was_refused, was_late, cut, why = row
        moved, refused, late, reason = moved + went, refused + was_refused, late + was_late, why or reason
        if cut:
            most, left_of_cut = 1, _BATCH
            continue
        if went + was_refused + was_late < abs(most):
            return Restored(moved, refused, late, caught_up=True, reason=reason)
        if most == 1:
            cuts += why is not None and why.startswith("57014")
            left_of_cut -= 1
            most = 1 if left_of_cut else _BATCH
    return Restored(moved, refused, late, caught_up=False, reason=reason)
