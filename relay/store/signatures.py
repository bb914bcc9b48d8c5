"""Signatures of stored webhooks, kept while they are valid: which delivery each belongs to, and their removal.

The statement that stores a delivery also stores its signature (`storing.store`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from relay.domain.delivery import State
from relay.domain.headers import SIGNATURE_HEADER, first_header
from relay.store.database import exact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from relay.domain.delivery import Receipt, Signature
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


_VALID_S = 600
"""A signature's time, from 300 s before its timestamp until it expires: its webhook is received within it."""

_WITH_HEADERS = """
    SELECT DISTINCT ON (r.signature) r.signature, d.delivery_id, d.state
      FROM relay.deliveries d CROSS JOIN LATERAL jsonb_array_elements(d.headers) AS h
      JOIN unnest(%(signatures)s::uuid[], %(values)s::text[]) AS r(signature, value) ON r.value = h ->> 1
     WHERE d.received_at BETWEEN pg_catalog.to_timestamp(%(first)s) AND pg_catalog.to_timestamp(%(last)s)
       AND h ->> 0 = %(header)s
     ORDER BY r.signature, d.id
"""


async def deliveries_with_expired(connection: Connection, receipts: Sequence[Receipt]) -> dict[UUID, tuple[str, State]]:
    """As `deliveries_of`, for those of spooled `receipts` whose signatures have expired since they were received.

    These may have gone from the table, so the headers of what was received at that time are read.
    """
    now = time.time()
    late = [(one.signature, one.headers) for one in receipts if one.signature and one.signature.expires_at <= now]
    if not late:
        return {}
    expiries = [signature.expires_at for signature, _ in late]
    given = {
        "signatures": [signature.key for signature, _ in late],
        "values": [first_header(headers, SIGNATURE_HEADER) for _, headers in late],
        "header": SIGNATURE_HEADER, "first": min(expiries) - _VALID_S - _GRACE_S, "last": max(expiries) + _GRACE_S,
    }  # fmt: skip
    cursor = await exact(connection).execute(_WITH_HEADERS, given)
    return {row[0]: (row[1], State(row[2])) for row in await cursor.fetchall()}


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
