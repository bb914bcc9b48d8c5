"""Webhooks of one conversation keep their order of arrival although Postgres does not take each at its first try."""

from __future__ import annotations

import asyncio
import io
from collections import defaultdict
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from relay.domain.delivery import Receipt
from relay.forwarding import receipt_storage
from relay.forwarding.receipt_storage import ReceiptStorage
from relay.forwarding.spooling import Spooling
from relay.store import receipts
from relay.store.database import Database
from relay.store.receipts import ReceiptStore
from relay.store.spool import Spool
from relay.telemetry.forwarding_log import ForwardingLog
from relay.telemetry.log_sink import LogSink
from relay.telemetry.metrics import Counters
from tests.relay.test_backlog import all_delivered, message, order_at
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import pytest

    from tests.servers import HeldAgent, Rows, RunningRelay

    StartRelay = Callable[..., Awaitable[RunningRelay]]

_HOLD = "UPDATE relay.conversations SET touched_at = touched_at"
_REFUSE_SOME = """
    CREATE SEQUENCE tries;
    CREATE FUNCTION refuse_some() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        try bigint := nextval('tries');
    BEGIN
        IF try % 4 = 0 THEN
            RAISE EXCEPTION 'held' USING ERRCODE = (ARRAY['55P03', '40001', '57014'])[1 + try % 3];
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse_some BEFORE INSERT ON relay.deliveries FOR EACH ROW EXECUTE FUNCTION refuse_some();
"""


async def test_a_webhook_does_not_overtake_one_whose_conversation_is_committed_elsewhere(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "CONVERSATION_LOCK_MS", 50)
    relay = await start_relay(relay_respond="stored")
    await relay.post(message(0))
    async with await psycopg.AsyncConnection.connect(rows.dsn) as other:
        await other.execute(_HOLD)
        first = asyncio.create_task(relay.post(message(1)))
        await until(lambda: "not stored" in relay.output, what="the first one is to be tried again")
        await other.rollback()
    later = [await relay.post(message(number)) for number in range(2, 5)]
    assert {answer.status_code for answer in [await first, *later]} == {202}
    await until(all_delivered(rows, 5))
    assert order_at(agent) == {1: list(range(5))}


async def test_a_commit_of_another_relay_that_takes_long_splits_no_batch(
    start_relay: StartRelay, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "CONVERSATION_LOCK_MS", 60_000)
    relay = await start_relay(relay_respond="stored")
    await relay.post(message(0))
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    cancelled = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND query_start < now() - interval '100 ms'"
    async with await psycopg.AsyncConnection.connect(rows.dsn) as other:
        await other.execute(_HOLD)
        posts = [asyncio.create_task(relay.post(message(number))) for number in range(1, 4)]
        await until(lambda: rows.one(waits))
        await until(lambda: rows.one(cancelled, (other.info.backend_pid,)))  # twice as long as for another row
        await other.rollback()
    assert {(await post).status_code for post in posts} == {202}
    assert "not stored" not in relay.output
    await until(all_delivered(rows, 4))


async def test_however_often_postgres_refuses_some_the_positions_are_those_of_arrival(
    rows: Rows, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipt_storage, "STORE_PATIENCE_S", 60.0)
    await rows.change(_REFUSE_SOME)
    database = Database(dsn)
    await database.open()
    store, sink = ReceiptStore(database, uuid4()), LogSink(stream=io.StringIO(), level="error")
    log = ForwardingLog(sink, "http://agent")
    spooling = Spooling(Spool(tmp_path, dsn, max_bytes=0), log, Counters(), "http://agent")
    storage = ReceiptStorage(store, spooling, log)
    storage.open()
    running = asyncio.create_task(store.run())
    arriving = [
        asyncio.create_task(storage.store(receipt(conversation=number % 3, number=number), wanted=False))
        for number in range(60)
    ]
    await asyncio.gather(*arriving)
    running.cancel()
    await store.close()
    await database.close()
    sink.close()
    stored: dict[str, list[int]] = defaultdict(list)
    for key, delivery_id in rows("SELECT conversation_key, delivery_id FROM relay.deliveries ORDER BY position"):
        stored[key].append(int(delivery_id))
    assert stored == {f"1/{conversation}": list(range(conversation, 60, 3)) for conversation in range(3)}


def receipt(conversation: int, number: int) -> Receipt:
    """A message, whose delivery id is its number."""
    return Receipt(
        delivery_id=str(number), headers=(), body=b"{}", event="message_created", conversation_id=str(conversation),
        account_id="1", customer=True, test=False, ignored=False,
    )  # fmt: skip
