"""Finishes runs: state, attempts, facts, replay counts and the next turn in the conversation, in one statement a batch.

The relay can claim the next delivery of the conversation in that statement. A claim fences it: a relay that lost its
lease finds that its claim was replaced, and finishes nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Literal

from relay.domain.delivery import Deferred, FactType, State
from relay.domain.facts import SCOPE
from relay.store.claims import claimed_columns, read_claimed
from relay.store.database import exact_rows_of
from relay.store.deliveries import FactsAside, Finished
from relay.text import SHOWN_CHARS, clean_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from relay.domain.facts import Fact
    from relay.store.database import Connection
    from relay.store.deliveries import Finish

# A run that failed for good while the breaker is open waits instead of dying.
_MOVED = SQL("""
    WITH finishes AS MATERIALIZED (
        SELECT f.*, CASE WHEN f.retryable AND g.open THEN 'waiting' ELSE f.state END AS becomes
          FROM (SELECT set_config('lock_timeout', coalesce(%(lock_ms)s, current_setting('lock_timeout')), true)) AS l
         CROSS JOIN relay.gate g CROSS JOIN jsonb_to_recordset(%(finishes)s::jsonb) AS f(
            id bigint, claim uuid, next_claim uuid, state text, retryable boolean, waits text, pause_ms float8,
            made jsonb, attempts integer, duration_ms integer, final_status text, last_error text, agent_status text,
            facts jsonb)
    ), moved AS (
        UPDATE relay.deliveries d
           SET state = f.becomes, owner = NULL, tries = f.attempts, spent_ms = f.duration_ms, attempts = f.attempts,
               duration_ms = f.duration_ms, agent_status = f.agent_status,
               final_status = coalesce(f.final_status, d.final_status),
               last_error = CASE WHEN f.final_status IS NULL THEN d.last_error ELSE f.last_error END,
               finished_at = CASE WHEN f.becomes <> 'waiting' THEN now() END,
               waits = CASE WHEN f.becomes = 'waiting' THEN coalesce(f.waits, 'breaker') END,
               since = CASE WHEN f.becomes = 'waiting' THEN now() ELSE d.since END,
               next_attempt_at = CASE WHEN f.becomes = 'waiting'
                                      THEN now() + make_interval(secs => coalesce(f.pause_ms, 0) / 1000) END
          FROM finishes f
         WHERE d.id = f.id AND d.claim = f.claim AND d.state = 'forwarding'
        RETURNING d.id, d.run, d.plan_id, d.state, d.conversation_key AS key, d.position, f.made, f.next_claim,
                  CASE WHEN f.becomes = 'waiting' THEN '[]'
                       WHEN f.becomes = 'dead' AND d.repeats
                       THEN (SELECT coalesce(jsonb_agg(t), '[]') FROM jsonb_array_elements(f.facts) AS t
                              WHERE t ->> 'fact_type' <> {dead_letter}) ELSE f.facts END AS facts
    ), tried AS (
        INSERT INTO relay.attempts (delivery, run, number, started_at, wait_ms, duration_ms, status, error, answer)
        SELECT m.id, m.run, t.*
          FROM moved m, jsonb_to_recordset(m.made) AS t(
               number integer, started_at timestamptz, wait_ms integer, duration_ms integer, status text,
               error text, answer text)
            ON CONFLICT DO NOTHING
    )
""").format(dead_letter=Literal(FactType.DEAD_LETTER.value))
# Where nothing follows in a conversation its turn ends here; where something does, or may, `relay.pass_turns` reads
# again once the conversation's row is locked. Rows are locked in the order of their keys.
_TURNS = SQL(""", over AS MATERIALIZED (
        SELECT m.key, m.position, m.next_claim FROM moved m
         WHERE m.key IS NOT NULL AND m.state <> 'waiting' ORDER BY m.key, m.position
    ), turns AS (
        INSERT INTO relay.conversations AS c (key, issued)
        SELECT o.key, o.position FROM over o
            ON CONFLICT (key) DO UPDATE SET head = NULL WHERE c.head = excluded.issued AND c.issued = excluded.issued
        RETURNING key
    ), passed AS MATERIALIZED (
        SELECT p.* FROM (
               SELECT array_agg(o.key) AS keys, array_agg(o.position) AS positions, array_agg(o.next_claim) AS claims
                 FROM over o WHERE NOT EXISTS (SELECT FROM turns t WHERE t.key = o.key)) AS ended
         CROSS JOIN LATERAL relay.pass_turns(ended.keys, ended.positions, ended.claims, %(owner)s) AS p
         WHERE ended.keys IS NOT NULL
    ), promoted AS MATERIALIZED (
        SELECT count(*) FILTER (WHERE state <> 'forwarding') AS number FROM passed
    ), next AS MATERIALIZED (
        SELECT {columns} FROM passed d WHERE d.state = 'forwarding'
    )
