"""What an operator reads before a replay: open plans that hold the same deliveries, and the agent's last outcomes.

It does not freeze or enqueue a replay: that is `relay.store.replays`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.sql import SQL

from relay.domain.delivery import FactType
from relay.store.database import rows_of
from relay.store.replays import PlanState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.database import Connection

LAST = 24
"""The outcomes that are counted."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """A plan that has not ended and how many of the deliveries it still holds. `login` as in `Plan`."""

    plan_id: int
    requested_by: str
    login: str | None
    state: PlanState
    deliveries: int


_OVERLAPS = """
    SELECT p.id AS plan_id, p.requested_by, p.login, p.state, count(*) AS deliveries
      FROM relay.replay_plans p JOIN relay.replay_items i ON i.plan_id = p.id
     WHERE p.state IN ('queued', 'running', 'paused') AND i.state IN ('pending', 'sending')
       AND i.delivery = ANY(%(ids)s)
     GROUP BY p.id ORDER BY p.id LIMIT 20
"""


async def overlaps(connection: Connection, row_ids: Sequence[int]) -> list[Overlap]:
    """Return the plans that will send some of the deliveries too, oldest first. Each delivery is sent once."""
    cursor = await rows_of(connection, _overlap).execute(_OVERLAPS, {"ids": list(row_ids)})
    return await cursor.fetchall()


def _overlap(*, plan_id: int, requested_by: str, login: str | None, state: str, deliveries: int) -> Overlap:
    return Overlap(plan_id, requested_by, login, PlanState(state), deliveries)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many of the `total` last runs, replays included and tests excluded, ended `delivered`."""

    delivered: int
    total: int


_OF_TYPE = SQL("""
    (SELECT f.recorded_at, coalesce(relay.json_or_null(f.value) ->> 'success', '') = 'true' AS delivered
       FROM dashboard_facts f
      WHERE f.fact_type = {fact_type} AND f.recorded_at > now() - interval '1 day'
        AND f.recorded_at <= now()
        AND coalesce(relay.json_or_null(f.metadata) ->> 'test', '') <> 'true'
      ORDER BY f.recorded_at DESC LIMIT %(last)s)
""")
_OUTCOMES = SQL("""
    SELECT count(*) FILTER (WHERE delivered) AS delivered, count(*) AS total
      FROM (SELECT delivered FROM ({webhooks} UNION ALL {replays}) AS newest
             ORDER BY recorded_at DESC LIMIT %(last)s) AS last
""").format(
    webhooks=_OF_TYPE.format(fact_type=FactType.RETRY.value), replays=_OF_TYPE.format(fact_type=FactType.REPLAY.value)
)


async def last_outcomes(connection: Connection, last: int = LAST) -> Outcomes:
    """Return the outcomes of the `last` runs of one day, at most: what the agent does with deliveries now."""
    cursor = await rows_of(connection, Outcomes).execute(_OUTCOMES, {"last": last})
    found = await cursor.fetchone()
    return found or Outcomes(0, 0)
