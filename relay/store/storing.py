"""Stores receipts as deliveries, in one statement a batch, and gives each its place in its conversation.

A delivery is stored `forwarding` if this relay wants to forward it now, nothing earlier of its conversation is
unfinished, and forwarding is neither held nor stopped by the breaker. Otherwise it is stored `received`. Its
destination is the Agent SDK of this relay, unless a relay with another one had spooled it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import psycopg
from psycopg.sql import SQL, Literal

from relay.domain.delivery import Delivery, State, WaitReason
from relay.domain.headers import SIGNATURE_HEADER, TIMESTAMP_HEADER, kept
from relay.store.copies import copies_of, firsts_of
from relay.store.database import exact_rows_of
from relay.store.deliveries import Claimed, Duplicate, Ignored, Waiting
from relay.store.signatures import deliveries_of, deliveries_with_expired

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from psycopg import AsyncCursor

    from relay.domain.delivery import Receipt
    from relay.store.database import Connection
    from relay.store.deliveries import Incoming, Stored


_DIFFERING = UUID("6e1f2f0c-5a1d-4a3e-9d5c-0c6b7f3a9b41")
"""Namespace of the ids of webhooks that differ from the dead letter whose id they came with."""

_STORED_MEANWHILE = "RL003"
"""The SQLSTATE of `relay.undo_store`: a position went to a delivery that another relay stored at the same time."""

# A plan that is made while the table is small is kept while it grows: without OFFSET the look-up of known ids would
# be a join that reads all of it.
# Positions are issued first, conversation by conversation in the order of their keys, so that no two batches deadlock.
# A delivery that is known already gets none. One that another relay stores at the same time would leave a position
# that nothing holds: `complete` then undoes the statement, and it is tried again.
# A signature covers the timestamp and the body, no other header. A dead letter that is sent again therefore keeps its
# headers, its coding and whether it is a test; only its signature is replaced, by one that the agent does not find
# stale. Within 60 s of its death that is one incident with it (DESIGN, 1).
_STORED = SQL("""
    WITH light AS MATERIALIZED (
        SELECT r.*, k.id IS NULL AS fresh
          FROM (SELECT set_config('lock_timeout', %(conversation_ms)s, true)) AS l,
               unnest(%(ids)b::text[], %(claims)b::uuid[], %(keys)b::text[], %(places)b::integer[],
                      %(wanted)b::boolean[], %(received)b::timestamptz[])
               WITH ORDINALITY AS r(delivery_id, claim, key, arrival, wanted, received_at, n)
          LEFT JOIN LATERAL (SELECT d.id, d.state, d.claim FROM relay.deliveries d
                              WHERE d.delivery_id = r.delivery_id OFFSET 0) AS k ON true
         WHERE k.id IS NULL OR k.state = 'dead' OR k.claim = r.claim
    ), turns AS MATERIALIZED (
        INSERT INTO relay.conversations AS c (key, issued, head)
        SELECT key, count(*), 1 FROM light WHERE fresh AND key <> '' GROUP BY key ORDER BY key
            ON CONFLICT (key) DO UPDATE SET issued = c.issued + excluded.issued, touched_at = now(),
                                            head = coalesce(c.head, c.issued + 1)
        RETURNING key, issued, head
    ), placed AS MATERIALIZED (
        SELECT l.n, l.wanted, coalesce(least(l.received_at, now()), now()) AS received_at, t.key, t.head,
               t.issued - count(*) OVER (PARTITION BY l.fresh, l.key)
                        + row_number() OVER (PARTITION BY l.fresh, l.key ORDER BY l.arrival) AS position
          FROM (SELECT set_config('lock_timeout', %(lock_ms)s, true) FROM (SELECT count(*) FROM turns) AS issued) AS s,
               light l LEFT JOIN turns t ON t.key = l.key AND l.fresh
    ), stored AS (
        INSERT INTO relay.deliveries AS d
               (delivery_id, claim, headers, body, encoded_body, event, conversation_id, customer, test,
                conversation_key, position, blocked, waits, received_at, since, claimed_at, state, owner, finished_at,
                destination)
        SELECT r.delivery_id, r.claim, r.headers, r.body, nullif(r.encoded_body, ''), r.event, r.conversation_id,
               r.customer, r.test, p.key, p.position, coalesce(p.position <> p.head, false), why.reason,
               p.received_at, p.received_at, clock_timestamp(),
               CASE WHEN r.ignored THEN 'ignored' WHEN why.reason IS NULL THEN 'forwarding' ELSE 'received' END,
               CASE WHEN NOT r.ignored AND why.reason IS NULL THEN %(owner)s::uuid END,
               CASE WHEN r.ignored THEN now() END, coalesce(nullif(r.destination, ''), own.agent)
          FROM placed p
          JOIN unnest(%(ids)b::text[], %(claims)b::uuid[], %(headers)b::text[]::jsonb[], %(bodies)b::bytea[],
                      %(encoded_bodies)b::bytea[], %(events)b::text[], %(conversations)b::text[],
                      %(customers)b::boolean[], %(tests)b::boolean[], %(ignored)b::boolean[],
                      %(destinations)b::text[])
               WITH ORDINALITY AS r(delivery_id, claim, headers, body, encoded_body, event, conversation_id, customer,
                                    test, ignored, destination, n) USING (n)
         CROSS JOIN (SELECT (SELECT i.agent FROM relay.instances i WHERE i.id = %(owner)s) AS agent) AS own
         CROSS JOIN LATERAL (
               SELECT CASE WHEN r.ignored THEN NULL
                           WHEN nullif(r.destination, '') <> own.agent THEN 'capacity'
                           WHEN r.test THEN NULL
                           WHEN g.held THEN 'hold'
                           WHEN g.open THEN 'breaker'
                           WHEN p.position <> p.head THEN 'order'
                           WHEN NOT p.wanted THEN 'capacity' END AS reason FROM relay.gate g) AS why
         ORDER BY r.n
        ON CONFLICT ON CONSTRAINT deliveries_delivery_id DO UPDATE
           SET state = CASE WHEN d.claim = excluded.claim THEN d.state ELSE excluded.state END,
               owner = CASE WHEN d.claim = excluded.claim THEN d.owner ELSE excluded.owner END,
               waits = CASE WHEN d.claim = excluded.claim THEN d.waits ELSE excluded.waits END,
               destination = CASE WHEN d.claim = excluded.claim THEN d.destination ELSE excluded.destination END,
               conversation_key = CASE WHEN d.claim = excluded.claim THEN d.conversation_key END,
               run = d.run + (d.claim <> excluded.claim)::integer,
               tries = CASE WHEN d.claim = excluded.claim THEN d.tries ELSE 0 END,
               spent_ms = CASE WHEN d.claim = excluded.claim THEN d.spent_ms ELSE 0 END,
               waited_ms = CASE WHEN d.claim = excluded.claim THEN d.waited_ms ELSE 0 END,
               since = CASE WHEN d.claim = excluded.claim THEN d.since ELSE now() END,
               repeats = CASE WHEN d.claim = excluded.claim THEN d.repeats
                              ELSE coalesce(d.finished_at > now() - interval '60 seconds', false) END,
               claim = excluded.claim, claimed_at = excluded.claimed_at, plan_id = NULL,
               finished_at = excluded.finished_at,
               headers = (SELECT coalesce(jsonb_agg(h), '[]') FROM jsonb_array_elements(d.headers) AS h
                           WHERE h ->> 0 NOT IN ({signature}, {timestamp}))
                      || (SELECT coalesce(jsonb_agg(h), '[]') FROM jsonb_array_elements(excluded.headers) AS h
                           WHERE h ->> 0 IN ({signature}, {timestamp}))
         WHERE d.state = 'dead' AND d.body = excluded.body OR d.claim = excluded.claim
        RETURNING d.delivery_id, d.id, d.run, d.state, d.waits, d.test,
                  CASE WHEN d.run > 1 THEN d.headers END AS headers,
                  CASE WHEN d.run > 1 THEN d.encoded_body END AS encoded_body
    ), complete AS (
        SELECT CASE WHEN EXISTS (SELECT FROM light l WHERE l.fresh AND l.key <> ''
                                    AND NOT EXISTS (SELECT FROM stored s WHERE s.delivery_id = l.delivery_id))
                    THEN relay.undo_store() END AS undone
    )
