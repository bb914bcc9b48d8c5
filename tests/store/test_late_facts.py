"""What Postgres cannot do in time delays no other delivery, ends, and is never another attempt at the agent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import pytest_asyncio

from relay.domain.facts import EXCERPT_BYTES, PAYLOAD_BYTES
from relay.forwarding import finisher
from relay.forwarding.finisher import Finisher
from relay.monitoring.alert_notifier import AlertNotifier
from tests.relay.traces import seen_of
from tests.relay.wire import BluntAgent
from tests.servers import AgentStandIn, Behaviour, Rows, RunningRelay, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.usefixtures("impatient_finisher")

WORDS = "Confidential words of a customer"
_STATE = "SELECT state FROM relay.deliveries WHERE delivery_id = %s"
_SLEEPY = """
    CREATE FUNCTION sleepy() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.metadata ->> 'event' = 'sleepy' THEN
            PERFORM pg_advisory_xact_lock_shared(4711);  -- not a row's or a table's lock, but one as well
            PERFORM pg_sleep(600);
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER sleepy BEFORE INSERT ON dashboard_facts FOR EACH ROW EXECUTE FUNCTION sleepy()
"""


def body(event: str = "message_created", **more: Any) -> dict[str, Any]:
    """A message of a customer."""
    return {"event": event, "id": 1, "content": WORDS, **more}


def asked(agent: BluntAgent, delivery_id: str) -> int:
    """How often the agent was sent a delivery."""
    return sum(f"x-chatwoot-delivery: {delivery_id}\r\n".encode() in head.lower() for head in agent.heads)


def none_aside(rows: Rows) -> bool:
    """True once no fact waits aside; those that do are due again at once."""
    rows("UPDATE relay.facts_aside SET tried_at = '-infinity' WHERE tried_at IS NOT NULL")
    return not rows("SELECT 1 FROM relay.facts_aside")


@pytest_asyncio.fixture
async def brisk(start_relay: Callable[..., Awaitable[RunningRelay]], monkeypatch: pytest.MonkeyPatch) -> RunningRelay:
    """A relay whose rounds over facts aside come without a pause."""
    monkeypatch.setattr(finisher, "_ROUND_S", 0.2)
    monkeypatch.setattr(Finisher, "interval_s", 0.1)
    monkeypatch.setattr(AlertNotifier, "interval_s", 0.1)
    return await start_relay(chatwoot_webhook_max_attempts=1)


@pytest.mark.slow
async def test_a_trigger_that_sleeps_delays_only_its_own_fact(
    brisk: RunningRelay, agent: AgentStandIn, rows: Rows
) -> None:
    await asyncio.to_thread(rows, _SLEEPY)  # it may wait for a transaction of the relay, in this loop
    asleep = [asyncio.create_task(brisk.post(body("sleepy"), X_Chatwoot_Delivery=f"asleep-{n}")) for n in range(3)]
    await until(lambda: all(seen_of(agent, f"asleep-{n}") for n in range(3)))
    others = await asyncio.gather(*(brisk.post(body(), X_Chatwoot_Delivery=f"other-{n}") for n in range(20)))
    assert {answer.status_code for answer in others} == {200}
    assert {(await answer).status_code for answer in asleep} == {200}
    assert {len(seen_of(agent, f"asleep-{n}")) for n in range(3)} == {1}
    await until(
        lambda: rows("SELECT count(*) FROM dashboard_facts WHERE metadata ->> 'deliveryId' LIKE 'other-%'") == [20]
    )
    await until(lambda: rows("SELECT count(*) FROM relay.facts_aside WHERE refused AND reason LIKE '57014%'") == [3])
    await asyncio.to_thread(rows, "DROP TRIGGER sleepy ON dashboard_facts")

    async def is_recorded_at_once() -> bool:
        again = (await brisk.post(body())).json()["delivery_id"]
        return rows("SELECT 1 FROM dashboard_facts WHERE metadata ->> 'deliveryId' = %s", (again,)) == [1]

    await until(is_recorded_at_once)
    assert "Postgres is away" not in brisk.output
    assert WORDS not in brisk.output


async def test_a_locked_dashboard_facts_delays_no_outcome_and_loses_no_fact(
    brisk: RunningRelay, agent: AgentStandIn, rows: Rows
) -> None:
    async with await psycopg.AsyncConnection.connect(rows.dsn) as blocker:
        await blocker.execute("LOCK TABLE dashboard_facts IN ACCESS EXCLUSIVE MODE")
        answers = await asyncio.gather(*(brisk.post(body(), X_Chatwoot_Delivery=f"one-{n}") for n in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert rows("SELECT count(*) FROM relay.facts_aside WHERE delivery_id IS NOT NULL") == [20]
        assert (await brisk.client.get("/health")).status_code == 200
    await until(lambda: none_aside(rows))
    assert rows(
        "SELECT count(*), count(DISTINCT metadata ->> 'deliveryId') FROM dashboard_facts WHERE fact_type LIKE '%retry'"
    ) == [(20, 20)]
    assert {len(seen_of(agent, f"one-{n}")) for n in range(20)} == {1}
    assert rows("SELECT count(*) FROM relay.alerts WHERE rule = 'facts-aside-p1'") == [0]
    assert "Postgres is away" not in brisk.output


async def test_a_delivery_whose_row_is_locked_delays_no_other_and_ends_once_it_is_free(
    start_relay: Callable[..., Awaitable[RunningRelay]], rows: Rows
) -> None:
    async with BluntAgent(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", held=True) as agent:
        relay = await start_relay(agent=agent.url)
        held = asyncio.create_task(relay.post(body(), X_Chatwoot_Delivery="held"))
        await until(lambda: asked(agent, "held"))
        async with await psycopg.AsyncConnection.connect(rows.dsn) as blocker:
            await blocker.execute("SELECT FROM relay.deliveries WHERE delivery_id = 'held' FOR UPDATE")
            agent.may_answer.set()
            others = await asyncio.gather(*(relay.post(body(), X_Chatwoot_Delivery=f"other-{n}") for n in range(20)))
            assert {answer.status_code for answer in others} == {200}
            await until(lambda: "tries: 1" in relay.output, what="the finish alone is cancelled")
            assert rows(_STATE, ("held",)) == ["forwarding"]
        await until(lambda: rows(_STATE, ("held",)) == ["delivered"])
        await held
        assert asked(agent, "held") == 1
    assert "canceling statement due to lock timeout" in relay.output
    assert "Postgres is away" not in relay.output


async def test_an_outcome_that_cannot_be_recorded_is_held_and_never_forwarded_again(
    brisk: RunningRelay, agent: AgentStandIn, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finisher, "_PAUSE_REFUSED_S", 0.1)
    await asyncio.to_thread(
        rows,
        """
        CREATE FUNCTION no_end() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no end of %', convert_from(NEW.body, 'UTF8'); END $$;
        CREATE TRIGGER no_end BEFORE UPDATE ON relay.deliveries FOR EACH ROW
            WHEN (NEW.state IN ('delivered', 'dead')) EXECUTE FUNCTION no_end()
        """,
    )
    answers = [asyncio.create_task(brisk.post(body(), X_Chatwoot_Delivery=f"stuck-{n}")) for n in range(3)]
    await until(lambda: brisk.output.count("tries: 5") == 3)
    rows("UPDATE relay.deliveries SET claimed_at = claimed_at - interval '1 hour'")
    await until(lambda: brisk.output.count("tries: 8") == 3)
    assert {len(seen_of(agent, f"stuck-{n}")) for n in range(3)} == {1}
    assert rows("SELECT DISTINCT state FROM relay.deliveries") == ["forwarding"]
    assert "RaiseException (P0001)" in brisk.output
    assert WORDS not in brisk.output
    await asyncio.to_thread(rows, "DROP TRIGGER no_end ON relay.deliveries")
    await asyncio.gather(*answers)
    await until(lambda: rows("SELECT DISTINCT state FROM relay.deliveries") == ["delivered"])
    await until(lambda: len(rows.facts("support.webhook.retry")) == 3)


NUMBERS = b'{"event": "message_created", "content": "' + WORDS.encode() + b'", "numbers": [%s]}'


async def test_six_bodies_of_a_mebibyte_of_numbers_delay_no_other_webhook_and_end(
    brisk: RunningRelay, agent: AgentStandIn, rows: Rows
) -> None:
    numbers = b",".join([b"1.5"] * 250_000)
    large = NUMBERS % numbers
    agent.behave(Behaviour(status=400, times=6))
    sent = [asyncio.create_task(brisk.post(large, X_Chatwoot_Delivery=f"large-{n}")) for n in range(6)]
    await until(lambda: all(seen_of(agent, f"large-{n}") for n in range(6)))
    small = await asyncio.gather(*(brisk.post(body()) for _ in range(20)))
    assert {answer.status_code for answer in small} == {200}
    assert {(await answer).status_code for answer in sent} <= {500, 202}
    await until(lambda: rows("SELECT count(*) FROM relay.deliveries WHERE state = 'dead'") == [6])
    await until(lambda: none_aside(rows))
    assert {len(seen_of(agent, f"large-{n}")) for n in range(6)} == {1}
    assert "Postgres is away" not in brisk.output


async def test_a_statement_timeout_of_the_role_ends_nothing_badly(
    brisk: RunningRelay, agent: AgentStandIn, rows: Rows
) -> None:
    rows(f"ALTER DATABASE {rows.one('SELECT current_database()')} SET statement_timeout = '1s'")
    agent.behave(Behaviour(status=400, times=1))
    huge = NUMBERS % b",".join([b"12345"] * 870_000)
    assert len(huge) > 5_200_000
    assert (await brisk.post(huge, X_Chatwoot_Delivery="huge")).status_code in {500, 202}
    await until(lambda: rows(_STATE, ("huge",)) == ["dead"])
    assert len(seen_of(agent, "huge")) == 1
    ((letter, marks),) = rows.facts("support.webhook.dead_letter")
    assert letter["payload"] == {
        "truncated": True, "bytes": len(huge), "deliveryId": "huge", "excerpt": huge[:EXCERPT_BYTES].decode(),
    }  # fmt: skip
    assert marks["payload_truncated"] is True
    assert rows("SELECT body = %s FROM relay.deliveries", (huge,)) == [True]


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_a_payload_is_whole_up_to_a_mebibyte_of_bytes_and_a_reference_above(
    brisk: RunningRelay, agent: AgentStandIn, rows: Rows, over: int
) -> None:
    agent.behave(Behaviour(status=400, times=1))
    frame = '{"event": "message_created", "content": "%s"}'
    room = PAYLOAD_BYTES + over - len(frame % "")
    sent = (frame % ("é" * (room // 2) + "x" * (room % 2))).encode()
    assert len(sent) == PAYLOAD_BYTES + over
    await brisk.post(sent, X_Chatwoot_Delivery="edge")
    await until(lambda: rows.facts("support.webhook.dead_letter"))
    ((letter, marks),) = rows.facts("support.webhook.dead_letter")
    if over > 0:
        excerpt = letter["payload"].pop("excerpt")
        assert letter["payload"] == {"truncated": True, "bytes": len(sent), "deliveryId": "edge"}
        assert sent.decode().startswith(excerpt)
        assert EXCERPT_BYTES - 3 <= len(excerpt.encode()) <= EXCERPT_BYTES
        assert marks["payload_truncated"] is True
    else:
        assert letter["payload"]["content"] == sent.decode()[len(frame) - 4 : -2]
        assert "payload_truncated" not in marks


_CANCEL = """
    SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'hotdash-relay'
       AND datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INTO relay.conversations%'
"""


@pytest.mark.usefixtures("impatient_store")
async def test_a_webhook_whose_storing_is_cancelled_is_503_and_its_log_line_says_so(
    start_relay: Callable[..., Awaitable[RunningRelay]], rows: Rows
) -> None:
    relay = await start_relay()
    async with await psycopg.AsyncConnection.connect(rows.dsn) as blocker:
        await blocker.execute("LOCK TABLE relay.deliveries IN EXCLUSIVE MODE")
        posting = asyncio.create_task(relay.post(body(), X_Chatwoot_Delivery="one"))
        await until(lambda: posting.done() or (rows(_CANCEL) and False))
        answer = await posting
    assert answer.status_code == 503
    assert "canceling statement due to user request" in answer.json()["error"]
    assert "Webhook not stored { reason: 'Postgres refused a statement: canceling statement" in relay.output
    assert "Postgres is away" not in relay.output
    assert WORDS not in relay.output
    assert (await relay.post(body(), X_Chatwoot_Delivery="one")).status_code == 200
