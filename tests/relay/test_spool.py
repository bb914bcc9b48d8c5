"""A relay with a spool (DESIGN 1.3): nothing is refused while Postgres is away; all of it arrives, once, in order."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from relay.chatwoot.signature import sign
from relay.forwarding import receipt_storage, spool_drain
from relay.intake import webhook
from tests.relay.test_health_and_metrics import samples_of
from tests.servers import ANSWER_MS, AT_ONCE_S, PATIENCE_S, RunningRelay, locked, relay_settings, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.conftest import CommandLine
    from tests.relay.conftest import Outage
    from tests.servers import HeldAgent, Rows

    Start = Callable[..., Awaitable[RunningRelay]]

SECRET = "s3cret"

_RECEIVED = "SELECT extract(epoch FROM received_at) FROM relay.deliveries WHERE delivery_id = %s"
_STATES = "SELECT state, count(*) FROM relay.deliveries GROUP BY 1"


def payload(number: int, conversation: int = 77) -> dict[str, Any]:
    """A message of a conversation."""
    return {"event": "message_created", "id": number, "conversation": {"id": conversation}, "account": {"id": 1}}


async def post(relay: RunningRelay, number: int, delivery_id: str = "", conversation: int = 77) -> tuple[int, Any]:
    """Post a message; status and body of the answer."""
    answer = await relay.post(payload(number, conversation), X_Chatwoot_Delivery=delivery_id or f"d-{number}")
    return answer.status_code, answer.json()


def spooled(delivery_id: str) -> tuple[int, Any]:
    """The answer for a webhook that went to the spool."""
    return 202, {"accepted": True, "spooled": True, "delivery_id": delivery_id}


def duplicate(delivery_id: str, state: str) -> tuple[int, Any]:
    """The answer for a webhook that is known."""
    return 200, {"success": True, "duplicate": True, "delivery_id": delivery_id, "state": state}


async def drained(relay: RunningRelay) -> None:
    """Wait until the relay's spool is empty."""

    async def is_empty() -> bool:
        spool = (await relay.client.get("/health")).json()["spool"]
        return bool(spool["receipts"] == 0)

    await until(is_empty, what="the spool is empty")


async def takes_webhooks(relay: RunningRelay) -> str:
    """The state of a relay whose health check answers 200; else nothing."""
    try:
        health = await relay.client.get("/health")
    except httpx.TransportError:
        return ""
    return str(health.json()["status"]) if health.status_code == 200 else ""