""").format(signature=Literal(SIGNATURE_HEADER), timestamp=Literal(TIMESTAMP_HEADER))
# A signature counts only if its receipt was stored, so it comes after the delivery; one that is there already undoes
# the whole statement. So a unique key alone decides between copies that are stored at the same time. Every statement
# locks its deliveries in the order of their ids and then its signatures in theirs (`fresh` is complete before the
# first is inserted), so that no two of them deadlock.
_SIGNED = SQL(""", fresh AS MATERIALIZED (
        SELECT r.signature, r.delivery_id, pg_catalog.to_timestamp(r.expires_at) AS expires_at
          FROM unnest(%(signatures)b::uuid[], %(signed_ids)b::text[], %(expiries)b::bigint[])
               AS r(signature, delivery_id, expires_at) JOIN stored USING (delivery_id)
    ), signed AS (
        INSERT INTO relay.signatures (signature, delivery_id, expires_at)
        SELECT signature, delivery_id, expires_at FROM fresh ORDER BY expires_at, signature
    )
""")
_RESULT = SQL("""
    SELECT s.delivery_id, s.id, s.run, s.state, s.waits, s.headers, s.test, s.encoded_body
      FROM complete c LEFT JOIN stored s ON c.undone IS NULL
""")
_STORE = (_STORED + _RESULT).as_bytes(None)
_STORE_SIGNED = (_STORED + _SIGNED + _RESULT).as_bytes(None)
_SIGNATURES_KEY = "signatures_pkey"
_KNOWN = """
    SELECT delivery_id, state, CASE WHEN state = 'dead' THEN body END AS dead_body
      FROM relay.deliveries WHERE delivery_id = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class _Known:
    """A delivery that was stored before. `dead_body` is its body if it is a dead letter, else None."""

    delivery_id: str
    state: State
    dead_body: bytes | None


