"""Removes headers that need not be kept from deliveries that an earlier version stored, in small batches.

Rows are locked for one short statement, and a row that is locked already is left for the next step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.headers import FORWARDED_PREFIX, KEPT

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.store.database import Connection

BATCH = 500

# Rows are passed in the order of their ids, a minute after they were received: by then every transaction that took a
# lower id has ended.
_SCRUB = """
    WITH progress AS MATERIALIZED (
        SELECT done_to, ends_at FROM relay.header_scrub FOR UPDATE SKIP LOCKED
    ), next AS MATERIALIZED (
        SELECT d.id, d.received_at FROM relay.deliveries d
         WHERE d.id > (SELECT done_to FROM progress) ORDER BY d.id LIMIT %(batch)s
    ), due AS MATERIALIZED (
        SELECT n.id FROM next n
         WHERE n.received_at < least((SELECT ends_at FROM progress), now() - interval '1 minute')
    ), locked AS MATERIALIZED (
        SELECT d.id FROM relay.deliveries d WHERE d.id IN (SELECT id FROM due) FOR NO KEY UPDATE SKIP LOCKED
    ), scrubbed AS (
        UPDATE relay.deliveries d
           SET headers = coalesce((
                   SELECT jsonb_agg(h.header ORDER BY h.n)
                     FROM jsonb_array_elements(d.headers) WITH ORDINALITY AS h(header, n)
                    WHERE h.header ->> 0 = ANY(%(kept)s) OR starts_with(h.header ->> 0, %(prefix)s)), '[]')
         WHERE d.id IN (SELECT id FROM locked)
           AND EXISTS (SELECT FROM jsonb_array_elements(d.headers) AS h(header)
                        WHERE NOT (h.header ->> 0 = ANY(%(kept)s) OR starts_with(h.header ->> 0, %(prefix)s)))
    ), moved AS (
        UPDATE relay.header_scrub
           SET done_to = coalesce((SELECT min(id) - 1 FROM next WHERE id NOT IN (SELECT id FROM locked)),
                                  (SELECT max(id) FROM next))
         WHERE EXISTS (SELECT FROM locked)
        RETURNING done_to
    ), ended AS (
        DELETE FROM relay.header_scrub
         WHERE NOT EXISTS (SELECT FROM due) AND ends_at < now() - interval '1 minute' AND EXISTS (SELECT FROM progress)
    )
    SELECT m.done_to > p.done_to FROM moved m, progress p
"""


async def scrub_headers(connection: Connection, stop: Callable[[], bool] = lambda: False) -> None:
    """Scrub deliveries until none is left that is due and free, or `stop()`."""
    parameters = {"batch": BATCH, "kept": sorted(KEPT), "prefix": FORWARDED_PREFIX}
    while not stop():
        cursor = await connection.execute(_SCRUB, parameters)
        row = await cursor.fetchone()
        if row is None or not row[0]:
            break