@pytest.fixture
def start_spooling(start_relay: Start, tmp_path: Path, impatient_store: None, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts relays that share a spool in `tmp_path`. A slow disk has longer to take a receipt than Chatwoot waits."""
    monkeypatch.setattr(webhook, "_DURABLE_WITHIN_S", ANSWER_MS / 1000)

    async def start(**settings: Any) -> RunningRelay:
        given = {"relay_data_dir": tmp_path, "relay_spool_max_bytes": 1 << 20, "relay_lease_seconds": 60}
        return await start_relay(**(given | settings))

    return start


async def test_an_outage_refuses_nothing_and_loses_nothing(
    start_spooling: Start, agent: HeldAgent, rows: Rows, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = await start_spooling()
    assert (await post(relay, 0))[0] == 200
    outage.begin()
    began = datetime.now(UTC) - timedelta(milliseconds=1)
    first = await asyncio.gather(*(post(relay, number) for number in range(1, 4)))
    assert first == [spooled(f"d-{number}") for number in range(1, 4)]
    ended = datetime.now(UTC)
    monkeypatch.setattr(receipt_storage, "STORE_PATIENCE_S", PATIENCE_S)
    async with asyncio.timeout(AT_ONCE_S):  # after one had to be spooled, the next go there at once
        assert await post(relay, 4) == spooled("d-4")
        assert await post(relay, 5, conversation=78) == spooled("d-5")
    assert await post(relay, 2) == (
        200,
        {"success": True, "duplicate": True, "delivery_id": "d-2", "state": "received"},
    )

    health = await relay.client.get("/health")
    assert (health.status_code, health.json()["status"], health.json()["database"]["ok"]) == (200, "spooling", False)
    assert (health.json()["spool"]["ok"], health.json()["spool"]["receipts"]) == (True, 5)
    samples = await samples_of(relay)
    assert (samples["relay_spool_receipts", ()], samples["relay_webhooks_spooled_total", ()]) == (5, 5)
    assert 0 < samples["relay_spool_bytes", ()] < samples["relay_spool_max_bytes", ()] == 1 << 20

    assert not [seen for seen in agent.seen if seen.delivery_id != "d-0"]
    outage.end()
    await until(lambda: dict(rows(_STATES)) == {"delivered": 6}, what="all is delivered")
    await drained(relay)
    assert [seen.delivery_id for seen in agent.seen if seen.delivery_id != "d-5"] == [f"d-{n}" for n in range(5)]
    for number in range(1, 4):
        received_at = datetime.fromtimestamp(float(rows.one(_RECEIVED, (f"d-{number}",))), UTC)
        assert began <= received_at <= ended, "the time of receipt is kept"
    assert (await post(relay, 6))[0] == 200
    assert await post(relay, 2) == (
        200,
        {"success": True, "duplicate": True, "delivery_id": "d-2", "state": "delivered"},
    )


async def test_a_conversation_in_the_spool_keeps_its_order_when_postgres_is_back(
    start_spooling: Start, agent: HeldAgent, rows: Rows, outage: Outage
) -> None:
    first, second = [await start_spooling(chatwoot_webhook_response_deadline_ms=1_000) for _ in range(2)]
    outage.begin()
    sent = [post((first, second)[number % 2], number) for number in range(20)]
    posting = [asyncio.create_task(one) for one in sent]
    answers = await asyncio.gather(*posting)
    assert Counter(status for status, _ in answers) == {202: 20}
    outage.end()
    number = 20
    while dict(rows(_STATES)).get("delivered", 0) < number:
        await post((first, second)[number % 2], number)
        number += 1
    assert sorted(seen.delivery_id for seen in agent.seen) == sorted(f"d-{n}" for n in range(number))
    late = [int(seen.delivery_id[2:]) for seen in agent.seen if int(seen.delivery_id[2:]) >= 20]
    assert late == sorted(late)


async def test_a_commit_whose_end_was_not_seen_is_no_redelivery(
    start_spooling: Start, agent: HeldAgent, rows: Rows
) -> None:
    relay = await start_spooling(relay_respond="stored")
    async with locked(rows.dsn, "relay.deliveries"):
        assert await post(relay, 1) == spooled("d-1")
        assert await post(relay, 2) == spooled("d-2")
    await until(lambda: rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'delivered'") == 2)
    await drained(relay)
    assert sorted(seen.delivery_id for seen in agent.seen) == ["d-1", "d-2"]


def signed(number: int) -> tuple[bytes, dict[str, str]]:
    """A message and the headers of its signature."""
    body, now = json.dumps(payload(number)).encode(), str(int(time.time()))
    return body, {"X_Chatwoot_Timestamp": now, "X_Chatwoot_Signature": sign(SECRET.encode(), now, body)}


async def test_a_webhook_that_came_by_spool_and_by_postgres_arrives_once(
    start_spooling: Start, start_relay: Start, agent: HeldAgent, rows: Rows, outage: Outage
) -> None:
    relay = await start_spooling(chatwoot_webhook_secret=SECRET)
    elsewhere = await start_relay(chatwoot_webhook_secret=SECRET)
    (one, one_signed), (two, two_signed) = signed(1), signed(2)
    outage.begin()
    assert (await relay.post(one, X_Chatwoot_Delivery="one", **one_signed)).json()["spooled"]
    assert (await relay.post(two, X_Chatwoot_Delivery="two", **two_signed)).json()["spooled"]
    copy = await relay.post(one, X_Chatwoot_Delivery="another id", **one_signed)
    assert (copy.status_code, copy.json()["duplicate"], copy.json()["delivery_id"]) == (200, True, "one")
    await relay.stop()
    outage.end()
    await elsewhere.ready()
    assert (await elsewhere.post(one, X_Chatwoot_Delivery="one", **one_signed)).status_code == 200
    assert (await elsewhere.post(two, X_Chatwoot_Delivery="third", **two_signed)).status_code == 200
    await drained(await start_spooling(chatwoot_webhook_secret=SECRET))
    assert sorted(rows("SELECT delivery_id FROM relay.deliveries")) == ["one", "third"]
    assert sorted(seen.delivery_id for seen in agent.seen) == ["one", "third"]


@pytest.mark.usefixtures("impatient_store")
async def test_a_relay_that_starts_without_postgres_serves_with_its_spool(
    agent: HeldAgent, rows: Rows, outage: Outage, tmp_path: Path
) -> None:
    outage.begin()
    settings = relay_settings(agent, relay_data_dir=tmp_path, relay_spool_max_bytes=1 << 20)
    relay = RunningRelay(settings, rows.dsn)
    assert await until(lambda: takes_webhooks(relay)) == "spooling"
    assert await post(relay, 1) == spooled("d-1")
    await relay.stop()
    assert "The spool holds webhooks" not in relay.output
    rows.close()
    outage.end()
    again = RunningRelay(settings, rows.dsn)
    await until(lambda: dict(rows(_STATES)) == {"delivered": 1}, what="what the former relay left is delivered")
    assert "The spool holds webhooks" in again.output
    await again.stop()


async def test_only_a_spool_that_is_full_as_well_refuses(start_spooling: Start, outage: Outage, rows: Rows) -> None:
    relay = await start_spooling(relay_spool_max_bytes=2_000)
    outage.begin()
    answers = [await post(relay, number) for number in range(2)]
    assert answers == [spooled("d-0"), spooled("d-1")]
    refused = await relay.post(payload(2) | {"content": "x" * 1_000})
    assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (503, True)
    assert "RELAY_SPOOL_MAX_BYTES=2000" in refused.json()["error"]
    health = await relay.client.get("/health")
    assert (health.status_code, health.json()["status"], health.json()["spool"]["ok"]) == (503, "unavailable", False)
    rows.close()
    outage.end()
    await drained(relay)
    assert (await relay.client.get("/health")).status_code == 200
    assert (await post(relay, 2))[0] == 200


async def test_a_receipt_that_postgres_alone_refuses_delays_no_other(
    start_spooling: Start, agent: HeldAgent, rows: Rows
) -> None:
    await rows.change("ALTER TABLE relay.deliveries ADD CONSTRAINT odd CHECK (delivery_id <> 'odd')")
    relay = await start_spooling()
    assert await post(relay, 1, "odd") == spooled("odd")
    assert (await post(relay, 2, conversation=78))[0] == 200, "the others are stored in Postgres"

    async def is_refused() -> bool:
        spool = (await relay.client.get("/health")).json()["spool"]
        return bool((spool["receipts"], spool["refused"]) == (1, 1))

    await until(is_refused)
    assert (await post(relay, 3))[0] == 200
    assert [seen.delivery_id for seen in agent.seen] == ["d-2", "d-3"]


_HELD = """
    CREATE TABLE held AS SELECT 'd-1' AS id;
    CREATE FUNCTION is_held() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM held WHERE id = NEW.delivery_id) THEN
            RAISE EXCEPTION 'held' USING ERRCODE = 'lock_not_available';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER is_held BEFORE INSERT ON relay.deliveries FOR EACH ROW EXECUTE FUNCTION is_held();