""").format(columns=claimed_columns)
# What a rule or a temporary table of the session's own may take is left to `relay.write_facts`.
_FACTS_INSERTED = SQL(""", inserted AS (
        INSERT INTO dashboard_facts (fact_type, scope, value, metadata)
        SELECT t.fact_type, %(scope)s,
               CASE WHEN t.payload IS NULL THEN t.value
                    ELSE jsonb_build_object('payload', t.payload::jsonb) || t.value END, t.metadata
          FROM moved m, jsonb_to_recordset(m.facts) AS t(
               fact_type text, value jsonb, metadata jsonb, payload text)
        RETURNING 1
    ), expected AS MATERIALIZED (
        SELECT relay.expect_facts((SELECT count(*) FROM inserted WHERE EXISTS (
                                          SELECT FROM relay.fact_tables f JOIN pg_catalog.pg_class c ON c.oid = f.facts
                                           WHERE c.oid = to_regclass('dashboard_facts') AND NOT c.relhasrules)),
                                  (SELECT coalesce(sum(jsonb_array_length(m.facts)), 0)::bigint FROM moved m))
    )
""")
_FACTS_WRITTEN = SQL(""", written AS MATERIALIZED (
        SELECT w.refused, w.late, w.reason
          FROM relay.write_facts((SELECT array_agg(m.facts) FROM moved m), %(scope)s, %(facts_now)s) AS w
    )
""")
_SETTLED = SQL(""", settled AS (
        UPDATE relay.replay_items i SET state = m.state, settled_at = now()
          FROM moved m
         WHERE i.plan_id = m.plan_id AND i.delivery = m.id AND i.state = 'sending' AND m.state <> 'waiting'
        RETURNING i.plan_id, i.state
    ), counted AS (
        UPDATE relay.replay_plans p SET delivered = p.delivered + c.delivered, dead = p.dead + c.dead
          FROM (SELECT plan_id, count(*) FILTER (WHERE state = 'delivered') AS delivered,
                       count(*) FILTER (WHERE state = 'dead') AS dead FROM settled GROUP BY plan_id) c
         WHERE p.id = c.plan_id
    )
""")
# The usual one, and the one that takes 50 µs more and that no fact can fail.
_ENDED = SQL("""
    SELECT m.id AS ended, m.state, p.number > 0 AS promoted, 0 AS refused, 0 AS late, NULL AS reason, n.*
      FROM moved m CROSS JOIN promoted p CROSS JOIN expected LEFT JOIN next n ON n.conversation_key = m.key
""")
_ENDED_GUARDED = SQL("""
    SELECT m.id AS ended, m.state, p.number > 0 AS promoted, w.refused, w.late, w.reason, n.*
      FROM moved m CROSS JOIN promoted p CROSS JOIN written w LEFT JOIN next n ON n.conversation_key = m.key
""")
_FINISH = (_MOVED + _FACTS_INSERTED + _SETTLED + _TURNS + _ENDED).as_bytes(None)
_FINISH_GUARDED = (_MOVED + _FACTS_WRITTEN + _SETTLED + _TURNS + _ENDED_GUARDED).as_bytes(None)
_FINISHED = SQL("""
    SELECT f.id AS ended, f.state, false AS promoted, n.*
      FROM unnest(%(ids)s::bigint[], %(claims)s::uuid[], %(next_claims)s::uuid[]) AS given(id, claim, next_claim)
      JOIN relay.deliveries f ON f.id = given.id AND f.claim = given.claim
       AND f.state IN ('delivered', 'dead', 'discarded', 'waiting')
      LEFT JOIN LATERAL (
           SELECT {columns} FROM relay.deliveries d
            WHERE d.owner = %(owner)s AND d.state = 'forwarding' AND d.claim = given.next_claim) AS n ON true
