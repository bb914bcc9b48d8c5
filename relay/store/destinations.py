"""Destinations: the Agent SDKs that deliveries were accepted for, those without a live relay, and redirects.

A destination is what its relays report as their `agent`. It is gone once it has had no live relay for a minute
(DESIGN, 1.2): what waits for it then shows that as the reason and delays no other delivery.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg.sql import SQL

from relay.store.database import rows_of
from relay.store.failures import refusals
from relay.store.instances import DOWN_AFTER_S, HEARD_AT

if TYPE_CHECKING:
    from uuid import UUID

    from psycopg.sql import Composed

    from relay.store.database import Connection

_BATCH = 1_000

_IS_GONE = SQL("""
    NOT EXISTS (SELECT FROM relay.instances WHERE agent = {destination}
                   AND {heard_at} > now() - make_interval(secs => {down_s}))
""")


def is_gone(destination: SQL) -> Composed:
    """SQL: whether the destination that an expression names has had no live relay for a minute."""
    return _IS_GONE.format(destination=destination, heard_at=HEARD_AT, down_s=SQL(str(DOWN_AFTER_S)))


# Steps from one destination to the next along an index, however many deliveries wait for each.
_WAITED_FOR = SQL("""
    WITH RECURSIVE waited AS (
        (SELECT coalesce(d.destination, '') AS destination FROM relay.deliveries d
          WHERE d.state IN ('received', 'waiting') AND coalesce(d.destination, '') > ''
          ORDER BY coalesce(d.destination, '') LIMIT 1)
        UNION ALL
        SELECT (SELECT coalesce(d.destination, '') FROM relay.deliveries d
                 WHERE d.state IN ('received', 'waiting') AND coalesce(d.destination, '') > w.destination
                 ORDER BY coalesce(d.destination, '') LIMIT 1)
          FROM waited w WHERE w.destination IS NOT NULL
    )
""")
_MARKED = SQL("""
    SELECT d.received_at FROM relay.deliveries d
     WHERE d.state IN ('received', 'waiting') AND coalesce(d.destination, '') = w.destination
       AND CASE WHEN d.waits = 'destination' THEN 1 ELSE 0 END = 1
     ORDER BY d.received_at LIMIT 1
""")
_UPDATE = SQL("""
    {waited}, held AS (
        SELECT DISTINCT d.destination FROM relay.deliveries d WHERE d.state = 'forwarding' AND d.destination IS NOT NULL
    ), every AS MATERIALIZED (
        SELECT w.destination,
               {gone} AND w.destination IS DISTINCT FROM (SELECT i.agent FROM relay.instances i
                                                           WHERE i.id = %(owner)s) AS gone
          FROM (SELECT destination FROM waited WHERE destination IS NOT NULL UNION SELECT destination FROM held) AS w
    )
    SELECT w.destination, w.gone FROM every w WHERE w.gone OR EXISTS ({marked})
""").format(waited=_WAITED_FOR, marked=_MARKED, gone=is_gone(SQL("w.destination")))
_RELEASE = "SELECT relay.release_destination(%(destination)s, %(most)s)"
_RESTORE = "SELECT relay.restore_destination(%(destination)s, %(most)s)"


async def refresh(connection: Connection, owner: UUID | None = None, *, releases: bool = True) -> None:
    """Mark and release what waits for a destination that is gone; put back what waits for one that is not.

    The destination of the relay `owner`, which calls this, is not gone. Without `releases` nothing is marked. What
    another session holds is left for the next time.
    """
    for destination, gone in await (await connection.execute(_UPDATE, {"owner": owner})).fetchall():
        if releases or not gone:
            with suppress(psycopg.errors.LockNotAvailable):
                await connection.execute(_RELEASE if gone else _RESTORE, {"destination": destination, "most": _BATCH})


@dataclass(frozen=True, slots=True)
class Gone:
    """A destination without a live relay that deliveries wait for, and the age of the oldest of them."""

    destination: str
    oldest_s: float


GONE = SQL("""
    {waited}
    SELECT w.destination, extract(epoch FROM greatest(now(), o.received_at) - o.received_at)::float8 AS oldest_s
      FROM waited w CROSS JOIN LATERAL ({marked}) AS o WHERE w.destination IS NOT NULL ORDER BY o.received_at LIMIT 16
""").format(waited=_WAITED_FOR, marked=_MARKED)


async def gone(connection: Connection) -> list[Gone]:
    """The destinations that deliveries wait for because no live relay forwards to them, longest first."""
    return await (await rows_of(connection, Gone).execute(GONE)).fetchall()


_WAITING = """
    SELECT count(*) FROM relay.deliveries d
     WHERE d.state IN ('received', 'waiting') AND coalesce(d.destination, '') = %s
"""
_IS_LIVE = SQL("SELECT NOT ({})").format(is_gone(SQL("%s")))


async def waiting(connection: Connection, destination: str) -> int:
    """How many deliveries wait and are for `destination`."""
    row = await (await connection.execute(_WAITING, (destination,))).fetchone()
    return int(row[0]) if row else 0


async def is_live(connection: Connection, destination: str) -> bool:
    """True if a relay forwards to `destination`, or did a minute ago."""
    row = await (await connection.execute(_IS_LIVE, (destination,))).fetchone()
    return bool(row and row[0])


_ASK = "SELECT relay.ask_redirect(operator => %s, reason => %s, origin => %s, target => %s)"
_REDIRECT = "SELECT relay.redirect(%s, %s)"


async def redirect(connection: Connection, operator: str, reason: str, origin: str, target: str) -> int:
    """Move what waits for `origin` to `target`, in batches, and record who asked. Returns how many were moved.

    Raises:
        Refused: the two destinations are the same.
    """
    with refusals():
        action = await (await connection.execute(_ASK, (operator, reason, origin, target))).fetchone()
    assert action is not None
    moved = 0
    while True:
        row = await (await connection.execute(_REDIRECT, (action[0], _BATCH))).fetchone()
        if row is None or not row[0]:
            return moved
        moved += int(row[0])
