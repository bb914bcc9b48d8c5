"""Deliveries in Postgres: stored, claimed, finished, handed back. Every transition of state is one statement.

A `claim` (a UUID made anew whenever a relay takes a delivery on) fences it: whoever lost his lease finds
that his claim no longer stands, and can finish nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from relay.delivery import Delivery, Outcome, Receipt, State
from relay.facts import SCOPE
from relay.store.database import exact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.facts import Fact
    from relay.store.database import Connection


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this relay holds, under this claim."""

    claim: UUID
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A webhook whose delivery id is known already; `state` is where that delivery stands."""

    delivery_id: str
    state: State


@dataclass(frozen=True, slots=True)
class Ignored:
    """A webhook that was stored and goes no further."""

    delivery_id: str


@dataclass(frozen=True, slots=True)
class Incoming:
    """A receipt on its way into the store, with the claim it is to be stored under."""

    claim: UUID
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of one run: what to record, all of it or nothing."""

    claim: UUID
    delivery: Delivery
    outcome: Outcome
    facts: Sequence[Fact]


_STORE = """
    INSERT INTO relay.deliveries AS d
           (delivery_id, claim, headers, body, event, conversation_id, customer, test, state, owner, finished_at)
    SELECT r.delivery_id, r.claim, r.headers, r.body, r.event, r.conversation_id, r.customer, r.test,
           CASE WHEN r.ignored THEN 'ignored' ELSE 'forwarding' END,
           CASE WHEN NOT r.ignored THEN %(owner)s::uuid END, CASE WHEN r.ignored THEN now() END
      FROM unnest(%(ids)b::text[], %(claims)b::uuid[], %(headers)b::text[]::jsonb[], %(bodies)b::bytea[],
                  %(events)b::text[], %(conversations)b::text[], %(customers)b::boolean[], %(tests)b::boolean[],
                  %(ignored)b::boolean[])
           AS r(delivery_id, claim, headers, body, event, conversation_id, customer, test, ignored)
    ON CONFLICT ON CONSTRAINT deliveries_delivery_id DO UPDATE
       SET state = excluded.state, owner = excluded.owner, claim = excluded.claim, claimed_at = now(),
           run = d.run + (d.claim <> excluded.claim)::integer, plan_id = NULL, finished_at = excluded.finished_at,
           headers = excluded.headers, body = excluded.body, test = excluded.test, event = excluded.event,
           conversation_id = excluded.conversation_id, customer = excluded.customer
     WHERE d.state = 'dead' OR d.claim = excluded.claim
    RETURNING d.delivery_id, d.id, d.run
"""
_STATES = "SELECT delivery_id, state FROM relay.deliveries WHERE delivery_id = ANY(%s)"


async def store(connection: Connection, owner: UUID, batch: Sequence[Incoming]) -> list[Claimed | Duplicate | Ignored]:
    """Commit a batch of receipts as deliveries that `owner` is forwarding, or as ignored; one statement for all.

    A delivery id that is known already gives a `Duplicate`, unless that delivery is dead: then it is
    forwarded again, as what came in now. Storing the same `Incoming` again, after a commit whose end was
    not seen, changes nothing.

    Raises:
        psycopg.DataError: Postgres refuses a value; nothing was stored.
    """
    first: dict[str, Incoming] = {}
    for item in batch:
        first.setdefault(item.receipt.delivery_id, item)
    ordered = [first[key] for key in sorted(first)]  # one order for all, so that no two batches deadlock
    receipts = [item.receipt for item in ordered]
    cursor = await exact(connection).execute(
        _STORE,
        {
            "owner": owner,
            "ids": [r.delivery_id for r in receipts],
            "claims": [item.claim for item in ordered],
            "headers": [json.dumps(r.headers) for r in receipts],
            "bodies": [r.body for r in receipts],
            "events": [r.event for r in receipts],
            "conversations": [r.conversation_id for r in receipts],
            "customers": [r.customer for r in receipts],
            "tests": [r.test for r in receipts],
            "ignored": [r.ignored for r in receipts],
        },
    )
    stored: dict[str, tuple[int, int]] = {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}
    known: dict[str, State] = {}
    if len(stored) < len(ordered):
        missing = [r.delivery_id for r in receipts if r.delivery_id not in stored]
        cursor = await exact(connection).execute(_STATES, (missing,))
        known = {row[0]: State(row[1]) for row in await cursor.fetchall()}
    results: list[Claimed | Duplicate | Ignored] = []
    for item in batch:
        delivery_id = item.receipt.delivery_id
        if item is first[delivery_id] and delivery_id in stored and item.receipt.ignored:
            results.append(Ignored(delivery_id))
        elif item is first[delivery_id] and delivery_id in stored:
            results.append(Claimed(item.claim, _delivery(item.receipt, *stored[delivery_id])))
        else:
            results.append(Duplicate(delivery_id, known.get(delivery_id, State.FORWARDING)))
    return results


def _delivery(receipt: Receipt, row_id: int, run: int) -> Delivery:
    return Delivery(
        id=row_id,
        delivery_id=receipt.delivery_id,
        run=run,
        headers=receipt.headers,
        body=receipt.body,
        event=receipt.event,
        conversation_id=receipt.conversation_id,
        test=receipt.test,
    )