"""


async def test_a_receipt_whose_row_is_held_delays_only_its_conversation(
    start_spooling: Start, agent: HeldAgent, rows: Rows, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_drain, "_LEFT_AGAIN_S", 0.1)
    relay = await start_spooling(relay_respond="stored")
    await rows.change(_HELD)
    outage.begin()
    for number, conversation in enumerate((77, 77, 78, 77, 79), 1):
        assert await post(relay, number, conversation=conversation) == spooled(f"d-{number}")
    outage.end()
    await until(lambda: dict(rows(_STATES)) == {"delivered": 2}, what="the other conversations are delivered")
    assert (await post(relay, 6, conversation=78))[1].get("spooled") is None  # Postgres commits: it goes there
    assert await post(relay, 7) == spooled("d-7")
    rows("DELETE FROM held")
    await until(lambda: dict(rows(_STATES)) == {"delivered": 7})
    await drained(relay)
    assert [one.delivery_id for one in agent.seen if one.delivery_id in {"d-1", "d-2", "d-4", "d-7"}] == [
        "d-1", "d-2", "d-4", "d-7",
    ]  # fmt: skip


async def test_a_missing_right_sends_all_to_the_spool_at_once(
    start_spooling: Start, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipt_storage, "STORE_PATIENCE_S", PATIENCE_S)
    relay = await start_spooling()
    await rows.change("ALTER TABLE relay.deliveries RENAME TO away")
    async with asyncio.timeout(AT_ONCE_S):
        assert [await post(relay, number) for number in range(3)] == [spooled(f"d-{number}") for number in range(3)]
    health = (await relay.client.get("/health")).json()
    assert (health["status"], health["database"]["ok"], health["spool"]["receipts"]) == ("spooling", False, 3)
    await rows.change("ALTER TABLE relay.away RENAME TO deliveries")
    await until(lambda: dict(rows(_STATES)) == {"delivered": 3})


async def test_status_shows_a_spool_that_does_not_drain_and_backfill_refuses(
    start_spooling: Start, rows: Rows, relay_command: CommandLine
) -> None:
    await rows.change("ALTER TABLE relay.deliveries ADD CONSTRAINT odd CHECK (delivery_id <> 'odd')")
    relay = await start_spooling()
    await post(relay, 1, "odd")
    await until(lambda: rows("SELECT receipts, refused FROM relay.spools") == [(1, 1)], what="it is reported")
    status = await relay_command.run("status")
    (line,) = [line for line in status.stdout.splitlines() if line.startswith("spool")]
    assert "1 receipt" in line
    assert "1.0 MiB" in line
    document = json.loads((await relay_command.run("status", "--json")).stdout)
    assert (document["spool"]["receipts"], document["spool"]["max_bytes"]) == (1, 1 << 20)
    assert "spool-p1" not in [alert["rule"] for alert in document["alerts"] if alert["firing"]]
    rows("UPDATE relay.spools SET since = now() - interval '61 s'")
    document = json.loads((await relay_command.run("status", "--json")).stdout)
    assert "spool-p1" in [alert["rule"] for alert in document["alerts"] if alert["firing"]]
    refused = await relay_command.run(
        "backfill", "--since", "00:00", "--dry-run",
        CHATWOOT_BASE_URL="http://127.0.0.1:9", CHATWOOT_API_KEY="key", CHATWOOT_ACCOUNT_ID="1",
    )  # fmt: skip
    assert (refused.returncode, "spool" in refused.stderr, "1 receipt" in refused.stderr) == (1, True, True)
