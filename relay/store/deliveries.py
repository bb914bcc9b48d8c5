"""Deliveries in Postgres: stored, claimed, finished, handed back. Every transition of state is one statement.

A `claim` (a UUID made anew whenever a relay takes a delivery) fences it: a relay that lost its lease finds
that its claim was replaced, and can finish nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import psycopg
from psycopg.pq import TransactionStatus

from relay.domain.delivery import Delivery, Outcome, Receipt, State
from relay.domain.facts import SCOPE
from relay.domain.headers import SIGNATURE_HEADER, TIMESTAMP_HEADER, kept
from relay.store.database import exact
from relay.store.signatures import deliveries_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from psycopg import AsyncCursor

    from relay.domain.facts import Fact
    from relay.store.database import Connection


_DIFFERING = UUID("6e1f2f0c-5a1d-4a3e-9d5c-0c6b7f3a9b41")
"""Namespace of the ids of webhooks that differ from the dead letter whose id they came with."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this relay holds, under this claim."""

    claim: UUID
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A webhook whose delivery id or signature is known already; `delivery_id` and `state` are that delivery's."""

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
    """The end of one run: what to record, all of it or nothing. With `facts_later` its facts go aside, untried.

    `lock_ms` is how long it may wait for a row that another session holds, where it is committed by itself.
    """

    claim: UUID
    delivery: Delivery
    outcome: Outcome
    facts: Sequence[Fact]
    facts_later: bool = False
    lock_ms: int = 20


@dataclass(frozen=True, slots=True)
class FactsAside:
    """How many facts of one statement went to `relay.facts_aside`: refused ones, and late ones.

    `reason` is a refused one's, else what made them late: an SQLSTATE and names (`relay.refusal`).
    """

    refused: int = 0
    late: int = 0
    reason: str | None = None

    def __bool__(self) -> bool:
        return self.refused + self.late > 0


# A signature covers the timestamp and the body, no other header. So a dead letter that is sent again keeps its headers,
# its coding and whether it is a test; only its signature is replaced, by one that the agent does not find stale.
_RENEWED = f"('{SIGNATURE_HEADER}', '{TIMESTAMP_HEADER}')"
_STORE = f"""
    INSERT INTO relay.deliveries AS d
           (delivery_id, claim, headers, body, encoded_body, event, conversation_id, customer, test, state, owner,
            finished_at)
    SELECT r.delivery_id, r.claim, r.headers, r.body, nullif(r.encoded_body, ''), r.event, r.conversation_id,
           r.customer, r.test, CASE WHEN r.ignored THEN 'ignored' ELSE 'forwarding' END,
           CASE WHEN NOT r.ignored THEN %(owner)s::uuid END, CASE WHEN r.ignored THEN now() END
      FROM (SELECT set_config('lock_timeout', %(lock_ms)s, true)) AS l,
           unnest(%(ids)b::text[], %(claims)b::uuid[], %(headers)b::text[]::jsonb[], %(bodies)b::bytea[],
                  %(encoded_bodies)b::bytea[], %(events)b::text[], %(conversations)b::text[],
                  %(customers)b::boolean[], %(tests)b::boolean[], %(ignored)b::boolean[])
           AS r(delivery_id, claim, headers, body, encoded_body, event, conversation_id, customer, test, ignored)
    ON CONFLICT ON CONSTRAINT deliveries_delivery_id DO UPDATE
       SET state = excluded.state, owner = excluded.owner, claim = excluded.claim, claimed_at = now(),
           run = d.run + (d.claim <> excluded.claim)::integer, plan_id = NULL, finished_at = excluded.finished_at,
           headers = (SELECT coalesce(jsonb_agg(h), '[]') FROM jsonb_array_elements(d.headers) AS h
                       WHERE h ->> 0 NOT IN {_RENEWED})
                  || (SELECT coalesce(jsonb_agg(h), '[]') FROM jsonb_array_elements(excluded.headers) AS h
                       WHERE h ->> 0 IN {_RENEWED})
     WHERE d.state = 'dead' AND d.body = excluded.body OR d.claim = excluded.claim
    RETURNING d.delivery_id, d.id, d.run, CASE WHEN d.run > 1 THEN d.headers END AS headers, d.test,
              CASE WHEN d.run > 1 THEN d.encoded_body END AS encoded_body
"""  # noqa: S608 - constants
# A signature counts only if its receipt was stored, so it comes after the delivery; one that is there already undoes
# the whole statement. So a unique key alone decides between copies that are stored at the same time. Every statement
# locks its deliveries in the order of their ids and then its signatures in theirs (`fresh` is complete before the
# first is inserted), so that no two of them deadlock.
_STORE_SIGNED = f"""
    WITH stored AS ({_STORE}), fresh AS MATERIALIZED (
        SELECT r.signature, r.delivery_id, to_timestamp(r.expires_at) AS expires_at
          FROM unnest(%(signatures)b::uuid[], %(signed_ids)b::text[], %(expiries)b::bigint[])
               AS r(signature, delivery_id, expires_at) JOIN stored USING (delivery_id)
    ), signed AS (
        INSERT INTO relay.signatures (signature, delivery_id, expires_at)
        SELECT signature, delivery_id, expires_at FROM fresh ORDER BY expires_at, signature
    )
    SELECT delivery_id, id, run, headers, test, encoded_body FROM stored
"""  # noqa: S608 - constants
_SIGNATURES_KEY = "signatures_pkey"
_KNOWN = """
    SELECT delivery_id, state, CASE WHEN state = 'dead' THEN body END
      FROM relay.deliveries WHERE delivery_id = ANY(%s)
"""
Stored = Claimed | Duplicate | Ignored


