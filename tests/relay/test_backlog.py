"""What waits (DESIGN 1.1, 1.2, 1.4, 1.5): for a slot, its turn in a conversation, the end of a hold or the breaker."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest_asyncio

from relay.forwarding.circuit_breaker import FIRST_PAUSE_S
from relay.store import gate
from relay.store.database import connection_parameters
from tests.relay.traces import seen_of, trace
from tests.servers import Behaviour, HeldAgent, Rows, RunningRelay, until
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from relay.store.database import Connection
    from tests.conftest import CommandLine

    StartRelay = Callable[..., Awaitable[RunningRelay]]

_STATES = "SELECT state, count(*) FROM relay.deliveries GROUP BY 1"


@pytest_asyncio.fixture
async def connection(dsn: str) -> AsyncIterator[Connection]:
    """A connection as an operator's command has it."""
    async with await psycopg.AsyncConnection.connect(autocommit=True, **connection_parameters(dsn, "tests")) as opened:
        yield opened


def message(number: int, conversation: int = 1) -> dict[str, Any]:
    """The webhook of one message."""
    return {"event": "message_created", "id": number, "conversation": {"id": conversation}, "account": {"id": 1}}


def order_at(agent: HeldAgent) -> dict[int, list[int]]:
    """The messages that the agent was sent, by conversation, in the order they came, each once."""
    seen: dict[int, list[int]] = defaultdict(list)
    for one in agent.seen:
        payload = json.loads(one.body)
        numbers = seen[payload["conversation"]["id"]]
        if payload["id"] not in numbers:
            numbers.append(payload["id"])
    return seen


def all_delivered(rows: Rows, number: int) -> Callable[[], bool]:
    return lambda: dict(rows(_STATES)) == {"delivered": number}


async def test_a_webhook_without_a_free_slot_is_stored_answered_202_at_once_and_delivered_later(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows
) -> None:
    relay = await start_relay(relay_max_in_flight=2, chatwoot_webhook_response_deadline_ms=120_000)
    agent.hold()
    held = [asyncio.create_task(relay.post(message(n, n))) for n in range(2)]
    await until(lambda: len(agent.seen) == 2)
    answers = [await relay.post(message(n, n), X_Chatwoot_Delivery=f"waits-{n}") for n in range(2, 40)]
    assert [answer.status_code for answer in answers] == [202] * 38
    assert answers[0].json() == {"accepted": True, "delivery_id": "waits-2", "waiting": "capacity"}
    assert (await relay.client.get("/health")).json()["in_flight"] == 2
    agent.release()
    assert [(await sent).status_code for sent in held] == [200, 200]
    await until(all_delivered(rows, 40))
    assert [json.loads(one.body)["id"] for one in agent.seen][2:] == list(range(2, 40))  # oldest first
    assert trace(rows, "waits-2").retries[0][1]["waitedMs"] > 0


async def test_while_the_agent_accepts_and_never_answers_everything_is_stored_and_afterwards_delivered_in_order(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows
) -> None:
    relay = await start_relay(
        relay_max_in_flight=3, agent_sdk_timeout_ms=300, chatwoot_webhook_max_attempts=100, relay_respond="stored",
    )  # fmt: skip
    agent.hold()
    answers = await asyncio.gather(*(relay.post(message(n, n)) for n in range(8)))  # heads of conversations first
    answers += [await relay.post(message(n, n % 8)) for n in range(8, 24)]
    assert {answer.status_code for answer in answers} == {202}
    await until(lambda: len(agent.seen) > 6)  # the first ones have timed out and are tried again
    assert rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'forwarding'") == 3
    agent.release()
    await until(all_delivered(rows, 24))
    assert order_at(agent) == {n: [n, n + 8, n + 16] for n in range(8)}


async def test_a_conversation_keeps_its_order_while_its_first_message_is_retried_and_no_other_is_delayed(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows
) -> None:
    relay = await start_relay(chatwoot_webhook_base_delay_ms=1_500)
    agent.behave(Behaviour(status=503, times=1))
    first = asyncio.create_task(relay.post(message(1), X_Chatwoot_Delivery="1"))
    await until(lambda: len(agent.seen) == 1)
    others = []
    for waiting, n in enumerate((2, 3), 1):
        others.append(asyncio.create_task(relay.post(message(n), X_Chatwoot_Delivery=str(n))))
        await until(lambda waiting=waiting: dict(rows(_STATES)).get("received") == waiting)  # type: ignore[misc]
    assert (await relay.post(message(9, conversation=2))).json()["attempts"] == 1
    assert len(seen_of(agent, "1")) == 1  # the other conversation did not wait for the retry
    assert (await first).json()["attempts"] == 2
    assert [(await other).json()["attempts"] for other in others] == [1, 1]
    own = [one.delivery_id for one in agent.seen if json.loads(one.body)["conversation"]["id"] == 1]
    assert own == ["1", "1", "2", "3"]


