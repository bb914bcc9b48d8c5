"""The Agent SDK's outages, as its health probes saw them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.domain.delivery import FactType
from relay.store.database import rows_of

if TYPE_CHECKING:
    from datetime import datetime

    from relay.store.database import Connection

_LAST = """
    WITH probes AS (
        SELECT recorded_at AS at, coalesce(value ->> 'ok', '') = 'true' AS ok FROM dashboard_facts
         WHERE fact_type = %(health)s AND value ->> 'target' = 'agent'
           AND recorded_at > now() - interval '6 hours' AND recorded_at <= now()
    ), failed AS (
        SELECT max(at) AS at FROM probes WHERE NOT ok
    ), well_before AS (
        SELECT max(p.at) AS at FROM probes p, failed WHERE p.ok AND p.at < failed.at
    ), began AS (
        SELECT min(p.at) AS at FROM probes p, well_before
         WHERE NOT p.ok AND p.at > coalesce(well_before.at, '-infinity')
    )
    SELECT began.at AS began_at, coalesce(well_before.at, began.at) AS well_at, failed.at AS failed_at,
           (SELECT count(*) FROM probes p WHERE p.ok AND p.at > failed.at) AS well_since
      FROM began, well_before, failed WHERE began.at IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Outage:
    """From the first probe that failed to the last one.

    `well_at` is the last good probe before it: what died since then may have died of it. `well_since` counts
    the good probes after it.
    """

    began_at: datetime
    well_at: datetime
    failed_at: datetime
    well_since: int


async def last(connection: Connection) -> Outage | None:
    """The last outage within six hours, over or not; None if there was none."""
    cursor = await rows_of(connection, Outage).execute(_LAST, {"health": FactType.HEALTH})
    return await cursor.fetchone()
