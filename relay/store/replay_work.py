"""What a relay does with a replay plan: claims it, takes its items, counts failures, settles it.

Operators' side (request, pause, stop, read) is in `relay.store.replays`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.sql import SQL, Literal

from relay.store.claims import claimed_columns, own_agent, read_claimed
from relay.store.database import exact_rows_of, rows_of
from relay.store.destinations import is_gone
from relay.store.replays import (
    AUTOMATIC,
    LEAST_RATE,
    MOST_RATE,
    Asked,
    Control,
    Plan,
    PlanState,
    notify,
    plan_columns,
    plan_of_row,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.database import Connection
    from relay.store.deliveries import Claimed


_LAST_CONTROL = SQL("""
    LEFT JOIN LATERAL (
        SELECT a.action, a.operator, a.login FROM relay.operator_actions a
        WHERE a.plan_id = p.id AND a.action IN ('replay.pause', 'replay.resume', 'replay.stop')
        ORDER BY a.id DESC LIMIT 1) AS c ON true
""")
# A relay sends what was accepted for its own Agent SDK. What was accepted for one that no live relay forwards to is
# sent by any, if an operator asked for it. An item that is to be skipped is any relay's.
_MINE = SQL("""
    (d.id IS NULL OR d.state <> 'dead' OR d.run <> i.run OR d.destination IS NULL OR d.destination = {agent}
     OR p.requested_by <> {automatic} AND {gone})
""").format(agent=own_agent, automatic=Literal(AUTOMATIC), gone=is_gone(SQL("d.destination")))
_CLAIM = SQL("""
    UPDATE relay.replay_plans p
       SET started_at = coalesce(p.started_at, now()),
           (total, state, owner, stopped_why, finished_at) = (
               SELECT items.n, CASE WHEN fault.why IS NULL THEN 'running' ELSE 'stopped' END,
                      CASE WHEN fault.why IS NULL THEN %(owner)s::uuid END, fault.why,
                      CASE WHEN fault.why IS NOT NULL THEN now() END
                 FROM (SELECT count(*) AS n FROM relay.replay_items i WHERE i.plan_id = p.id) AS items,
              LATERAL (SELECT CASE
                           WHEN p.edited_body IS NOT NULL AND items.n > 1
                           THEN format('it has one edited body for %%s deliveries', items.n)
                           WHEN NOT (p.rate >= {least} AND p.rate <= {most})
                           THEN 'its rate is not from {least} to {most} a second' END AS why) AS fault)
     WHERE p.id = (
        SELECT p.id FROM relay.replay_plans p
          {last_control}
         WHERE p.state IN ('queued', 'running', 'paused') AND p.id <> ALL(%(working)s)
           AND (coalesce((SELECT o.lease_until FROM relay.instances o WHERE o.id = p.owner), '-infinity') < now()
                OR p.owner = %(owner)s)
           AND (p.state <> 'paused' OR c.action IS DISTINCT FROM 'replay.pause')
           AND (NOT EXISTS (SELECT FROM relay.replay_items i WHERE i.plan_id = p.id AND i.state = 'pending')
                OR EXISTS (SELECT FROM relay.replay_items i LEFT JOIN relay.deliveries d ON d.id = i.delivery
                            WHERE i.plan_id = p.id AND i.state = 'pending' AND {mine}))
         ORDER BY p.id LIMIT 1 FOR UPDATE OF p SKIP LOCKED)
    RETURNING {columns}
