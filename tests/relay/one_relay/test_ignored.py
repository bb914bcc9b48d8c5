"""What is stored and goes no further: the agent's own notes coming back, and events outside RELAY_FORWARD_EVENTS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.agent import AgentStandIn
    from tests.servers import Rows, RunningRelay

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTE = {"event": "message_created", "id": 5, "private": True, "message_type": "outgoing", "conversation": {"id": 7}}


async def settled(relay: RunningRelay, payload: dict[str, Any]) -> dict[str, Any]:
    answer = await relay.post(payload)
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize("message_type", ["outgoing", 1], ids=["as a word", "as a number"])
async def test_a_private_note_that_comes_back_is_stored_and_not_forwarded(
    relay: RunningRelay, agent: AgentStandIn, rows: Rows, message_type: object
) -> None:
    logged = relay.output.count("Webhook ignored, not forwarded")
    document = await settled(relay, NOTE | {"message_type": message_type})
    assert document == {"success": True, "ignored": True, "delivery_id": document["delivery_id"]}
    assert rows("SELECT state, event, conversation_id, finished_at IS NOT NULL, owner FROM relay.deliveries") == [
        ("ignored", "message_created", "7", True, None)
    ]
    assert not agent.seen
    assert rows("SELECT count(*) FROM dashboard_facts WHERE fact_type LIKE 'support.webhook.%%'") == [0]
    await until(lambda: relay.output.count("Webhook ignored, not forwarded") == logged + 1)


@pytest.mark.parametrize(
    "payload",
    [NOTE | {"private": False}, NOTE | {"message_type": "incoming"}, NOTE | {"message_type": True},
     {"event": "conversation_updated", "id": 1}, {"event": "never_heard_of", "id": 1}, {"id": 1}],
    ids=["a public answer", "an incoming message", "no message type", "another event", "an unknown event", "no event"],
)  # fmt: skip
async def test_everything_else_is_forwarded(relay: RunningRelay, agent: AgentStandIn, payload: dict[str, Any]) -> None:
    assert "ignored" not in await settled(relay, payload)
    assert len(agent.seen) == 1


async def test_only_the_events_that_are_named_are_forwarded(
    start_one: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows
) -> None:
    relay = await start_one(relay_forward_events="message_created, conversation_status_changed")
    for event in ("message_created", "conversation_status_changed", "conversation_updated", "contact_created"):
        document = await settled(relay, {"event": event, "id": 1})
        assert document.get("ignored", False) is (event not in {"message_created", "conversation_status_changed"})
    assert len(agent.seen) == 2
    assert rows("SELECT event FROM relay.deliveries WHERE state = 'ignored' ORDER BY id") == [
        "conversation_updated", "contact_created"
    ]  # fmt: skip


async def test_the_same_again_is_a_duplicate(relay: RunningRelay, rows: Rows) -> None:
    for expected in ({"ignored": True}, {"duplicate": True, "state": "ignored"}):
        answer = await relay.post(NOTE, x_chatwoot_delivery="once")
        assert answer.json() == {"success": True, "delivery_id": "once"} | expected
    assert rows("SELECT run FROM relay.deliveries") == [1]


async def test_ignored_ones_among_others_in_one_commit_each_get_their_own_answer(
    relay: RunningRelay, agent: AgentStandIn
) -> None:
    import asyncio  # noqa: PLC0415

    payloads = [NOTE if number % 2 else {"event": "message_created", "id": number} for number in range(40)]
    answers = await asyncio.gather(*(relay.post(payload) for payload in payloads))
    assert [answer.json().get("ignored", False) for answer in answers] == [bool(n % 2) for n in range(40)]
    assert len(agent.seen) == 20


async def test_they_are_counted_and_move_no_rate(
    start_one: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows
) -> None:
    relay = await start_one()
    agent.behave(Behaviour(status=422))
    await relay.post({"event": "message_created", "id": 1})
    for _ in range(3):
        await settled(relay, NOTE)
    metrics = (await relay.client.get("/metrics")).text
    assert 'relay_webhooks_ignored_total{worker="0"} 3.0' in metrics
    assert 'relay_success_ratio{window="15m"} 0.0' in metrics
