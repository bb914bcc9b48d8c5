"""An outcome that cannot be recorded, whatever the reason, keeps no other waiting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from relay.forwarding import finisher
from relay.forwarding.finisher import Finisher
from tests.relay.traces import seen_of
from tests.servers import PATIENCE_S, HeldAgent, Rows, RunningRelay, until
from tests.store.test_late_facts import none_aside

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.usefixtures("impatient_finisher")

_ENDS_THE_SESSION = """
    CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.metadata ->> 'deliveryId' = 'poison' THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
            PERFORM pg_sleep(600);
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER ends BEFORE INSERT ON dashboard_facts FOR EACH ROW EXECUTE FUNCTION end_session()
"""
_STATES = "SELECT state, count(*) FROM relay.deliveries WHERE delivery_id = ANY(%s) GROUP BY state"
_RECORDED = (
    "SELECT count(*), count(DISTINCT metadata ->> 'deliveryId') FROM dashboard_facts WHERE fact_type LIKE '%retry'"
)


def body(delivery_id: str) -> dict[str, object]:
    """A message in a conversation of its own."""
    return {"event": "message_created", "id": 1, "content": delivery_id}


async def test_many_locked_rows_keep_no_outcome_of_the_same_batch_waiting(
    start_relay: Callable[..., Awaitable[RunningRelay]],
    agent: HeldAgent,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finisher, "_ALONE_LIMIT_MS", int(PATIENCE_S * 1000))
    monkeypatch.setattr(finisher, "DEDICATED_SILENCE_S", PATIENCE_S)
    relay = await start_relay()
    held, free = [f"held-{n}" for n in range(12)], [f"free-{n}" for n in range(12)]
    agent.hold()
    posted = [asyncio.create_task(relay.post(body(one), X_Chatwoot_Delivery=one)) for one in (*held, *free)]
    await until(lambda: len(agent.seen) == len(posted))
    async with await psycopg.AsyncConnection.connect(rows.dsn) as blocker:
        await blocker.execute("SELECT FROM relay.deliveries WHERE delivery_id = ANY(%s) FOR UPDATE", (held,))
        agent.release()
        await until(lambda: rows(_STATES, (free,)) == [("delivered", 12)])
        assert rows(_STATES, (held,)) == [("forwarding", 12)]
    await until(lambda: rows(_STATES, (held,)) == [("delivered", 12)])
    await asyncio.gather(*posted)
    assert {len(seen_of(agent, one)) for one in (*held, *free)} == {1}


async def test_a_fact_that_ends_its_session_keeps_no_other_waiting_and_comes_back(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: HeldAgent, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finisher, "_ROUND_S", 0.2)
    monkeypatch.setattr(Finisher, "interval_s", 0.1)
    relay = await start_relay()
    await asyncio.to_thread(rows, _ENDS_THE_SESSION)
    names = ["poison", *(f"other-{n}" for n in range(6))]
    agent.hold()
    posted = [asyncio.create_task(relay.post(body(one), X_Chatwoot_Delivery=one)) for one in names]
    await until(lambda: len(agent.seen) == len(names))
    agent.release()
    await until(lambda: rows(_STATES, (names,)) == [("delivered", 7)])
    await asyncio.gather(*posted)
    await until(lambda: rows(_RECORDED) == [(6, 6)], what="the others' facts")
    await asyncio.to_thread(rows, "DROP TRIGGER ends ON dashboard_facts")
    await until(lambda: none_aside(rows))
    assert rows(_RECORDED) == [(7, 7)]
    assert {len(seen_of(agent, one)) for one in names} == {1}