async def store(connection: Connection, owner: UUID, batch: Sequence[Incoming], *, lock_ms: int = 0) -> list[Stored]:
    """Commit a batch of receipts as deliveries that `owner` is forwarding, or as ignored; one statement for all.

    A delivery id that is known already gives a `Duplicate`, unless that delivery is dead: then it is forwarded
    again as it is stored, with its new signature, if the body is the same. One with another body is stored as a
    delivery of its own, under a UUID made of both, so that the same webhook gets the same one again. A signature that
    another delivery was stored with gives a `Duplicate` that names that delivery. Storing the same `Incoming` again,
    after a commit whose end was not seen, changes nothing. A row that another session holds is waited for at most
    `lock_ms` (0: without end).

    Raises:
        psycopg.DataError: Postgres refuses a value; nothing was stored.
        psycopg.errors.LockNotAvailable: another session holds a row. Some may be stored: store them again.
    """
    results: dict[int, Stored] = {}
    pending = dict(enumerate(batch))
    recorded: set[tuple[UUID, str]] = set()
    while pending:  # most batches need one round
        firsts = _firsts(pending)
        settled = await _store_round(connection, owner, pending, firsts, recorded, lock_ms)
        settled |= _copies(pending, firsts, settled)
        results |= settled
        pending = {place: item for place, item in pending.items() if place not in settled}
    return [results[place] for place in range(len(batch))]


def _copies(pending: Mapping[int, Incoming], firsts: Sequence[int], settled: Mapping[int, Stored]) -> dict[int, Stored]:
    """A `Duplicate` for each of `pending` that has the id or the signature of one of the `firsts` that was stored."""
    ids: dict[str, Duplicate] = {}
    signatures: dict[UUID, Duplicate] = {}
    for place in firsts:
        if isinstance(settled.get(place), Claimed | Ignored):
            receipt = pending[place].receipt
            state = State.IGNORED if receipt.ignored else State.FORWARDING
            ids[receipt.delivery_id] = Duplicate(receipt.delivery_id, state)
            if receipt.signature is not None:
                signatures[receipt.signature.key] = ids[receipt.delivery_id]
    copies: dict[int, Stored] = {}
    for place in pending.keys() - settled.keys():
        receipt = pending[place].receipt
        by_signature = None if receipt.signature is None else signatures.get(receipt.signature.key)
        if duplicate := ids.get(receipt.delivery_id) or by_signature:
            copies[place] = duplicate
    return copies


def _firsts(pending: Mapping[int, Incoming]) -> list[int]:
    """The first of each delivery id and of each signature, as places in `pending`, in the order of their ids."""
    ids: set[str] = set()
    signatures: set[UUID] = set()
    firsts: list[int] = []
    for place, item in pending.items():
        signature = item.receipt.signature
        if item.receipt.delivery_id in ids or (signature is not None and signature.key in signatures):
            continue
        ids.add(item.receipt.delivery_id)
        if signature is not None:
            signatures.add(signature.key)
        firsts.append(place)
    return sorted(firsts, key=lambda place: pending[place].receipt.delivery_id)