async def test_a_sender_is_answered_when_another_relay_has_forwarded_its_webhook(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows
) -> None:
    relays = [await start_relay(chatwoot_webhook_response_deadline_ms=600_000) for _ in range(2)]
    agent.hold()
    posts = []
    for number in range(8):
        posts.append(asyncio.create_task(relays[number % 2].post(message(number))))
        await until(lambda number=number: rows.one("SELECT count(*) FROM relay.deliveries") == number + 1)  # type: ignore[misc]
    agent.behave(Behaviour(status=400, times=7))
    agent.release()
    answers = [await post for post in posts]
    assert [answer.status_code for answer in answers[1:]] == [500] * 7
    assert {answer.json()["message"] for answer in answers[1:]} == {answers[1].json()["message"]}
    assert {(answer.json()["attempts"], answer.json()["retryable"]) for answer in answers[1:]} == {(1, False)}


async def test_without_order_messages_of_a_conversation_overtake_each_other(
    start_relay: StartRelay, agent: HeldAgent
) -> None:
    relay = await start_relay(relay_order="none")
    agent.hold()
    posts = [asyncio.create_task(relay.post(message(n))) for n in range(3)]
    await until(lambda: len(agent.seen) == 3)
    agent.release()
    assert [(await post).status_code for post in posts] == [200] * 3


async def test_a_hold_stores_everything_and_a_release_delivers_it_in_order(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows, connection: Connection
) -> None:
    relays = [await start_relay(), await start_relay()]
    await gate.hold(connection, "maria", "deploying the agent")
    hold = await gate.current_hold(connection)
    assert hold is not None
    assert (hold.operator, hold.reason, hold.until) == ("maria", "deploying the agent", None)
    answers = [await relays[n % 2].post(message(n, n % 4)) for n in range(60)]
    assert {(answer.status_code, answer.json()["waiting"]) for answer in answers} == {(202, "hold")}
    assert len(agent.seen) == 0
    assert (await relays[0].post(message(99, 3), X_Forwarded_From="chatwoot-test")).status_code == 200
    assert await gate.release(connection, "maria")
    await until(all_delivered(rows, 61))
    assert order_at(agent) == {
        conversation: [n for n in [99, *range(60)] if n % 4 == conversation] for conversation in range(4)
    }
    assert rows("SELECT action FROM relay.operator_actions ORDER BY id") == ["hold", "release"]
    assert not await gate.release(connection, "maria")


async def test_a_run_under_way_keeps_its_count_over_a_hold(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows, connection: Connection
) -> None:
    relay = await start_relay(chatwoot_webhook_max_attempts=3, chatwoot_webhook_base_delay_ms=1_000)
    agent.behave(Behaviour(status=503, times=1))
    sent = asyncio.create_task(relay.post(message(1), X_Chatwoot_Delivery="one"))
    await until(lambda: len(agent.seen) == 1)
    await gate.hold(connection, "maria", "deploy")
    answer = await sent
    assert (answer.status_code, answer.json()["waiting"]) == (202, "hold")
    assert [tried.status for tried in trace(rows, "one").tried] == ["503"]
    await gate.release(connection, "maria")
    await until(all_delivered(rows, 1))
    left = trace(rows, "one")
    assert [(tried.run, tried.number, tried.status) for tried in left.tried] == [(1, 1, "503"), (1, 2, "200")]
    assert left.retries[0][0]["attempts"] == 2


async def test_a_relay_that_starts_during_a_hold_attempts_nothing_that_a_dead_one_has_left(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows, connection: Connection
) -> None:
    await gate.hold(connection, "maria", "deploy")
    for _ in range(5):
        Plant(rows).delivery("forwarding", owner=uuid4())
    await start_relay()
    await until(lambda: dict(rows("SELECT waits, count(*) FROM relay.deliveries GROUP BY 1")) == {"hold": 5})
    assert len(agent.seen) == 0
    await gate.release(connection, "maria")
    await until(all_delivered(rows, 5))


async def test_a_breaker_that_is_open_closes_once_no_relay_uses_it(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows, connection: Connection
) -> None:
    user = Plant(rows).relay()
    await gate.count_attempts(connection, user, 20, 20)
    await gate.open_the_breaker(connection, "it failed", pause_s=3_600, first_s=FIRST_PAUSE_S)
    assert not await gate.close_unused_breaker(connection)
    relay = await start_relay()
    assert (await relay.post(message(1))).json()["waiting"] == "breaker"
    rows("UPDATE relay.instances SET stopped_at = now() WHERE id = %s", (user,))
    await relay.post(message(2))
    await until(all_delivered(rows, 2))