""").format(
    columns=plan_columns,
    last_control=_LAST_CONTROL,
    mine=_MINE,
    least=SQL(str(LEAST_RATE)),
    most=SQL(str(MOST_RATE)),
)


async def claim(connection: Connection, owner: UUID, *, working: Sequence[int]) -> Plan | None:
    """Claim the oldest plan that waits: queued, resumed or stopped after a pause, left by a dead relay, or
    `owner`'s own. None that it is `working` on, even if its own lease has run out in the meantime.

    A plan that can never be sent as it is comes back `stopped`, with the reason.
    """
    given = {"owner": owner, "working": list(working)}
    cursor = await rows_of(connection, plan_of_row).execute(_CLAIM, given)
    return await cursor.fetchone()


_CHECK = SQL("""
    SELECT p.owner = %(owner)s AS is_owner, c.action AS asked, c.operator AS asked_by, c.login AS asked_login,
           {columns}
      FROM relay.replay_plans p {last_control} WHERE p.id = %(plan)s
""").format(columns=plan_columns, last_control=_LAST_CONTROL)


async def check(connection: Connection, plan_id: int, owner: UUID) -> tuple[Plan, Asked | None] | None:
    """The plan and what an operator last asked of it; None if `owner` does not have it any more."""
    cursor = await rows_of(connection, _checked).execute(_CHECK, {"owner": owner, "plan": plan_id})
    return await cursor.fetchone()


def _checked(
    *, is_owner: bool | None, asked: str | None, asked_by: str, asked_login: str | None, **columns: Any
) -> tuple[Plan, Asked | None] | None:
    if not is_owner:
        return None
    return plan_of_row(**columns), None if asked is None else Asked(Control(asked), asked_by, asked_login)


_NEXT = SQL("""
    WITH next AS (
        SELECT i.position, i.delivery, i.run
          FROM relay.replay_items i JOIN relay.replay_plans p ON p.id = i.plan_id
          LEFT JOIN relay.deliveries d ON d.id = i.delivery
         WHERE i.plan_id = %(plan)s AND i.state = 'pending' AND {mine}
         ORDER BY i.position LIMIT %(most)s FOR UPDATE OF i SKIP LOCKED
    ), free AS MATERIALIZED (
        SELECT d.id FROM next n JOIN relay.deliveries d ON d.id = n.delivery
         WHERE d.run = n.run AND d.state = 'dead' FOR UPDATE OF d SKIP LOCKED
    ), claimed AS (
        UPDATE relay.deliveries d
           SET state = 'forwarding', owner = %(owner)s, claim = gen_random_uuid(), claimed_at = now(),
               run = d.run + 1, plan_id = %(plan)s, finished_at = NULL, conversation_key = NULL, tries = 0,
               spent_ms = 0, waited_ms = 0, destination = coalesce({agent}, d.destination)
          FROM next n JOIN free f ON f.id = n.delivery
         WHERE d.id = f.id
        RETURNING {columns}
    ), marked AS (
        UPDATE relay.replay_items i
           SET state = CASE WHEN c.id IS NULL THEN 'skipped' ELSE 'sending' END,
               settled_at = CASE WHEN c.id IS NULL THEN now() END
          FROM next n LEFT JOIN claimed c ON c.id = n.delivery LEFT JOIN relay.deliveries d ON d.id = n.delivery
         WHERE i.plan_id = %(plan)s AND i.position = n.position
           AND (c.id IS NOT NULL OR (d.run = n.run AND d.state = 'dead') IS NOT TRUE)
        RETURNING i.state
    ), counted AS (
        UPDATE relay.replay_plans p SET skipped = p.skipped + s.skipped
          FROM (SELECT count(*) AS skipped FROM marked WHERE state = 'skipped') s
         WHERE p.id = %(plan)s AND s.skipped > 0
    )
    SELECT (SELECT count(*) FROM marked WHERE state = 'skipped') AS skipped,
           (SELECT count(*) FROM next) - (SELECT count(*) FROM marked) AS held, c.*
      FROM (SELECT 1) AS one
      LEFT JOIN claimed c ON true