async def _store_round(
    connection: Connection,
    owner: UUID,
    pending: dict[int, Incoming],
    firsts: Sequence[int],
    recorded: set[tuple[UUID, str]],
    lock_ms: int,
) -> dict[int, Stored]:
    """Store those of `pending` that are `firsts`. What is not in the result is to be stored again, as `pending` then
    has it: it was not decided, or gets an id of its own. `recorded` are the signatures and ids of `pending` that are
    known to be in the table already.
    """
    items = [pending[place] for place in firsts]
    try:
        cursor = await _execute_store(connection, owner, items, recorded, lock_ms)
    except psycopg.errors.UniqueViolation as error:
        if error.diag.constraint_name != _SIGNATURES_KEY:
            raise
        return await _seen_signatures(connection, pending, firsts, recorded)
    stored = {row[0]: row[1:] for row in await cursor.fetchall()}
    settled: dict[int, Stored] = {}
    for place, item in zip(firsts, items, strict=True):
        delivery_id = item.receipt.delivery_id
        if delivery_id not in stored:
            continue
        if item.receipt.ignored:
            settled[place] = Ignored(delivery_id)
        else:
            settled[place] = Claimed(item.claim, _delivery(item.receipt, *stored[delivery_id]))
    if left := [place for place in firsts if place not in settled]:
        cursor = await exact(connection).execute(_KNOWN, ([pending[place].receipt.delivery_id for place in left],))
        known = {row[0]: (State(row[1]), row[2]) for row in await cursor.fetchall()}
        for place in left:
            receipt = pending[place].receipt
            state, body = known.get(receipt.delivery_id, (None, None))
            if state is State.DEAD and body != receipt.body:
                pending[place] = replace(pending[place], receipt=_under_its_own_id(receipt))
            elif state is not None and state is not State.DEAD:
                settled[place] = Duplicate(receipt.delivery_id, state)
    return settled


async def _execute_store(
    connection: Connection,
    owner: UUID,
    items: Sequence[Incoming],
    recorded: Collection[tuple[UUID, str]],
    lock_ms: int,
) -> AsyncCursor[Any]:
    receipts = [item.receipt for item in items]
    parameters: dict[str, Any] = {
        "owner": owner,
        "lock_ms": str(lock_ms),
        "ids": [r.delivery_id for r in receipts],
        "claims": [item.claim for item in items],
        "headers": [json.dumps(r.headers) for r in receipts],
        "bodies": [r.body for r in receipts],
        "encoded_bodies": [r.encoded_body or b"" for r in receipts],
        "events": [r.event for r in receipts],
        "conversations": [r.conversation_id for r in receipts],
        "customers": [r.customer for r in receipts],
        "tests": [r.test for r in receipts],
        "ignored": [r.ignored for r in receipts],
    }
    signed = [
        (r.signature, r.delivery_id)
        for r in receipts
        if r.signature is not None and (r.signature.key, r.delivery_id) not in recorded
    ]
    if not signed:
        return await exact(connection).execute(_STORE, parameters)
    parameters |= {
        "signatures": [signature.key for signature, _ in signed],
        "signed_ids": [delivery_id for _, delivery_id in signed],
        "expiries": [signature.expires_at for signature, _ in signed],
    }
    return await exact(connection).execute(_STORE_SIGNED.encode(), parameters)


async def _seen_signatures(
    connection: Connection, pending: Mapping[int, Incoming], firsts: Sequence[int], recorded: set[tuple[UUID, str]]
) -> dict[int, Stored]:
    """A `Duplicate` for each of the `firsts` whose signature another delivery has; adds to `recorded`."""
    signed = {place: found for place in firsts if (found := pending[place].receipt.signature) is not None}
    known = await deliveries_of(connection, list(signed.values()))
    seen: dict[int, Stored] = {}
    for place, signature in signed.items():
        delivery_id, state = known.get(signature.key, (None, State.DELIVERED))
        if delivery_id == pending[place].receipt.delivery_id:
            recorded.add((signature.key, delivery_id))
        elif delivery_id is not None:
            seen[place] = Duplicate(delivery_id, state)
    return seen


def _under_its_own_id(receipt: Receipt) -> Receipt:
    """`receipt`, which has the id of a dead letter with another body, under a UUID made of that id and its body."""
    content = hashlib.sha256(receipt.body).hexdigest()
    return replace(receipt, delivery_id=str(uuid5(_DIFFERING, f"{receipt.delivery_id} {content}")))