async def test_a_long_wait_is_a_row_that_another_relay_can_take(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows
) -> None:
    first = await start_relay(relay_respond="stored", chatwoot_webhook_max_delay_ms=3_600_000)
    agent.behave(Behaviour(status=429, retry_after="600", times=1))
    answer = await first.post(message(1), X_Chatwoot_Delivery="one")
    assert (answer.status_code, "waiting" in answer.json()) == (202, False)
    await until(lambda: trace(rows, "one").state == "waiting")
    assert rows.one("SELECT next_attempt_at > now() + interval '9 minutes', waits, owner FROM relay.deliveries") == (
        True, "retry", None,
    )  # fmt: skip
    await first.stop()
    rows("UPDATE relay.deliveries SET next_attempt_at = now()")
    await start_relay()
    await until(all_delivered(rows, 1))
    assert [(tried.run, tried.number) for tried in trace(rows, "one").tried] == [(1, 1), (1, 2)]


async def test_a_retry_wait_of_more_than_a_minute_delays_its_conversation_no_longer(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows
) -> None:
    relay = await start_relay(relay_respond="stored", chatwoot_webhook_max_delay_ms=3_600_000)
    agent.behave(Behaviour(status=429, retry_after="600", times=1))
    await relay.post(message(1), X_Chatwoot_Delivery="one")
    await until(lambda: trace(rows, "one").state == "waiting")
    await relay.post(message(2), X_Chatwoot_Delivery="two")
    assert trace(rows, "two").state == "received"
    rows("UPDATE relay.deliveries SET since = since - interval '61 seconds' WHERE delivery_id = 'one'")
    await until(lambda: trace(rows, "two").state == "delivered")
    rows("UPDATE relay.deliveries SET next_attempt_at = now() WHERE delivery_id = 'one'")
    await until(all_delivered(rows, 2))


async def test_the_agents_slots_are_shared_by_all_relays(start_relay: StartRelay, agent: HeldAgent, rows: Rows) -> None:
    relays = [await start_relay(relay_agent_concurrency=3, relay_respond="stored") for _ in range(2)]
    await until(lambda: rows.one("SELECT count(owner) FROM relay.destination_slots") == 3)
    agent.hold()
    for n in range(12):
        assert (await relays[n % 2].post(message(n, n))).status_code == 202
    await until(lambda: len(agent.seen) == 3)
    assert rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'forwarding'") == 3
    agent.release()
    await until(all_delivered(rows, 12))


async def test_an_open_breaker_lets_deliveries_wait_and_a_probe_closes_it(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows
) -> None:
    relay = await start_relay(
        relay_breaker="on", chatwoot_webhook_base_delay_ms=200, chatwoot_webhook_backoff_factor=1,
        chatwoot_webhook_max_attempts=100, chatwoot_webhook_response_deadline_ms=60_000,
    )  # fmt: skip
    agent.behave(Behaviour(status=503))
    answers = await asyncio.gather(*(relay.post(message(n, n)) for n in range(40)))
    assert {(answer.status_code, answer.json()["waiting"]) for answer in answers} == {(202, "breaker")}
    why = "why LIKE '%% attempts failed: Agent SDK answered 503'"
    assert rows.one(f"SELECT opened_at IS NOT NULL, {why} FROM relay.breaker") == (
        True,
        True,
    )
    later = await relay.post(message(99, 99))
    assert (later.status_code, later.json()["waiting"]) == (202, "breaker")
    agent.behave()
    rows("UPDATE relay.breaker SET probe_at = now()")
    await until(all_delivered(rows, 41))
    assert rows.one("SELECT opened_at, closed_at IS NOT NULL FROM relay.breaker") == (None, True)
    assert rows.facts("support.webhook.dead_letter") == []


async def test_retry_after_opens_the_breaker_for_that_time(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows
) -> None:
    relay = await start_relay(relay_breaker="on", relay_respond="stored", chatwoot_webhook_max_delay_ms=60_000)
    agent.behave(Behaviour(status=429, retry_after="50", times=1, error="a customer's words"))
    await relay.post(message(1), X_Chatwoot_Delivery=str(uuid4()))
    await until(lambda: rows("SELECT 1 FROM relay.breaker WHERE opened_at < now()"), what="the breaker opens")
    assert rows.one("SELECT probe_at > opened_at + interval '40 s' FROM relay.breaker") is True
    assert rows.one("SELECT pause_s FROM relay.breaker") == FIRST_PAUSE_S, "the pause after the first probe is double"
    assert rows.one("SELECT why FROM relay.breaker") == "Agent SDK is rate limiting (429), Retry-After 50 s"
    await until(lambda: "Circuit breaker opened" in relay.output)
    assert "a customer's words" not in relay.output