""").format(agent=own_agent, columns=claimed_columns, mine=_MINE)


async def claim_next(connection: Connection, plan_id: int, owner: UUID, most: int) -> tuple[list[Claimed], int, int]:
    """Claim up to `most` of the plan's next deliveries.

    Also returns how many had to be skipped instead, and how many another session holds, which stay in the plan. None
    of the three means that nothing is left for this relay to send.
    """
    cursor = await exact_rows_of(connection, dict[str, Any]).execute(
        _NEXT, {"plan": plan_id, "owner": owner, "most": most}
    )
    rows = await cursor.fetchall()
    skipped, held = (rows[0]["skipped"], rows[0]["held"]) if rows else (0, 0)
    return await read_claimed(connection, [row for row in rows if row["id"] is not None]), skipped, held


_LEFT_TO_OTHERS = "SELECT EXISTS (SELECT FROM relay.replay_items WHERE plan_id = %s AND state = 'pending')"


async def left_to_others(connection: Connection, plan_id: int) -> bool:
    """True if the plan holds deliveries that a relay with another Agent SDK is to send."""
    row = await (await connection.execute(_LEFT_TO_OTHERS, (plan_id,))).fetchone()
    return bool(row and row[0])


_IN_FLIGHT = "SELECT count(*) FROM relay.replay_items WHERE plan_id = %s AND state = 'sending'"


async def in_flight(connection: Connection, plan_id: int) -> int:
    """How many of the plan's deliveries are on their way, whichever relay forwards them."""
    cursor = await connection.execute(_IN_FLIGHT, (plan_id,))
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


_UNSETTLED = "SELECT delivery FROM relay.replay_items WHERE plan_id = %s AND state = 'sending'"


async def unsettled(connection: Connection, plan_id: int) -> set[int]:
    """The rows of the plan's deliveries that are on their way: a relay forwards them, or they wait."""
    cursor = await connection.execute(_UNSETTLED, (plan_id,))
    return {int(row[0]) for row in await cursor.fetchall()}


_SETTLED_NOW = """
    SELECT delivery, state = 'delivered' FROM relay.replay_items
     WHERE plan_id = %s AND delivery = ANY(%s) AND state <> 'sending' ORDER BY settled_at, position
"""


async def settled(connection: Connection, plan_id: int, rows: Sequence[int]) -> list[tuple[int, bool]]:
    """Those of these deliveries of the plan that are settled, and whether each was delivered, in the order of that."""
    cursor = await connection.execute(_SETTLED_NOW, (plan_id, list(rows)))
    return [(int(row[0]), bool(row[1])) for row in await cursor.fetchall()]


_STREAK = """
    SELECT count(*) FROM relay.replay_items i
     WHERE i.plan_id = %(plan)s AND i.state = 'dead'
       AND i.settled_at > coalesce((SELECT max(o.settled_at) FROM relay.replay_items o
                                     WHERE o.plan_id = %(plan)s AND o.state = 'delivered'), '-infinity')
"""


async def failures_in_a_row(connection: Connection, plan_id: int) -> int:
    """How many of the plan's deliveries have failed since the last one that succeeded."""
    cursor = await connection.execute(_STREAK, {"plan": plan_id})
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


_SETTLE = """
    UPDATE relay.replay_plans
       SET state = %(state)s, stopped_why = %(why)s, owner = NULL,
           finished_at = CASE WHEN %(state)s IN ('stopped', 'done') THEN now() END
     WHERE id = %(plan)s AND owner = %(owner)s
"""


async def settle(connection: Connection, plan_id: int, owner: UUID, state: PlanState, why: str | None = None) -> None:
    """End, pause or release a plan that `owner` works on, with the reason."""
    await connection.execute(_SETTLE, {"plan": plan_id, "owner": owner, "state": state, "why": why})
    await notify(connection, plan_id)


_LET_GO = "UPDATE relay.replay_plans SET owner = NULL WHERE owner = %s"


async def release_plans(connection: Connection, owner: UUID) -> None:
    """Release every plan that `owner` works on, so that another relay can claim it."""
    await connection.execute(_LET_GO, (owner,))