def _delivery(
    receipt: Receipt,
    row_id: int,
    run: int,
    headers: list[tuple[str, str]] | None,
    test: bool,
    encoded_body: bytes | None,
) -> Delivery:
    """A delivery as it is stored; `headers` and `encoded_body` are None in its first run, which has the receipt's."""
    return Delivery(
        id=row_id,
        delivery_id=receipt.delivery_id,
        run=run,
        headers=receipt.headers if headers is None else kept(tuple((name, value) for name, value in headers)),
        body=receipt.body,
        event=receipt.event,
        conversation_id=receipt.conversation_id,
        test=test,
        encoded_body=receipt.encoded_body if headers is None else encoded_body,
    )


_MOVED = """
    WITH finishes AS MATERIALIZED (
        SELECT f.*
          FROM (SELECT set_config('lock_timeout', coalesce(%(lock_ms)s, current_setting('lock_timeout')), true)) AS l,
               jsonb_to_recordset(%(finishes)s::jsonb) AS f(
            id bigint, claim uuid, state text, tries jsonb, attempts integer, duration_ms integer,
            final_status text, last_error text, agent_status text, facts jsonb)
    ), moved AS (
        UPDATE relay.deliveries d
           SET state = f.state, owner = NULL, finished_at = now(), attempts = f.attempts,
               duration_ms = f.duration_ms, final_status = f.final_status, last_error = f.last_error,
               agent_status = f.agent_status
          FROM finishes f
         WHERE d.id = f.id AND d.claim = f.claim AND d.state = 'forwarding'
        RETURNING d.id, d.run, d.plan_id, f.state, f.tries,
                  CASE WHEN f.state = 'dead' AND d.run > 1 AND d.plan_id IS NULL
                       THEN relay.facts_of_redelivery(f.facts, d.id, d.run, d.claimed_at) ELSE f.facts END AS facts
    ), tried AS (
        INSERT INTO relay.attempts (delivery, run, number, started_at, wait_ms, duration_ms, status, error, answer)
        SELECT m.id, m.run, t.*
          FROM moved m, jsonb_to_recordset(m.tries) AS t(
               number integer, started_at timestamptz, wait_ms integer, duration_ms integer, status text,
               error text, answer text)
    )"""
_FACTS_INSERTED = """, inserted AS (
        INSERT INTO dashboard_facts (fact_type, scope, value, metadata)
        SELECT t.fact_type, %(scope)s,
               CASE WHEN t.payload IS NULL THEN t.value
                    ELSE jsonb_build_object('payload', t.payload::jsonb) || t.value END, t.metadata
          FROM moved m, jsonb_to_recordset(m.facts) AS t(
               fact_type text, value jsonb, metadata jsonb, payload text)
        RETURNING 1
    ), expected AS MATERIALIZED (
        SELECT relay.expect_facts((SELECT count(*) FROM inserted),
                                  (SELECT coalesce(sum(jsonb_array_length(m.facts)), 0)::bigint FROM moved m))
    )"""
_FACTS_WRITTEN = """, written AS MATERIALIZED (
        SELECT w.refused, w.late, w.reason
          FROM relay.write_facts((SELECT array_agg(m.facts) FROM moved m), %(scope)s, %(facts_now)s) AS w
    )"""
_SETTLED = """, settled AS (
        UPDATE relay.replay_items i SET state = m.state, settled_at = now()
          FROM moved m WHERE i.plan_id = m.plan_id AND i.delivery = m.id AND i.state = 'sending'
        RETURNING i.plan_id, i.state
    ), counted AS (
        UPDATE relay.replay_plans p SET delivered = p.delivered + c.delivered, dead = p.dead + c.dead
          FROM (SELECT plan_id, count(*) FILTER (WHERE state = 'delivered') AS delivered,
                       count(*) FILTER (WHERE state = 'dead') AS dead FROM settled GROUP BY plan_id) c
         WHERE p.id = c.plan_id
    )
"""
# The usual one, and the one that takes 50 µs more and that no fact can fail.
_FINISH = f"{_MOVED}{_FACTS_INSERTED}{_SETTLED} SELECT id, 0, 0, NULL FROM moved, expected".encode()  # noqa: S608 - constants
_FINISH_GUARDED = f"""{_MOVED}{_FACTS_WRITTEN}{_SETTLED}
    SELECT m.id, w.refused, w.late, w.reason FROM moved m CROSS JOIN written w
""".encode()  # noqa: S608 - constants
_FINISHED = """
    SELECT id FROM relay.deliveries
    WHERE id = ANY(%(ids)s) AND claim = ANY(%(claims)s) AND state IN ('delivered', 'dead', 'discarded')
"""

_LOCK_AFTER_CANCEL_MS = 50


