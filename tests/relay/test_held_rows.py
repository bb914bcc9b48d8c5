"""A row that another session holds delays only the webhook that needs it; what is not stored ends or marks health."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from relay.forwarding import receipt_storage
from tests.relay.test_rejections import rejected
from tests.servers import RunningRelay, relay_settings, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.postgres import Server
    from tests.servers import HeldAgent, Rows

BODY = {"event": "message_created", "id": 9, "conversation": {"id": 77}}
_BACKFILLED = """
    SELECT relay.store_backfill('{backfill-1-9}', '{77}', ARRAY[convert_to(
        '{"event": "message_created", "id": 9, "message_type": "incoming", "account": {"id": 1},
          "conversation": {"id": 77}}', 'UTF8')])
"""
_DELIVERY = """
    INSERT INTO relay.deliveries (delivery_id, claim, test, customer, headers, body, state)
    VALUES (%s, gen_random_uuid(), false, false, '[]', '{}', 'dead')
"""


async def test_no_sender_can_claim_an_id_that_only_the_relay_gives(relay: RunningRelay, rows: Rows) -> None:
    async with await psycopg.AsyncConnection.connect(rows.dsn) as operator:
        await operator.execute(_BACKFILLED)
        for claimed in ("backfill-1-9", "Backfill-x", "relay-start-1", "replay-7"):
            answer = await relay.post(BODY, X_Chatwoot_Delivery=claimed)
            assert (answer.status_code, answer.json().get("duplicate")) == (200, None)
            assert answer.json()["delivery_id"] != claimed
    assert rows("SELECT count(*) FROM relay.deliveries WHERE delivery_id ~* '^(backfill|relay|replay)'") == [1]


async def test_other_conversations_do_not_wait_for_a_held_row_and_health_says_what_is_not_stored(
    start_relay: Callable[..., Awaitable[RunningRelay]], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = await start_relay()
    held = [f"held-{n}" for n in range(20)]
    async with await psycopg.AsyncConnection.connect(rows.dsn) as other:
        for delivery_id in held:
            await other.execute(_DELIVERY, (delivery_id,))
        bodies = [BODY | {"conversation": {"id": number}} for number in range(1, 21)]
        waiting = [
            asyncio.create_task(relay.post(body, X_Chatwoot_Delivery=delivery_id))
            for body, delivery_id in zip(bodies, held, strict=True)
        ]
        for first in range(100, 200, 25):
            others = [BODY | {"conversation": {"id": first + number}} for number in range(25)]
            answers = await asyncio.gather(*(relay.post(one, X_Chatwoot_Delivery=str(uuid4())) for one in others))
            assert {answer.status_code for answer in answers} == {200}
        monkeypatch.setattr(receipt_storage, "STORE_PATIENCE_S", 0.0)
        assert {(await task).status_code for task in waiting} == {503}
        health = await relay.client.get("/health")
        assert health.status_code == 200
        assert health.json()["storing"] == {
            "ok": False, "not_stored": 20,
            "reason": "Postgres refused a statement: canceling statement due to lock timeout",
        }  # fmt: skip
        await until(lambda: rejected(rows)["not_stored", 503] == 20)
        await other.rollback()
    monkeypatch.undo()
    answers = await asyncio.gather(*(relay.post(BODY, X_Chatwoot_Delivery=delivery_id) for delivery_id in held))
    assert {answer.status_code for answer in answers} == {200}


async def test_whatever_makes_storing_fail_ends_health_until_storing_works_again(
    start_relay: Callable[..., Awaitable[RunningRelay]], rows: Rows
) -> None:
    relay = await start_relay()
    await rows.change(
        "CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'x' USING ERRCODE = '53200'; END $$;"
        "CREATE TRIGGER is_full BEFORE INSERT ON relay.deliveries FOR EACH ROW EXECUTE FUNCTION full()"
    )
    health = await until(lambda: _health(relay, 503), what="health ends though no webhook comes")
    assert health["database"]["error"].startswith("Postgres refuses to store webhooks: ")
    await rows.change("DROP TRIGGER is_full ON relay.deliveries")
    await until(lambda: _health(relay, 200), what="health is back though no webhook comes")
    assert (await relay.client.get("/health")).json()["storing"] == {"ok": True, "not_stored": 0}
    assert rows("SELECT count(*) FROM relay.deliveries") == [0]


async def _health(relay: RunningRelay, status: int) -> dict[str, dict[str, str]] | None:
    answer = await relay.client.get("/health")
    document: dict[str, dict[str, str]] = answer.json()
    return document if answer.status_code == status else None


@pytest.mark.usefixtures("impatient_store")
@pytest.mark.slow
async def test_health_ends_while_a_login_holds_every_lock_that_postgres_has(server: Server, agent: HeldAgent) -> None:
    server.stop()
    server.start("-c", "max_locks_per_transaction=10", "-c", "max_connections=25")
    relay = await RunningRelay(relay_settings(agent), server.dsn).ready()
    async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as reader:
        with contextlib.suppress(psycopg.errors.OutOfMemory):
            for n in range(100_000):
                await reader.execute("SELECT pg_advisory_lock(%s)", (n,))
        assert (await relay.post(BODY)).status_code == 503
        await until(lambda: _health(relay, 503), what="health ends")
    await until(lambda: _health(relay, 200), what="health is back")
    assert (await relay.post(BODY)).status_code == 200
    await relay.stop()