async def test_a_relay_without_a_slot_of_the_agent_probes_nothing(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows, connection: Connection
) -> None:
    other = Plant(rows).relay(lease_s=600)
    taken = "INSERT INTO relay.destination_slots (destination, number, owner) VALUES (%s, 1, %s)"
    rows(taken, (f"{agent.url}/webhooks/chatwoot", other))
    await gate.open_the_breaker(connection, "it failed", pause_s=0, first_s=FIRST_PAUSE_S)
    relay = await start_relay(relay_breaker="on", relay_agent_concurrency=1)
    await relay.post(message(1))
    rounds = "SELECT 1 FROM relay.attempt_counts, relay.deliveries WHERE at > received_at + interval '1 second'"
    await until(lambda: rows(rounds))
    assert dict(rows(_STATES)) == {"received": 1}
    rows("UPDATE relay.instances SET lease_until = '-infinity' WHERE id = %s", (other,))
    await until(all_delivered(rows, 1))


async def test_a_failure_that_opens_the_breaker_is_no_dead_letter(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows
) -> None:
    relay = await start_relay(relay_breaker="on", chatwoot_webhook_max_attempts=1)
    agent.behave(Behaviour(status=503, retry_after="20", times=1))
    answer = await relay.post(message(1))
    assert (answer.status_code, answer.json()["waiting"]) == (202, "breaker")
    assert rows.facts("support.webhook.dead_letter") == []


async def test_a_test_webhook_that_waits_for_a_retry_passes_a_hold_and_an_open_breaker(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows, connection: Connection
) -> None:
    await gate.open_the_breaker(connection, "it failed", pause_s=3_600, first_s=FIRST_PAUSE_S)
    relay = await start_relay(
        relay_breaker="on", relay_respond="stored", chatwoot_webhook_base_delay_ms=3_600_000,
        chatwoot_webhook_max_delay_ms=3_600_000,
    )  # fmt: skip
    due = "UPDATE relay.deliveries SET next_attempt_at = now() WHERE delivery_id = %s AND state = 'waiting' RETURNING 1"
    for test in ("breaker", "hold"):
        agent.behave(Behaviour(status=502, times=1))
        await relay.post(message(1), X_Chatwoot_Delivery=test, X_Forwarded_From="chatwoot-test")
        await until(lambda test=test: rows(due, (test,)))  # type: ignore[misc]
        await until(lambda test=test: trace(rows, test).state == "delivered")  # type: ignore[misc]
        await gate.hold(connection, "maria", "deploy")
    assert rows.one("SELECT held, open FROM relay.gate") == (True, True)


async def test_the_command_line_holds_shows_who_holds_and_releases(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows, relay_command: CommandLine
) -> None:
    relay = await start_relay()
    held = await relay_command.run("hold", "--reason", "deploying the agent", "--for", "30m")
    assert (held.returncode, "Forwarding is held until" in held.stdout) == (0, True)
    assert (await relay.post(message(1))).json()["waiting"] == "hold"
    status = await relay_command.run("status")
    assert "Forwarding is held by" in status.stdout.splitlines()[0]
    assert "(deploying the agent). 1 waits." in status.stdout.splitlines()[0]
    shown = json.loads((await relay_command.run("status", "--json")).stdout)
    assert {reason for reason, number in shown["backlog"]["by_reason"].items() if number} == {"hold"}
    assert shown["backlog"]["by_reason"]["hold"] == 1
    assert shown["forwarding"]["held"]["reason"] == "deploying the agent"
    health = (await relay.client.get("/health")).json()
    assert (health["backlog"]["held"], health["backlog"]["size"]) == (True, 1)
    metrics = (await relay.client.get("/metrics")).text
    assert "relay_forwarding_held 1.0" in metrics
    assert 'relay_backlog{reason="hold"} 1.0' in metrics
    assert (await relay_command.run("release")).returncode == 0
    await until(all_delivered(rows, 1))
    assert (await relay_command.run("release")).returncode == 1
    refused = await relay_command.run("hold", "--reason", "x", "--for", "soon")
    assert refused.returncode == 2


async def test_a_hold_ends_by_itself_and_that_is_in_the_audit(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows, connection: Connection
) -> None:
    relay = await start_relay()
    await gate.hold(connection, "maria", "a moment", for_s=600)
    assert (await relay.post(message(1))).json()["waiting"] == "hold"
    rows("UPDATE relay.holds SET until = now()")
    await until(all_delivered(rows, 1))
    await until(
        lambda: rows("SELECT action, operator FROM relay.operator_actions ORDER BY id")[1:] == [("release", "relay")]
    )