async def finish(
    connection: Connection,
    batch: Sequence[Finish],
    *,
    guarded: bool = False,
    facts_later: bool = False,
    lock_ms: int | None = None,
    on_aside: Callable[[FactsAside], object] = lambda _: None,
) -> list[bool]:
    """Commit a batch of outcomes: states, attempts, facts and replay counts, in one statement.

    Each result is False where the claim no longer stood: another relay had taken the delivery over, and
    nothing of that outcome was recorded. Finishing again, after a commit whose end was not seen, records
    nothing twice and answers True.

    If `dashboard_facts` refuses facts, or the statement is cancelled, a second statement puts facts into
    `relay.facts_aside`, and `on_aside` is called. `guarded` begins with that second one: for a caller who expects
    refusals, or is inside a transaction. With `facts_later` all facts go aside and `dashboard_facts` is not touched.
    With `lock_ms` no row's lock is waited for longer than that.

    Raises:
        psycopg.Error: Postgres refuses something else, for example a value; nothing was recorded.
        psycopg.errors.QueryCanceled: the statement was cancelled, facts apart; nothing was recorded.
        psycopg.errors.LockNotAvailable: another session holds a row; nothing was recorded.
    """
    document = json.dumps([_finish_row(item) for item in batch])
    given: dict[str, Any] = {
        "finishes": document,
        "scope": SCOPE,
        "lock_ms": None if lock_ms is None else str(lock_ms),
    }
    facts_now = not facts_later and not any(item.facts_later for item in batch)
    rows = None
    if facts_now and not guarded:
        try:
            rows = await (await connection.execute(_FINISH, given)).fetchall()
        except psycopg.errors.QueryCanceled:
            facts_now = False
            given["lock_ms"] = given["lock_ms"] or str(_LOCK_AFTER_CANCEL_MS)
        except psycopg.Error as error:  # raised by whatever trigger, it may have any SQLSTATE
            if error.sqlstate is None or connection.info.transaction_status is not TransactionStatus.IDLE:
                raise
    if rows is None:
        rows = await (await connection.execute(_FINISH_GUARDED, {**given, "facts_now": facts_now})).fetchall()
    moved = {row[0] for row in rows}
    if rows and (aside := FactsAside(*rows[0][1:])):
        on_aside(aside)
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
    RETURNING d.id, d.claim, d.delivery_id, d.run, d.headers, d.body, d.event, d.conversation_id, d.test, d.plan_id,
              d.encoded_body
"""
_PLANS = "SELECT id, requested_by, edited_body FROM relay.replay_plans WHERE id = ANY(%s)"


async def claim_abandoned(
    connection: Connection, owner: UUID, *, held: Sequence[int], settled: bool, most: int, orphan_s: float
) -> list[Claimed]:
    """Take over up to `most` deliveries that nobody forwards any more, oldest first.

    Those handed back, those whose owner was replaced, if `settled` those whose owner's lease ran out, and those
    that `owner` itself holds in the database for `orphan_s` seconds without knowing of them (`held` are the rows
    it holds): the commit that gave them to it was one whose end it did not see.
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
    for row_id, claim, delivery_id, run, headers, body, event, conversation_id, test, plan_id, encoded_body in rows:
        requested_by, edited_body = plans.get(plan_id, (None, None))
        delivery = Delivery(
            id=row_id,
            delivery_id=delivery_id,
            run=run,
            headers=kept(tuple((name, value) for name, value in headers)),
            body=body if edited_body is None else edited_body,
            event=event,
            conversation_id=conversation_id,
            test=test,
            plan_id=plan_id,
            edited=edited_body is not None,
            requested_by=requested_by,
            encoded_body=encoded_body if edited_body is None else None,
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
        SELECT w.action, a.deliveries FROM relay.discards w JOIN relay.operator_actions a ON a.id = w.action
        WHERE w.applied_at IS NULL ORDER BY w.action LIMIT 1 FOR UPDATE OF w SKIP LOCKED
    ), discarded AS (
        UPDATE relay.deliveries d SET state = 'discarded', finished_at = now() FROM asked
        WHERE d.id = ANY(asked.deliveries) AND d.state = 'dead' RETURNING d.id
    )
    UPDATE relay.discards w
       SET applied_at = now(),
           result = jsonb_build_object('discarded', (SELECT count(*) FROM discarded),
                                       'asked', coalesce(cardinality(asked.deliveries), 0))
      FROM asked WHERE w.action = asked.action
    RETURNING w.action
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
