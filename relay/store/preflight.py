"""Tries what every finish needs, as the role that the relay runs as, in a transaction that is rolled back."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from relay.domain.alerts import RULES
from relay.domain.delivery import OWN_IDS, Attempt, FactType, Outcome, Receipt, Signature
from relay.domain.facts import Fact, facts_of_run
from relay.errors import FactsRefused, SchemaError, StatementRefused
from relay.store import effects, facts, instances
from relay.store.database import connect, time_limit
from relay.store.deliveries import Claimed, FactsAside, Finish, Incoming
from relay.store.failures import described, unavailable
from relay.store.finishing import finish
from relay.store.refusal import TABLE, explain
from relay.store.storing import store
from relay.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from relay.store.database import Connection
    from relay.store.effects import Before

_LIMIT_MS = 5_000
_TRIAL_LOCK_MS = 1_000
_CONTENT = os.urandom(1_500).hex()  # as long as a usual webhook's, and not compressible: it is stored out of line
_BODY = (
    f'{{"event": "message_created", "id": 12345, "content": "{_CONTENT}", '
    '"message_type": 0, "conversation": {"id": 1}}'
).encode()
_ENDPOINT = "https://hotdash-agent-service.fly.dev/webhooks/chatwoot"


async def check(dsn: str) -> None:
    """Store and finish deliveries and record every type of fact, twice each; nothing of it stays.

    Deferred constraints are checked as a commit would. A table that is merely slow or locked passes.

    Raises:
        StoreUnavailable: Postgres is away.
        FactsRefused: `dashboard_facts` does not take the relay's facts; the message says why, and the remedy.
        SchemaError: the database refuses something else; the message is one line that says what, and the remedy.
    """
    try:
        await _try_all(dsn)
    except psycopg.Error as error:
        if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) and not _is_refusal(error):
            await effects.refuse_if_facts_end_the_session(dsn, _store_and_finish, _record)
        await effects.refuse_if_facts_change_the_session(dsn, _samples())
        if isinstance(error, psycopg.errors.QueryCanceled):
            return
        if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
            raise unavailable(error) from error
        raise SchemaError(
            f"The relay cannot store and finish deliveries in this database: {described(error)}. "
            "Run `relay migrate --roles` as the owner of schema relay, and grant relay_service to the relay's login"
        ) from error


def _is_refusal(error: psycopg.Error) -> bool:
    """True if Postgres refused one statement: the session did not end."""
    return isinstance(unavailable(error), StatementRefused)


async def _try_all(dsn: str) -> None:
    connection = await connect(dsn, "hotdash-relay start")
    async with connection, connection.transaction(force_rollback=True):
        async with time_limit(connection, _LIMIT_MS):
            pass
        was = await effects.before(connection, _LIMIT_MS, facts.RECORD_LIMIT_MS)
        before = await _counted(connection)
        written = [*await _store_and_finish(connection, was), *await _record(connection, was)]
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        await effects.refuse_changes(connection, was)
        await _refuse_uncounted(connection)
        if None not in written:
            await _refuse_altered(connection, was, before, [fact for fact in written if fact is not None])


async def _store_and_finish(connection: Connection, was: Before) -> list[Fact | None]:
    """The facts that were written; None among them if one was late."""
    written: list[Fact | None] = []
    owner = uuid4()
    stored = await store(connection, owner, [_incoming() for _ in range(5)])
    claimed = [one for one in stored if isinstance(one, Claimed)]
    for success in (True, False):
        batch = [_finished(one, success=success) for one in claimed[success:4:2]]
        aside = await _outcome_of(connection, was, batch)
        _refuse(aside, [FactType.RETRY] if success else [FactType.DEAD_LETTER])
        written += [None] if aside.late else [fact for item in batch for fact in item.facts]
    await finish(connection, [_finished(claimed[-1], success=True)], facts_later=True)
    return written


async def _outcome_of(connection: Connection, was: Before, batch: Sequence[Finish]) -> FactsAside:
    seen = [FactsAside()]
    began = time.monotonic()
    await finish(connection, batch, guarded=True, on_aside=seen.append)
    await effects.refuse_raised_delays(connection, was, seen[-1], time.monotonic() - began)
    return seen[-1]


async def _record(connection: Connection, was: Before) -> list[Fact | None]:
    """The facts that were written; None among them if one was late."""
    written: list[Fact | None] = []
    for sample in _samples():
        began = time.monotonic()
        aside = await facts.record(connection, [sample, replace(sample)])
        await effects.refuse_raised_delays(connection, was, aside, time.monotonic() - began)
        _refuse(aside, [sample.fact_type])
        written += [None] if aside.late else [sample, sample]
    return written


def _samples() -> list[Fact]:
    """A fact of each type."""
    rule, now = RULES[0], rfc3339(datetime.now(UTC))
    run = {"attempts": 1, "success": True, "durationMs": 145, "finalStatus": "200"}
    of_delivery = {"timestamp": now, "deliveryId": str(uuid4()), "event": "message_created", "conversationId": 1}
    return [
        Fact(FactType.REPLAY, run | {"requestedBy": "operator", "replayId": 1}, of_delivery),
        Fact(FactType.RETRY, run, of_delivery),
        Fact(FactType.DEAD_LETTER, run | {"lastError": "Agent SDK answered 503", "payload": {}}, of_delivery),
        Fact(FactType.REJECTED, {"reason": "invalid_signature", "count": 1}, {"timestamp": now, "status": 401}),
        Fact(
            FactType.HEALTH,
            {"target": "agent", "ok": True, "status": 200, "latencyMs": 12.5, "error": None},
            {"timestamp": now, "url": "https://hotdash-agent-service.fly.dev/health"},
        ),
        Fact(
            FactType.ALERT,
            {
                "rule": rule.name,
                "severity": rule.severity,
                "state": "raised",
                "value": 1.5,
                "threshold": rule.threshold,
            },
            {"timestamp": now, "condition": rule.condition, "since": now},
        ),
    ]


async def _refuse_uncounted(connection: Connection) -> None:
    row = await (await connection.execute("SELECT relay.facts_are_followed()")).fetchone()
    if row is None or not row[0]:
        raise FactsRefused(
            f"The figures do not count what is written into {TABLE}: it was made again, or its triggers are "
            "gone or disabled",
            "run `relay migrate` as the owner of it and of schema relay",
        )


_COUNTED = """
    SELECT fact_type, success, test, sum(facts)::bigint FROM relay.minutes
     WHERE writer = pg_backend_pid() GROUP BY 1, 2, 3
