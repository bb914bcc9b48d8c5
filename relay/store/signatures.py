"""Signatures of stored webhooks, kept while they are valid: which delivery each belongs to, and their removal.

The statement that stores a delivery also stores its signature (`storing.store`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.delivery import State
from relay.store.database import exact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from relay.domain.delivery import Signature
    from relay.store.database import Connection

BATCH = 1_000
_GRACE_S = 300
"""A relay's clock, which decides whether a signature is valid, may be this far behind the database's."""

_DELIVERIES = """
    SELECT s.signature, s.delivery_id, d.state
      FROM unnest(%s::uuid[], %s::bigint[]) AS r(signature, expires_at)
      JOIN relay.signatures s ON s.expires_at = pg_catalog.to_timestamp(r.expires_at) AND s.signature = r.signature
      LEFT JOIN relay.deliveries d ON d.delivery_id = s.delivery_id
"""


async def deliveries_of(connection: Connection, signatures: Sequence[Signature]) -> dict[UUID, tuple[str, State]]:
    """Id and state of the delivery that each of the `signatures` was stored with, by their keys, as far as known.

    A delivery that retention has removed counts as delivered.
    """
    keys, expiries = [one.key for one in signatures], [one.expires_at for one in signatures]
    cursor = await exact(connection).execute(_DELIVERIES, (keys, expiries))
    return {row[0]: (row[1], State(row[2] or State.DELIVERED)) for row in await cursor.fetchall()}


_EXPIRED = """
    DELETE FROM relay.signatures WHERE (expires_at, signature) IN (
        SELECT expires_at, signature FROM relay.signatures
         WHERE expires_at < now() - make_interval(secs => %(grace_s)s)
         ORDER BY expires_at, signature LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
"""


async def remove_expired(connection: Connection, stop: Callable[[], bool] = lambda: False) -> int:
    """Delete signatures that are no longer valid, batch by batch, until none is left or `stop()`. Returns how many."""
    removed = 0
    while not stop():
        cursor = await connection.execute(_EXPIRED, {"grace_s": _GRACE_S, "batch": BATCH})
        removed += cursor.rowcount
        if cursor.rowcount < BATCH:
            break
    return removed