_FINISH = """
    WITH finishes AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(%(finishes)s::jsonb) AS f(
            id bigint, claim uuid, state text, tries jsonb, attempts integer, duration_ms integer,
            final_status text, last_error text, agent_status text, facts jsonb)
    ), moved AS (
        UPDATE relay.deliveries d
           SET state = f.state, owner = NULL, finished_at = now(), attempts = f.attempts,
               duration_ms = f.duration_ms, final_status = f.final_status, last_error = f.last_error,
               agent_status = f.agent_status
          FROM finishes f
         WHERE d.id = f.id AND d.claim = f.claim AND d.state = 'forwarding'
        RETURNING d.id, d.run, d.plan_id, f.state, f.tries, f.facts
    ), tried AS (
        INSERT INTO relay.attempts (delivery, run, number, started_at, wait_ms, duration_ms, status, error, answer)
        SELECT m.id, m.run, t.*
          FROM moved m, jsonb_to_recordset(m.tries) AS t(
               number integer, started_at timestamptz, wait_ms integer, duration_ms integer, status text,
               error text, answer text)
    ), told AS (
        INSERT INTO dashboard_facts (fact_type, scope, value, metadata)
        SELECT t.fact_type, %(scope)s,
               CASE WHEN t.payload IS NULL THEN t.value
                    ELSE jsonb_build_object('payload', t.payload::jsonb) || t.value END, t.metadata
          FROM moved m, jsonb_to_recordset(m.facts) AS t(
               fact_type text, value jsonb, metadata jsonb, payload text)
    ), settled AS (
        UPDATE relay.replay_items i SET state = m.state, settled_at = now()
          FROM moved m WHERE i.plan_id = m.plan_id AND i.delivery = m.id AND i.state = 'sending'
        RETURNING i.plan_id, i.state
    ), counted AS (
        UPDATE relay.replay_plans p SET delivered = p.delivered + c.delivered, dead = p.dead + c.dead
          FROM (SELECT plan_id, count(*) FILTER (WHERE state = 'delivered') AS delivered,
                       count(*) FILTER (WHERE state = 'dead') AS dead FROM settled GROUP BY plan_id) c
         WHERE p.id = c.plan_id
    )
    SELECT id FROM moved
"""
_FINISHED = """
    SELECT id FROM relay.deliveries
    WHERE id = ANY(%(ids)s) AND claim = ANY(%(claims)s) AND state IN ('delivered', 'dead', 'discarded')
"""


async def finish(connection: Connection, batch: Sequence[Finish]) -> list[bool]:
    """Commit a batch of outcomes: states, attempts, facts and replay counts, in one statement.

    Each result is False where the claim no longer stood: another relay had taken the delivery over, and
    nothing of that outcome was recorded. Finishing again, after a commit whose end was not seen, records
    nothing twice and answers True.

    Raises:
        psycopg.DataError: Postgres refuses a value; nothing was recorded.
    """
    document = json.dumps([_finish_row(item) for item in batch])
    cursor = await connection.execute(_FINISH, {"finishes": document, "scope": SCOPE})
    moved = {row[0] for row in await cursor.fetchall()}
    if len(moved) < len(batch):
        left = [item for item in batch if item.delivery.id not in moved]
        cursor = await connection.execute(
            _FINISHED,
            {"ids": [item.delivery.id for item in left], "claims": [item.claim for item in left]},
        )
        moved |= {row[0] for row in await cursor.fetchall()}
    return [item.delivery.id in moved for item in batch]


def _finish_row(item: Finish) -> dict[str, Any]:
    outcome = item.outcome
    return {
        "id": item.delivery.id,
        "claim": str(item.claim),
        "state": outcome.state,
        "attempts": len(outcome.attempts),
        "duration_ms": outcome.duration_ms,
        "final_status": outcome.last.status,
        "last_error": outcome.last.error,
        "agent_status": outcome.last.agent_status,
        "tries": [
            {
                "number": attempt.number,
                "started_at": attempt.started_at.isoformat(),
                "wait_ms": attempt.wait_ms,
                "duration_ms": attempt.duration_ms,
                "status": attempt.status,
                "error": attempt.error,
                "answer": attempt.answer,
            }
            for attempt in outcome.attempts
        ],
        "facts": [fact_row(fact) for fact in item.facts],
    }


def fact_row(fact: Fact) -> dict[str, Any]:
    """`fact` as the JSON object that the store's statements unfold into a row of `dashboard_facts`."""
    return {
        "fact_type": fact.fact_type,
        "value": fact.value,
        "metadata": fact.metadata,
        "payload": fact.payload,
    }


