"""Claims deliveries: those whose relay is gone, and those of the backlog whose turn has come.

A `claim` (a UUID made anew whenever a relay takes a delivery) fences it. A relay claims what was accepted for its own
Agent SDK, and what has no destination yet, because it was stored by an earlier version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL

from relay.domain.delivery import Delivery, WaitReason
from relay.domain.headers import kept
from relay.store.database import exact_rows_of
from relay.store.deliveries import Claimed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from psycopg.sql import Composed

    from relay.store.database import Connection

_COLUMNS = SQL("""d.id, d.claim, d.delivery_id, d.run, d.headers, d.body, d.event, d.conversation_id, d.test, d.plan_id,
              d.encoded_body, d.tries, d.spent_ms, d.waited_ms, d.conversation_key""")
"""What a claiming statement returns of `relay.deliveries d`; `paused_ms` and `waited_for` follow."""

claimed_columns = _COLUMNS + SQL(", 0 AS paused_ms, NULL::text AS waited_for")
own_agent = SQL("(SELECT i.agent FROM relay.instances i WHERE i.id = %(owner)s)")
"""SQL: the destination of the relay `owner`, NULL if it is not registered."""

# A run none of whose attempts is recorded begins anew, as another run. The others continue.
# The lease is looked up, not joined: Postgres checks a row again that another relay took meanwhile, and it
# would check it against the old owner's lease, joined before.
# `claimed_at` is the time of the claim, not of its transaction, which may have waited long for a lock: a delivery would
# look abandoned as soon as it is committed.
_CLAIM_ABANDONED = SQL("""
    UPDATE relay.deliveries d
       SET owner = %(owner)s, claim = gen_random_uuid(), claimed_at = clock_timestamp(),
           run = d.run + (d.tries = 0)::integer, destination = coalesce(d.destination, {agent})
      FROM (SELECT o.id FROM relay.deliveries o
             WHERE o.state = 'forwarding' AND (o.destination IS NULL OR o.destination = {agent})
               AND NOT (o.owner = %(owner)s AND o.id = ANY(%(held)s))
               AND (coalesce((SELECT i.lease_until FROM relay.instances i WHERE i.id = o.owner), '-infinity')
                    <= CASE WHEN %(settled)s THEN now() ELSE '-infinity' END
                    OR (o.owner = %(owner)s AND o.claimed_at < now() - make_interval(secs => %(orphan_s)s)))
             ORDER BY o.id LIMIT %(most)s
               FOR UPDATE OF o SKIP LOCKED) AS abandoned
     WHERE d.id = abandoned.id
    RETURNING {columns}
""").format(agent=own_agent, columns=claimed_columns)
_TAKEN = SQL("""
    UPDATE relay.deliveries d
       SET state = 'forwarding', owner = %(owner)s, claim = gen_random_uuid(), claimed_at = clock_timestamp(),
           waits = NULL, waited_ms = d.waited_ms + (extract(epoch FROM now() - d.since) * 1000)::bigint,
           next_attempt_at = NULL, destination = coalesce(d.destination, {agent})
      FROM chosen c
     WHERE d.id = c.id
    RETURNING {columns}, c.waits AS waited_for,
              CASE WHEN d.tries > 0 THEN (extract(epoch FROM now() - d.since) * 1000)::bigint ELSE 0 END AS paused_ms
""").format(agent=own_agent, columns=_COLUMNS)
# Waits that are over come before what was never tried: they are older. A large body may leave less to claim than asked.
_SIZE = SQL("octet_length(o.body) + coalesce(octet_length(o.encoded_body), 0) AS bytes")


def _backlog(condition: SQL) -> Composed:
    """The statement that claims what waits and meets `condition` (on `relay.deliveries o`)."""
    return SQL("""
    WITH destinations AS MATERIALIZED (
        SELECT '' AS destination UNION SELECT coalesce({agent}, '')
    ), due AS MATERIALIZED (
        SELECT w.* FROM destinations n CROSS JOIN LATERAL (
            SELECT o.id, o.plan_id IS NOT NULL AS replay, {size}, 0 AS later, o.next_attempt_at AS at,
                   o.waits
              FROM relay.deliveries o
             WHERE o.state = 'waiting' AND coalesce(o.destination, '') = n.destination AND NOT o.blocked
               AND o.next_attempt_at <= now() AND {condition}
             ORDER BY o.plan_id IS NOT NULL, o.next_attempt_at LIMIT %(most)s FOR UPDATE SKIP LOCKED) AS w
    ), ready AS MATERIALIZED (
        SELECT w.* FROM destinations n CROSS JOIN LATERAL (
            SELECT o.id, o.plan_id IS NOT NULL AS replay, {size}, 1 AS later, NULL::timestamptz AS at, o.waits
              FROM relay.deliveries o
             WHERE o.state = 'received' AND coalesce(o.destination, '') = n.destination AND NOT o.blocked
               AND {condition}
             ORDER BY o.plan_id IS NOT NULL, o.id LIMIT %(most)s FOR UPDATE SKIP LOCKED) AS w
    ), chosen AS (
        SELECT id, waits FROM (
            SELECT id, waits, row_number() OVER turn AS n, sum(bytes) OVER turn AS bytes
              FROM (SELECT * FROM due UNION ALL SELECT * FROM ready) AS candidates
            WINDOW turn AS (ORDER BY replay, later, at, id ROWS UNBOUNDED PRECEDING)) AS sized
         WHERE n <= %(most)s AND (n = 1 OR bytes <= %(most_bytes)s)
    ) {taken}
