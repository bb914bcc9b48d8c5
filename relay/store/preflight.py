"""Tries what every finish needs, as the role that the relay runs as, in a transaction that is rolled back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from relay.domain.delivery import Attempt, FactType, Outcome, Receipt
from relay.domain.facts import Fact, facts_of_run
from relay.errors import SchemaError
from relay.store import facts
from relay.store.database import connect, described, time_limit, unavailable
from relay.store.deliveries import Claimed, FactsAside, Finish, Incoming
from relay.store.finishing import finish
from relay.store.refusal import TABLE, explain
from relay.store.storing import store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.store.database import Connection

_LIMIT_MS = 5_000
_BODY = b'{"event": "message_created", "id": 12345, "content": "Test", "message_type": 0, "conversation": {"id": 1}}'
_ENDPOINT = "https://hotdash-agent-service.fly.dev/webhooks/chatwoot"


async def check(dsn: str) -> None:
    """Store and finish deliveries and record every type of fact, twice each; nothing of it stays.

    A table that is merely slow or locked passes.

    Raises:
        StoreUnavailable: Postgres is away.
        SchemaError: the database refuses something; the message is one line that says what, and the remedy.
    """
    try:
        connection = await connect(dsn, "hotdash-relay start")
    except psycopg.OperationalError as error:
        raise unavailable(error) from error
    async with connection:
        try:
            async with connection.transaction(force_rollback=True):
                async with time_limit(connection, _LIMIT_MS):
                    pass
                await _store_and_finish(connection)
                await _record(connection)
                await _refuse_uncounted(connection)
        except psycopg.errors.QueryCanceled:
            return
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise unavailable(error) from error
        except psycopg.Error as error:
            raise SchemaError(
                f"The relay cannot store and finish deliveries in this database: {described(error)}. "
                "Run `relay migrate --roles` as the owner of schema relay, and grant relay_service to the relay's login"
            ) from error


async def _store_and_finish(connection: Connection) -> None:
    owner = uuid4()
    stored = await store(connection, owner, [_incoming() for _ in range(5)])
    claimed = [one for one in stored if isinstance(one, Claimed)]
    for success in (True, False):
        batch = [_finished(one, success=success) for one in claimed[success:4:2]]
        _refuse(await _outcome_of(connection, batch), [FactType.RETRY] if success else [FactType.DEAD_LETTER])
    await finish(connection, [_finished(claimed[-1], success=True)], facts_later=True)


async def _outcome_of(connection: Connection, batch: Sequence[Finish]) -> FactsAside:
    seen = [FactsAside()]
    await finish(connection, batch, guarded=True, on_aside=seen.append)
    return seen[-1]


async def _record(connection: Connection) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    run = {"attempts": 1, "success": True, "durationMs": 145, "finalStatus": "200"}
    samples = [
        Fact(
            FactType.REPLAY,
            run | {"requestedBy": "operator", "replayId": 1},
            {"timestamp": now, "deliveryId": str(uuid4()), "event": "message_created", "conversationId": 1},
        ),
        Fact(FactType.REJECTED, {"reason": "invalid_signature", "count": 1}, {"timestamp": now, "status": 401}),
        Fact(
            FactType.HEALTH,
            {"target": "agent", "ok": True, "status": 200, "latencyMs": 12.5, "error": None},
            {"timestamp": now, "url": "https://hotdash-agent-service.fly.dev/health"},
        ),
        Fact(
            FactType.ALERT,
            {"rule": "dlq-p2", "severity": "P2", "state": "raised", "value": 11.0, "threshold": 10},
            {"timestamp": now, "condition": "more than 10 dead letters in 1 h", "since": now},
        ),
    ]
    for sample in samples:
        _refuse(await facts.record(connection, [sample, replace(sample)]), [sample.fact_type])


async def _refuse_uncounted(connection: Connection) -> None:
    row = await (await connection.execute("SELECT relay.facts_are_followed()")).fetchone()
    if row is None or not row[0]:
        raise SchemaError(
            f"The figures do not count what is written into {TABLE}: it was made again, or its triggers are "
            "gone or disabled. Remedy: run `relay migrate` as the owner of it and of schema relay"
        )


def _refuse(aside: FactsAside, types: Sequence[FactType]) -> None:
    if aside.refused:
        what, remedy = explain(aside.reason)
        raise SchemaError(
            f"{TABLE} refuses facts that the relay must record ({', '.join(types)}): {what}. "
            f"Remedy: {remedy}. Then start the relay again"
        )


def _incoming() -> Incoming:
    receipt = Receipt(
        delivery_id=f"start-{uuid4()}",
        headers=(("content-type", "application/json"),),
        body=_BODY,
        event="message_created",
        conversation_id="1",
        customer=False,
        test=True,  # neither a hold nor the breaker stops it
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
