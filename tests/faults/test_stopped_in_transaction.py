"""A relay that is stopped (SIGSTOP) within a transaction delays only what it holds, and that until its lease ends."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from relay.settings import WEBHOOK_PATH
from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.conftest import RelayProcess, Senders
    from tests.servers import HeldAgent, Rows

pytestmark = pytest.mark.faults

LEASE_S = 6
LARGE = "x" * 200_000
"""So large a payload is recorded in a transaction of its own."""

_STALL = """
    CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(4711);
        RETURN NEW;
    END $$;
    CREATE TRIGGER stalls BEFORE UPDATE ON relay.deliveries FOR EACH ROW WHEN (NEW.state = 'dead')
        EXECUTE FUNCTION stall()
"""
_STALLED = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
_HOLDS = """
    SELECT count(*) FROM pg_stat_activity
     WHERE pid = %s AND xact_start IS NOT NULL AND wait_event = 'ClientRead'
"""


def message(number: int, conversation: int, padding: str = "") -> dict[str, Any]:
    """The webhook of one message."""
    return {
        "event": "message_created", "id": number, "account": {"id": 1}, "conversation": {"id": conversation},
        "padding": padding,
    }  # fmt: skip


async def test_a_relay_stopped_within_a_transaction_delays_its_own_conversation_until_its_lease_ends(
    make_relay: Callable[..., RelayProcess], senders: Senders, agent: HeldAgent, rows: Rows
) -> None:
    if rows.one("SELECT current_setting('server_version_num')::integer") < 170_000:
        pytest.skip("an earlier server does not end a transaction that waits for the rest of a pipeline")
    sleeper = await make_relay(relay_lease_seconds=LEASE_S, chatwoot_webhook_response_deadline_ms=1).start()
    await rows.change(_STALL)
    agent.behave(Behaviour(status=400, times=1))

    async def send(relay: RelayProcess, body: dict[str, Any]) -> int:
        headers = {"X-Chatwoot-Delivery": str(body["id"])}
        return (await senders.client.post(relay.url + WEBHOOK_PATH, json=body, headers=headers)).status_code

    async with await psycopg.AsyncConnection.connect(rows.dsn) as holding:
        await holding.execute("SELECT pg_advisory_xact_lock(4711)")
        assert await send(sleeper, message(1, 1, LARGE)) == 202
        (backend,) = await until(lambda: rows(_STALLED), what="the finishing transaction is under way")
        sleeper.signal(signal.SIGSTOP)
    await until(lambda: rows.one(_HOLDS, (backend,)), what="the transaction is open, and its relay stopped")
    other = await make_relay(relay_lease_seconds=LEASE_S).start()
    for number in range(2, 12):
        assert await send(other, message(number, number)) == 200
    assert await send(other, message(12, 1)) in {200, 202}
    await until(
        lambda: rows("SELECT count(*) FROM relay.deliveries WHERE state = 'delivered'") == [12],
        what="the other relay has delivered everything",
    )
    sleeper.signal(signal.SIGCONT)
    await until(lambda: "Lease lost, run abandoned" in sleeper.output, what="the sleeper gives up")
    order = [payload["id"] for one in agent.seen if (payload := json.loads(one.body))["conversation"]["id"] == 1]
    assert order == [1, 1, 12]
    assert rows("SELECT count(*) FROM relay.attempts WHERE status = '400'") == [0]
