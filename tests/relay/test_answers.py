"""What the sender of a good webhook is answered (DESIGN 2): 200, a duplicate's 200, and 202."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.relay.traces import seen_of, trace
from tests.relay.wire import BluntAgent, wire_to
from tests.servers import AgentStandIn, Behaviour, HeldAgent, Rows, RunningRelay, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    StartRelay = Callable[..., Awaitable[RunningRelay]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAYLOAD = {"event": "message_created", "id": 9}
DRAFTED = b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n" + b'{"status": "drafted"}'


async def test_a_delivered_webhook_is_answered_200_with_what_became_of_it(
    shared_relay: RunningRelay, shared_agent: AgentStandIn
) -> None:
    shared_agent.behave()
    delivery_id = str(uuid4())
    answer = await shared_relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)
    document = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert isinstance(document.pop("duration_ms"), int)
    assert document == {
        "success": True, "processed": True, "delivery_id": delivery_id, "attempts": 1, "agent_status": "draft_ready",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "agent_status"),
    [
        (b'{"status": "ignored"}', "ignored"),
        (b'{"status": 7}', None),
        (b'{"ok": true}', None),
        (b"[1]", None),
        (b"OK", None),
        (b"", None),
        (b'{"status": "x", "rest": "' + b"x" * 70_000 + b'"}', None),
    ],
    ids=["text", "no text", "no status", "no object", "no JSON", "nothing", "beyond 64 KiB"],
)
async def test_agent_status_is_the_agents_own_word_if_it_said_one(
    start_one: StartRelay, said: bytes, agent_status: str | None
) -> None:
    async with BluntAgent(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)) as agent:
        relay = await start_one(agent=agent.url)
        answer = await relay.post(PAYLOAD)
    assert (answer.status_code, answer.json()["agent_status"]) == (200, agent_status)


async def test_the_runbooks_manual_test_is_answered_200(shared_relay: RunningRelay, shared_agent: AgentStandIn) -> None:
    shared_agent.behave()
    body = b"""{
    "event": "message_created",
    "id": 12345,
    "content": "Test message",
    "message_type": 0,
    "conversation": {"id": 1}
  }"""
    answer = await shared_relay.post(body, X_Forwarded_From="chatwoot-test")
    assert (answer.status_code, answer.json()["processed"]) == (200, True)


async def test_a_duplicate_of_a_delivered_webhook_is_answered_200_and_not_forwarded(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    shared_agent.behave()
    delivery_id = str(uuid4())
    await shared_relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)
    answer = await shared_relay.post(PAYLOAD | {"other": 1}, X_Chatwoot_Delivery=delivery_id)
    assert (answer.status_code, answer.json()) == (
        200, {"success": True, "duplicate": True, "delivery_id": delivery_id, "state": "delivered"},
    )  # fmt: skip
    assert len(seen_of(shared_agent, delivery_id)) == 1
    left = trace(shared_rows, delivery_id)
    assert (left.run, len(left.tried), len(left.retries)) == (1, 1, 1)
    assert b"other" not in left.body


async def test_a_duplicate_of_a_webhook_in_flight_is_answered_at_once_and_not_forwarded(
    start_one: StartRelay,
) -> None:
    delivery_id = str(uuid4())
    async with BluntAgent(DRAFTED, held=True) as agent:
        relay = await start_one(agent=agent.url)
        first = asyncio.create_task(relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id))
        await until(lambda: agent.asked)
        answer = await relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)
        assert (answer.status_code, answer.json()) == (
            200, {"success": True, "duplicate": True, "delivery_id": delivery_id, "state": "forwarding"},
        )  # fmt: skip
        agent.may_answer.set()
        assert (await first).json()["processed"] is True
        assert agent.asked == 1


async def test_of_the_same_webhook_ten_times_at_once_one_is_forwarded(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    shared_agent.behave()
    delivery_id = str(uuid4())
    posts = (shared_relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id) for _ in range(10))
    answers = [answer.json() for answer in await asyncio.gather(*posts)]
    assert sorted("duplicate" in answer for answer in answers) == [False] + [True] * 9
    assert len(seen_of(shared_agent, delivery_id)) == len(trace(shared_rows, delivery_id).retries) == 1


async def test_a_dead_delivery_that_comes_again_is_forwarded_again(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    shared_agent.behave(Behaviour(status=422))
    delivery_id = str(uuid4())
    for run in (1, 2):
        answer = await shared_relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)
        assert (answer.status_code, answer.json()["attempts"]) == (500, 1)
        assert trace(shared_rows, delivery_id).run == run
    shared_agent.behave()
    answer = await shared_relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)
    assert (answer.status_code, answer.json()["processed"]) == (200, True)
    left = trace(shared_rows, delivery_id)
    assert (left.state, left.run) == ("delivered", 3)
    assert [(tried.run, tried.status) for tried in left.tried] == [(1, "422"), (2, "422"), (3, "200")]
    assert [retry["success"] for retry, _ in left.retries] == [False, False, True]
    assert len(left.dead_letters) == 1, "a death within a minute of the last one leaves no second dead letter"


async def test_a_webhook_that_takes_longer_than_the_deadline_is_answered_202_and_still_delivered(
    start_one: StartRelay, shared_rows: Rows
) -> None:
    delivery_id = str(uuid4())
    async with BluntAgent(DRAFTED, held=True) as agent:
        relay = await start_one(agent=agent.url, chatwoot_webhook_response_deadline_ms=1500)
        answer = await relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)
        assert (answer.status_code, answer.json()) == (202, {"accepted": True, "delivery_id": delivery_id})
        assert trace(shared_rows, delivery_id).state == "forwarding"
        agent.may_answer.set()
        await until(lambda: trace(shared_rows, delivery_id).state == "delivered")
        assert (agent.asked, len(trace(shared_rows, delivery_id).retries)) == (1, 1)


async def test_a_webhook_that_fails_after_its_202_becomes_a_dead_letter_all_the_same(
    start_one: StartRelay, shared_rows: Rows
) -> None:
    async with BluntAgent(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", held=True) as agent:
        relay = await start_one(agent=agent.url, chatwoot_webhook_response_deadline_ms=1500)
        answer = await relay.post(PAYLOAD)
        assert answer.status_code == 202
        agent.may_answer.set()
        delivery_id = answer.json()["delivery_id"]
        await until(lambda: trace(shared_rows, delivery_id).state == "dead")
        assert (agent.asked, len(trace(shared_rows, delivery_id).dead_letters)) == (3, 1)


async def test_with_respond_stored_a_webhook_is_answered_202_as_soon_as_it_is_stored(
    start_one: StartRelay, shared_rows: Rows
) -> None:
    delivery_id = str(uuid4())
    async with BluntAgent(DRAFTED, held=True) as agent:
        relay = await start_one(agent=agent.url, relay_respond="stored")
        answer = await relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)
        assert (answer.status_code, answer.json()) == (202, {"accepted": True, "delivery_id": delivery_id})
        assert trace(shared_rows, delivery_id).state == "forwarding"
        duplicate = await relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)
        assert (duplicate.status_code, duplicate.json()["state"]) == (200, "forwarding")
        agent.may_answer.set()
        await until(lambda: trace(shared_rows, delivery_id).state == "delivered")


async def test_a_slowly_sent_body_leaves_its_webhook_the_whole_deadline(
    start_one: StartRelay, shared_agent: HeldAgent
) -> None:
    relay = await start_one(chatwoot_webhook_response_deadline_ms=4_600)
    shared_agent.behave()
    shared_agent.hold()
    async with wire_to(relay) as wire:
        body = b'{"event": "message_created", "id": 10}'
        await wire.begin(f"Content-Length: {len(body)}")
        await wire.send(body[:10])
        late = await relay.post(PAYLOAD)  # takes a deadline to be answered: the other body takes longer
        assert late.status_code == 202
        shared_agent.release()
        await wire.send(body[10:])
        status, answer = await wire.answer()
    assert (status, answer.get("processed")) in {(200, True), (202, None)}