async def store(
    connection: Connection,
    owner: UUID,
    batch: Sequence[Incoming],
    *,
    lock_ms: int = 0,
    conversation_ms: int | None = None,
) -> list[Stored]:
    """Commit a batch of receipts as deliveries that `owner` is forwarding, that wait, or as ignored; in one statement.

    The order of arrival in a conversation is the order in `batch`.

    A delivery id that is known already gives a `Duplicate`, unless that delivery is dead: then it is forwarded
    again as it is stored, with its new signature, if the body is the same. One with another body is stored as a
    delivery of its own, under a UUID made of both, so that the same webhook gets the same one again. A signature that
    another delivery was stored with gives a `Duplicate` that names that delivery. Storing the same `Incoming` again,
    after a commit whose end was not seen, changes nothing. A row that another session holds is waited for at most
    `lock_ms` (0: without end), that of a conversation at most `conversation_ms` (None: as `lock_ms`).

    Raises:
        psycopg.DataError: Postgres refuses a value; nothing was stored.
        psycopg.errors.LockNotAvailable: another session holds a row. Some may be stored: store them again.
    """
    results: dict[int, Stored] = {}
    pending = dict(enumerate(batch))
    recorded: set[tuple[UUID, str]] = set()
    locks = {"lock_ms": str(lock_ms), "conversation_ms": str(lock_ms if conversation_ms is None else conversation_ms)}
    while pending:  # most batches need one round
        firsts = firsts_of(pending)
        settled = await _store_round(connection, owner, pending, firsts, recorded, locks)
        settled |= copies_of(pending, firsts, settled)
        results |= settled
        pending = {place: item for place, item in pending.items() if place not in settled}
    return [results[place] for place in range(len(batch))]


async def store_drained(
    connection: Connection,
    owner: UUID,
    batch: Sequence[Incoming],
    *,
    lock_ms: int = 0,
    conversation_ms: int | None = None,
) -> list[Stored]:
    """As `store`, for receipts that were spooled: one whose delivery id is known, in any state, is a `Duplicate`.

    It may be a commit whose end was not seen, which is no redelivery. Only a dead letter with another body is another
    webhook, and stored as `store` does. So is one whose signature another delivery came with, however long ago.

    Raises:
        psycopg.DataError: Postgres refuses a value; nothing was stored.
        psycopg.errors.LockNotAvailable: another session holds a row. Some may be stored: store them again.
    """
    found = await _known(connection, batch)
    known: dict[UUID, Stored] = {}
    for item in batch:
        was = found.get(item.receipt.delivery_id)
        if was is not None and was.dead_body in (None, item.receipt.body):
            known[item.claim] = Duplicate(was.delivery_id, State(was.state))
    signed = {item.receipt.signature.key: item for item in batch if item.receipt.signature is not None}
    late = [item.receipt for item in signed.values() if item.claim not in known]
    for key, (delivery_id, state) in (await deliveries_with_expired(connection, late)).items():
        known[signed[key].claim] = Duplicate(delivery_id, state)
    fresh = [item for item in batch if item.claim not in known]
    stored = iter(await store(connection, owner, fresh, lock_ms=lock_ms, conversation_ms=conversation_ms))
    return [known[item.claim] if item.claim in known else next(stored) for item in batch]


async def _known(connection: Connection, items: Sequence[Incoming]) -> dict[str, _Known]:
    """Those of the delivery ids of `items` that are stored, by id."""
    cursor = await exact_rows_of(connection, _Known).execute(_KNOWN, ([item.receipt.delivery_id for item in items],))
    return {found.delivery_id: found for found in await cursor.fetchall()}