"""
_FIGURES = frozenset({FactType.RETRY, FactType.DEAD_LETTER, FactType.REPLAY, FactType.REJECTED})


async def _counted(connection: Connection) -> Counter[tuple[str, bool, bool]]:
    """How many facts of each type, success and test this session has counted."""
    rows = await (await connection.execute(_COUNTED)).fetchall()
    return Counter({(row[0], row[1], row[2]): row[3] for row in rows})


async def _refuse_altered(
    connection: Connection, was: Before, before: Counter[tuple[str, bool, bool]], written: Sequence[Fact]
) -> None:
    """Compare what the figures count with what was written: a trigger may change a fact, or remove it afterwards."""
    expected: Counter[tuple[str, bool, bool]] = Counter()
    for fact in written:
        if fact.fact_type in _FIGURES:
            is_test = (fact.metadata or {}).get("test") is True
            expected[fact.fact_type.value, fact.value.get("success") is True, is_test] += 1
    found = await _counted(connection)
    found.subtract(before)
    if +found != expected and was.triggers:
        raise FactsRefused(
            f"The figures are wrong: {effects.subject(was.triggers)} of {TABLE} changes the facts that the relay "
            "records, or removes them",
            "let the trigger's function leave fact types that begin with 'support.' as they are",
        )


def _refuse(aside: FactsAside, types: Sequence[FactType]) -> None:
    if aside.refused:
        what, remedy = explain(aside.reason)
        raise FactsRefused(f"{TABLE} refuses facts that the relay must record ({', '.join(types)}): {what}", remedy)


async def has_run(connection: Connection) -> bool:
    """True if a delivery was stored in this database: it is not a fresh one."""
    row = await (await connection.execute("SELECT EXISTS (SELECT FROM relay.deliveries)")).fetchone()
    return bool(row and row[0])


async def try_storing(connection: Connection, owner: UUID) -> None:
    """Store a webhook and take it back, then commit something: a mark on the row of the relay `owner`.

    Raises:
        psycopg.Error: the database stores no webhook, or commits nothing.
    """
    async with connection.transaction():
        async with connection.transaction(force_rollback=True):
            await store(connection, owner, [_incoming()], lock_ms=_TRIAL_LOCK_MS)
        await instances.touch(connection, owner)


def _incoming() -> Incoming:
    receipt = Receipt(
        delivery_id=f"{OWN_IDS[0]}start-{uuid4()}",
        headers=(("content-type", "application/json"),),
        body=_BODY,
        event="message_created",
        conversation_id="1",
        customer=False,
        test=True,  # neither a hold nor the breaker stops it
        signature=Signature(uuid4(), int(time.time())),
    )
    return Incoming(uuid4(), receipt, f"start/{uuid4()}")


def _finished(claimed: Claimed, *, success: bool) -> Finish:
    attempt = Attempt(
        number=1,
        started_at=datetime.now(UTC),
        wait_ms=0,
        duration_ms=145,
        status="200" if success else "503",
        success=success,
        retryable=not success,
        error=None if success else "Agent SDK answered 503",
        answer='{"status": "ok"}',
    )
    outcome = Outcome((attempt,), duration_ms=145)
    return Finish(claimed.claim, claimed.delivery, outcome, facts_of_run(claimed.delivery, outcome, _ENDPOINT))