""").format(agent=own_agent, size=_SIZE, condition=condition, taken=_TAKEN)


_CLAIM_BACKLOG = _backlog(SQL("EXISTS (SELECT FROM relay.gate g WHERE NOT g.held AND NOT g.open)"))
_CLAIM_PROBE = _backlog(
    SQL(
        "EXISTS (SELECT FROM relay.gate g WHERE NOT g.held) AND NOT o.test "
        "AND o.conversation_key IS DISTINCT FROM %(other)s"
    )
)
_CLAIM_TESTS = SQL("""
    WITH chosen AS MATERIALIZED (
        SELECT o.id, o.waits FROM relay.deliveries o
         WHERE o.test AND o.state IN ('received', 'waiting') AND o.plan_id IS NULL
           AND (o.destination IS NULL OR o.destination = {agent}) AND (o.next_attempt_at <= now()) IS NOT FALSE
         ORDER BY o.id LIMIT %(most)s FOR UPDATE SKIP LOCKED
    ) {taken}
""").format(agent=own_agent, taken=_TAKEN)
_PLANS = "SELECT id, requested_by, edited_body FROM relay.replay_plans WHERE id = ANY(%s)"


async def claim_abandoned(
    connection: Connection, owner: UUID, *, held: Sequence[int], settled: bool, most: int, orphan_s: float
) -> list[Claimed]:
    """Take over up to `most` deliveries whose relay is gone, oldest first.

    Those whose owner was replaced, if `settled` those whose owner's lease has expired, and those that `owner` itself
    holds in the database for `orphan_s` seconds without having them in memory (`held` are the rows it has): the relay
    did not see the end of the commit that gave them to it.
    """
    cursor = await exact_rows_of(connection, dict[str, Any]).execute(
        _CLAIM_ABANDONED, {"owner": owner, "held": list(held), "settled": settled, "most": most, "orphan_s": orphan_s}
    )
    return await read_claimed(connection, await cursor.fetchall())


async def claim_backlog(connection: Connection, owner: UUID, *, most: int, most_bytes: int) -> list[Claimed]:
    """Claim up to `most` deliveries that wait, with `most_bytes` of bodies (one delivery at least).

    Live traffic comes before replays and is claimed oldest first. Nothing is claimed while forwarding is held or the
    breaker is open.
    """
    given = {"owner": owner, "most": most, "most_bytes": most_bytes}
    cursor = await exact_rows_of(connection, dict[str, Any]).execute(_CLAIM_BACKLOG, given)
    return await read_claimed(connection, await cursor.fetchall())


async def claim_tests(connection: Connection, owner: UUID, *, most: int) -> list[Claimed]:
    """Claim up to `most` test webhooks whose wait is over, though forwarding is held, the breaker open or no slot free.

    A replay of one waits like any replay.
    """
    cursor = await exact_rows_of(connection, dict[str, Any]).execute(_CLAIM_TESTS, {"owner": owner, "most": most})
    return await read_claimed(connection, await cursor.fetchall())


async def claim_probe(connection: Connection, owner: UUID, other: str | None) -> Claimed | None:
    """Claim one delivery that waits, although the breaker is open: not of the conversation `other` if there is another.

    None if nothing but test webhooks waits, or forwarding is held.
    """
    for key in (other, None) if other is not None else (None,):
        cursor = await exact_rows_of(connection, dict[str, Any]).execute(
            _CLAIM_PROBE, {"owner": owner, "most": 1, "most_bytes": 0, "other": key or ""}
        )
        if claims := await read_claimed(connection, await cursor.fetchall()):
            return claims[0]
    return None


async def read_claimed(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Claimed]:
    """Rows that a claiming statement returned (exact ones), as claims; a replay's come with what its plan says."""
    plans: dict[int, Mapping[str, Any]] = {}
    if plan_ids := {row["plan_id"] for row in rows} - {None}:
        cursor = await exact_rows_of(connection, dict[str, Any]).execute(_PLANS, (list(plan_ids),))
        plans = {plan["id"]: plan for plan in await cursor.fetchall()}
    return [Claimed(row["claim"], _delivery(row, plans.get(row["plan_id"], {}))) for row in rows]


def _delivery(row: Mapping[str, Any], plan: Mapping[str, Any]) -> Delivery:
    edited_body, waited_for = plan.get("edited_body"), row["waited_for"]
    return Delivery(
        id=row["id"],
        delivery_id=row["delivery_id"],
        run=row["run"],
        headers=kept(tuple((name, value) for name, value in row["headers"])),
        body=row["body"] if edited_body is None else edited_body,
        event=row["event"],
        conversation_id=row["conversation_id"],
        test=row["test"],
        plan_id=row["plan_id"],
        edited=edited_body is not None,
        requested_by=plan.get("requested_by"),
        encoded_body=row["encoded_body"] if edited_body is None else None,
        tries=row["tries"],
        spent_ms=row["spent_ms"],
        waited_ms=row["waited_ms"],
        paused_ms=row["paused_ms"],
        waited_for=None if waited_for is None else WaitReason(waited_for),
        order_key=row["conversation_key"],
    )
