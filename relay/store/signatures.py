"""Signatures of stored webhooks, kept while they are valid: which delivery each belongs to, and their removal.

The statement that stores a delivery also stores its signature (`deliveries.store`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.delivery import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from relay.store.database import Connection

BATCH = 1_000
_GRACE_S = 300
"""A relay's clock, which decides whether a signature is valid, may be this far behind the database's."""

_DELIVERIES = """
    SELECT s.signature, s.delivery_id, d.state
      FROM relay.signatures s LEFT JOIN relay.deliveries d ON d.delivery_id = s.delivery_id
     WHERE s.signature = ANY(%s)
"""


async def deliveries_of(connection: Connection, keys: Sequence[UUID]) -> dict[UUID, tuple[str, State]]:
    """Id and state of the delivery that each of the signatures `keys` was stored with, as far as they are known.

    A delivery that retention has removed counts as delivered.
    """
    cursor = await connection.execute(_DELIVERIES, (list(keys),))
    return {row[0]: (row[1], State(row[2] or State.DELIVERED)) for row in await cursor.fetchall()}


_EXPIRED = """
    DELETE FROM relay.signatures WHERE signature IN (
        SELECT signature FROM relay.signatures WHERE expires_at < now() - make_interval(secs => %(grace_s)s)
         ORDER BY expires_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
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