# The lease is looked up, not joined: Postgres checks a row again that another relay took meanwhile, and it
# would check it against the old owner's lease, joined before.
_CLAIM_ABANDONED = """
    UPDATE relay.deliveries d
       SET state = 'forwarding', owner = %(owner)s, claim = gen_random_uuid(), claimed_at = now(), run = d.run + 1
      FROM (SELECT o.id FROM relay.deliveries o
             WHERE o.state IN ('received', 'forwarding')
               AND NOT (o.owner = %(owner)s AND o.id = ANY(%(held)s))
               AND (coalesce((SELECT i.lease_until FROM relay.instances i WHERE i.id = o.owner), '-infinity')
                    <= CASE WHEN %(settled)s THEN now() ELSE '-infinity' END
                    OR (o.owner = %(owner)s AND o.claimed_at < now() - make_interval(secs => %(orphan_s)s)))
             ORDER BY o.id LIMIT %(most)s
               FOR UPDATE OF o SKIP LOCKED) AS abandoned
     WHERE d.id = abandoned.id
    RETURNING d.id, d.claim, d.delivery_id, d.run, d.headers, d.body, d.event, d.conversation_id, d.test, d.plan_id
"""
_PLANS = "SELECT id, requested_by, edited_body FROM relay.replay_plans WHERE id = ANY(%s)"


async def claim_abandoned(
    connection: Connection, owner: UUID, *, held: Sequence[int], settled: bool, most: int, orphan_s: float
) -> list[Claimed]:
    """Take over up to `most` deliveries that nobody forwards any more, oldest first.

    Those handed back, those whose owner was replaced, if `settled` those whose owner's lease ran out, and those
    that `owner` itself holds in the database for `orphan_s` seconds without knowing of them (`held` are the rows
    it knows of): the commit that gave them to it was one whose end it did not see.
    """
    cursor = await exact(connection).execute(
        _CLAIM_ABANDONED, {"owner": owner, "held": list(held), "settled": settled, "most": most, "orphan_s": orphan_s}
    )
    return await read_claimed(connection, await cursor.fetchall())


async def read_claimed(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> list[Claimed]:
    """Rows that a claiming statement returned (exact ones), as claims; a replay's come with what its plan says."""
    plans: dict[int, tuple[str, bytes | None]] = {}
    plan_ids = {row[9] for row in rows if row[9] is not None}
    if plan_ids:
        cursor = await exact(connection).execute(_PLANS, (list(plan_ids),))
        plans = {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}
    claims = []
    for row_id, claim, delivery_id, run, headers, body, event, conversation_id, test, plan_id in rows:
        requested_by, edited_body = plans.get(plan_id, (None, None))
        delivery = Delivery(
            id=row_id,
            delivery_id=delivery_id,
            run=run,
            headers=tuple((name, value) for name, value in headers),
            body=body if edited_body is None else edited_body,
            event=event,
            conversation_id=conversation_id,
            test=test,
            plan_id=plan_id,
            edited=edited_body is not None,
            requested_by=requested_by,
        )
        claims.append(Claimed(claim, delivery))
    return claims


_HAND_BACK = """
    UPDATE relay.deliveries SET state = 'received', owner = NULL
    WHERE owner = %s AND state = 'forwarding'
"""


async def hand_back(connection: Connection, owner: UUID) -> int:
    """Give up every lease of `owner`, so that any relay may take its deliveries on at once. Returns how many."""
    cursor = await connection.execute(_HAND_BACK, (owner,))
    return cursor.rowcount


_DISCARD = """
    WITH asked AS (
        SELECT id, deliveries FROM relay.operator_actions
        WHERE action = 'discard' AND applied_at IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
    ), discarded AS (
        UPDATE relay.deliveries d SET state = 'discarded', finished_at = now() FROM asked
        WHERE d.id = ANY(asked.deliveries) AND d.state = 'dead' RETURNING d.id
    )
    UPDATE relay.operator_actions a
       SET applied_at = now(),
           result = jsonb_build_object('discarded', (SELECT count(*) FROM discarded),
                                       'asked', coalesce(cardinality(a.deliveries), 0))
      FROM asked WHERE a.id = asked.id
    RETURNING a.id
"""


async def apply_discards(connection: Connection) -> int:
    """Carry out every discard that operators asked for and no relay has applied yet. Returns how many."""
    applied = 0
    while (await connection.execute(_DISCARD)).rowcount:
        applied += 1
    return applied


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a delivery has got. `attempts` are those of its last finished run, as dicts of the table's columns."""

    state: State
    run: int
    final_status: str | None
    last_error: str | None
    agent_status: str | None
    attempts: list[dict[str, Any]]

    @property
    def settled(self) -> bool:
        """True once nothing more happens to it by itself."""
        return self.state in {State.DELIVERED, State.DEAD, State.DISCARDED}


_PROGRESS = """
    SELECT d.state, d.run, d.final_status, d.last_error, d.agent_status, coalesce((
               SELECT jsonb_agg(to_jsonb(a) - 'delivery' - 'run' ORDER BY a.number) FROM relay.attempts a
                WHERE a.delivery = d.id AND a.run = d.run), '[]')
      FROM relay.deliveries d WHERE d.delivery_id = %s
"""


async def progress(connection: Connection, delivery_id: str) -> Progress | None:
    """How far the delivery has got, or None if it is not known."""
    cursor = await connection.execute(_PROGRESS, (delivery_id,))
    row = await cursor.fetchone()
    return None if row is None else Progress(State(row[0]), *row[1:])