""").format(columns=claimed_columns)


_LOST = Finished(recorded=False)
_LOCK_AFTER_CANCEL_MS = 50


async def finish(
    connection: Connection,
    batch: Sequence[Finish],
    *,
    owner: UUID | None = None,
    guarded: bool = False,
    facts_later: bool = False,
    lock_ms: int | None = None,
    on_aside: Callable[[FactsAside], object] = lambda _: None,
) -> list[Finished]:
    """Commit a batch of outcomes: states, attempts, facts, replay counts and turns, in one statement.

    `recorded` of a result is False where another relay has taken the delivery over: nothing of that outcome was
    recorded. Finishing again, after a commit whose end was not seen, records nothing twice and returns True, with the
    next delivery if the relay `owner` got it.

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
        "owner": owner,
        "lock_ms": None if lock_ms is None else str(lock_ms),
    }
    facts_now = not facts_later and not any(item.facts_later for item in batch)
    rows = None
    if facts_now and not guarded:
        try:
            rows = await (await exact_rows_of(connection, dict[str, Any]).execute(_FINISH, given)).fetchall()
        except psycopg.errors.QueryCanceled:
            facts_now = False
            given["lock_ms"] = given["lock_ms"] or str(_LOCK_AFTER_CANCEL_MS)
        except psycopg.Error as error:  # raised by whatever trigger, it may have any SQLSTATE
            if error.sqlstate is None or connection.info.transaction_status is not TransactionStatus.IDLE:
                raise
    if rows is None:
        given["facts_now"] = facts_now
        rows = await (await exact_rows_of(connection, dict[str, Any]).execute(_FINISH_GUARDED, given)).fetchall()
    moved = {row["ended"]: await _finished(connection, row) for row in rows}
    for row in rows[:1]:  # each row says the same of the whole batch
        if aside := FactsAside(row["refused"], row["late"], clean_value(row["reason"], limit=SHOWN_CHARS)):
            on_aside(aside)
    if len(moved) < len(batch):
        left = [item for item in batch if item.delivery.id not in moved]
        asked = {
            "ids": [item.delivery.id for item in left],
            "claims": [item.claim for item in left],
            "next_claims": [item.next_claim for item in left],
            "owner": owner,
        }
        for row in await (await exact_rows_of(connection, dict[str, Any]).execute(_FINISHED, asked)).fetchall():
            moved[row["ended"]] = await _finished(connection, row)
    return [moved.get(item.delivery.id, _LOST) for item in batch]


async def _finished(connection: Connection, row: Mapping[str, Any]) -> Finished:
    """What a finishing statement says of one run; columns of the next delivery are NULL where none was claimed."""
    claimed = await read_claimed(connection, [row]) if row["id"] is not None else [None]
    return Finished(recorded=True, state=State(row["state"]), promoted=row["promoted"], next=claimed[0])


def _finish_row(item: Finish) -> dict[str, Any]:
    outcome = item.outcome
    last = outcome.attempts[-1] if outcome.attempts else None
    row = {
        "id": item.delivery.id,
        "claim": str(item.claim),
        "next_claim": item.next_claim and str(item.next_claim),
        "attempts": outcome.count,
        "duration_ms": outcome.duration_ms,
        "final_status": last and last.status,
        "last_error": last and last.error,
        "agent_status": last and last.agent_status,
        "made": [
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
    if isinstance(outcome, Deferred):
        return row | {"state": State.WAITING, "retryable": False, "waits": outcome.reason, "pause_ms": outcome.pause_ms}
    retryable = outcome.last.retryable and not item.delivery.test
    return row | {"state": outcome.state, "retryable": retryable}


def fact_row(fact: Fact) -> dict[str, Any]:
    """`fact` as the JSON object that the store's statements unfold into a row of `dashboard_facts`."""
    return {
        "fact_type": fact.fact_type,
        "value": fact.value,
        "metadata": fact.metadata,
        "payload": fact.payload,
    }