async def _store_round(
    connection: Connection,
    owner: UUID,
    pending: dict[int, Incoming],
    firsts: Sequence[int],
    recorded: set[tuple[UUID, str]],
    locks: Mapping[str, str],
) -> dict[int, Stored]:
    """Store those of `pending` that are `firsts`. What is not in the result is to be stored again, as `pending` then
    has it: it was not decided, or gets an id of its own. `recorded` are the signatures and ids of `pending` that are
    known to be in the table already.
    """
    items = [pending[place] for place in firsts]
    try:
        cursor = await _execute_store(connection, owner, items, firsts, recorded, locks)
    except psycopg.errors.UniqueViolation as error:
        if error.diag.constraint_name != _SIGNATURES_KEY:
            raise
        return await _seen_signatures(connection, pending, firsts, recorded)
    except psycopg.Error as error:
        if error.sqlstate == _STORED_MEANWHILE:
            return {}
        raise
    stored = {row["delivery_id"]: row for row in await cursor.fetchall() if row["delivery_id"] is not None}
    settled = _settled(items, firsts, stored)
    if left := [place for place in firsts if place not in settled]:
        known = await _known(connection, [pending[place] for place in left])
        for place in left:
            receipt = pending[place].receipt
            was = known.get(receipt.delivery_id)
            if was is None:
                continue
            if was.state != State.DEAD:
                settled[place] = Duplicate(receipt.delivery_id, State(was.state))
            elif was.dead_body != receipt.body:
                pending[place] = replace(pending[place], receipt=_under_its_own_id(receipt))
    return settled


def _settled(
    items: Sequence[Incoming], firsts: Sequence[int], stored: Mapping[str, Mapping[str, Any]]
) -> dict[int, Stored]:
    """What the statement made of those of `items` that it stored, by their places."""
    settled: dict[int, Stored] = {}
    for place, item in zip(firsts, items, strict=True):
        delivery_id = item.receipt.delivery_id
        if delivery_id not in stored:
            continue
        row = stored[delivery_id]
        if item.receipt.ignored:
            settled[place] = Ignored(delivery_id)
        elif row["state"] == State.FORWARDING:
            settled[place] = Claimed(item.claim, _delivery(item.receipt, row))
        else:
            settled[place] = Waiting(delivery_id, row["id"], WaitReason(row["waits"]))
    return settled


async def _execute_store(
    connection: Connection,
    owner: UUID,
    items: Sequence[Incoming],
    places: Sequence[int],
    recorded: Collection[tuple[UUID, str]],
    locks: Mapping[str, str],
) -> AsyncCursor[dict[str, Any]]:
    receipts = [item.receipt for item in items]
    parameters: dict[str, Any] = {
        **locks,
        "owner": owner,
        "ids": [r.delivery_id for r in receipts],
        "claims": [item.claim for item in items],
        "keys": [item.order_key or "" for item in items],
        "places": list(places),
        "wanted": [item.wanted for item in items],
        "received": [item.received_at for item in items],
        "headers": [json.dumps(r.headers) for r in receipts],
        "bodies": [r.body for r in receipts],
        "encoded_bodies": [r.encoded_body or b"" for r in receipts],
        "events": [r.event for r in receipts],
        "conversations": [r.conversation_id for r in receipts],
        "customers": [r.customer for r in receipts],
        "tests": [r.test for r in receipts],
        "ignored": [r.ignored for r in receipts],
        "destinations": [r.destination or "" for r in receipts],
    }
    signed = [
        (r.signature, r.delivery_id)
        for r in receipts
        if r.signature is not None and (r.signature.key, r.delivery_id) not in recorded
    ]
    if not signed:
        return await exact_rows_of(connection, dict[str, Any]).execute(_STORE, parameters)
    parameters |= {
        "signatures": [signature.key for signature, _ in signed],
        "signed_ids": [delivery_id for _, delivery_id in signed],
        "expiries": [signature.expires_at for signature, _ in signed],
    }
    return await exact_rows_of(connection, dict[str, Any]).execute(_STORE_SIGNED, parameters)


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


def _delivery(receipt: Receipt, row: Mapping[str, Any]) -> Delivery:
    """A delivery as it is stored; `headers` and `encoded_body` are NULL in its first run, which has the receipt's."""
    headers = row["headers"]
    return Delivery(
        id=row["id"],
        delivery_id=receipt.delivery_id,
        run=row["run"],
        headers=receipt.headers if headers is None else kept(tuple((name, value) for name, value in headers)),
        body=receipt.body,
        event=receipt.event,
        conversation_id=receipt.conversation_id,
        test=row["test"],
        encoded_body=receipt.encoded_body if headers is None else row["encoded_body"],
    )
