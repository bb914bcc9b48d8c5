"""What follows from the Agent SDK's answers, row by row of DESIGN 3: attempts, the sender's answer, what is kept."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.relay.traces import seen_of, trace
from tests.servers import AgentStandIn, Behaviour, Rows, RunningRelay

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAYLOAD = {"event": "message_created", "id": 9, "message_type": "incoming", "conversation": {"id": 77}}

RETRIED = [500, 502, 503, 504, 501, 505, 507, 520, 599, 429, 408]
FINAL = [400, 401, 403, 404, 422, 402, 405, 409, 410, 413, 418, 451, 300, 301, 302, 303, 304, 307, 308]
SUCCESSFUL = [200, 201, 202, 203, 204, 206, 299]


async def post(relay: RunningRelay) -> tuple[str, httpx.Response]:
    """Post a webhook under a delivery id of its own."""
    delivery_id = str(uuid4())
    return delivery_id, await relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)


def assert_failed(answer: httpx.Response, *, delivery_id: str, attempts: int, retryable: bool, message: str) -> None:
    """The sender's answer has exactly these words."""
    document: dict[str, Any] = answer.json()
    assert answer.status_code == 500
    assert document.pop("duration_ms") >= 0
    assert document == {
        "error": "Webhook processing failed", "message": message, "delivery_id": delivery_id, "attempts": attempts,
        "retryable": retryable,
    }  # fmt: skip


def assert_dead(rows: Rows, agent: AgentStandIn, *, delivery_id: str, statuses: list[str], message: str) -> None:
    """The delivery, its attempts, its facts and its dead letter say so, and the agent was asked as often."""
    left, attempts = trace(rows, delivery_id), len(statuses)
    assert (left.state, left.attempts, left.final_status, left.last_error) == ("dead", attempts, statuses[-1], message)
    assert [(tried.number, tried.status) for tried in left.tried] == list(enumerate(statuses, 1))
    assert all(tried.error for tried in left.tried)
    ((retry, _),) = left.retries
    assert retry.pop("durationMs") >= 0
    assert retry == {"attempts": attempts, "success": False, "finalStatus": statuses[-1]}
    ((letter, metadata),) = left.dead_letters
    assert letter == {
        "payload": PAYLOAD, "attempts": attempts, "lastError": message, "finalStatus": statuses[-1],
        "deliveryId": delivery_id, "agentEndpoint": f"{agent.url}/webhooks/chatwoot",
    }  # fmt: skip
    assert metadata["requires_manual_review"] is True
    assert datetime.fromisoformat(metadata["timestamp"]).tzinfo is not None


@pytest.mark.parametrize("status", RETRIED)
async def test_an_answer_that_is_retried_becomes_a_dead_letter_after_the_third_attempt(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows, status: int
) -> None:
    shared_agent.behave(Behaviour(status=status))
    delivery_id, answer = await post(shared_relay)
    message = "Agent SDK is rate limiting (429)" if status == 429 else f"Agent SDK answered {status}"
    assert_failed(answer, delivery_id=delivery_id, attempts=3, retryable=True, message=message)
    assert_dead(shared_rows, shared_agent, delivery_id=delivery_id, statuses=[str(status)] * 3, message=message)
    assert [seen.attempt for seen in seen_of(shared_agent, delivery_id)] == ["1", "2", "3"]


@pytest.mark.parametrize("status", FINAL)
async def test_an_answer_that_is_not_retried_becomes_a_dead_letter_at_once(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows, status: int
) -> None:
    shared_agent.behave(Behaviour(status=status))
    delivery_id, answer = await post(shared_relay)
    message = answer.json()["message"]
    assert str(status) in message
    assert_failed(answer, delivery_id=delivery_id, attempts=1, retryable=False, message=message)
    assert_dead(shared_rows, shared_agent, delivery_id=delivery_id, statuses=[str(status)], message=message)
    assert [seen.attempt for seen in seen_of(shared_agent, delivery_id)] == ["1"]


@pytest.mark.parametrize("status", SUCCESSFUL)
async def test_any_2xx_delivers_at_the_first_attempt(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows, status: int
) -> None:
    shared_agent.behave(Behaviour(status=status))
    delivery_id, answer = await post(shared_relay)
    assert (answer.status_code, answer.json()["attempts"]) == (200, 1)
    left = trace(shared_rows, delivery_id)
    assert (left.state, left.final_status, left.last_error, left.dead_letters) == ("delivered", str(status), None, [])
    ((retry, metadata),) = left.retries
    assert retry.pop("durationMs") >= 0
    assert retry == {"attempts": 1, "success": True, "finalStatus": str(status)}
    assert datetime.fromisoformat(metadata.pop("timestamp")).tzinfo is not None
    assert metadata == {"deliveryId": delivery_id, "event": "message_created", "conversationId": 77}


@pytest.mark.parametrize("statuses", [[503, 200], [429, 408, 200], [500, 502, 201]])
async def test_an_agent_that_recovers_in_time_gets_the_delivery_and_there_is_no_dead_letter(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows, statuses: list[int]
) -> None:
    shared_agent.behave(*(Behaviour(status=status, times=1) for status in statuses))
    delivery_id, answer = await post(shared_relay)
    assert (answer.status_code, answer.json()["attempts"]) == (200, len(statuses))
    left = trace(shared_rows, delivery_id)
    assert (left.state, left.dead_letters) == ("delivered", [])
    assert [tried.status for tried in left.tried] == [str(status) for status in statuses]
    assert left.retries[0][0].items() >= {
        "attempts": len(statuses), "success": True, "finalStatus": str(statuses[-1]),
    }.items()  # fmt: skip


async def test_the_first_answer_that_is_not_worth_a_retry_ends_the_run(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    shared_agent.behave(Behaviour(status=503, times=1), Behaviour(status=422))
    delivery_id, answer = await post(shared_relay)
    message = "Agent SDK refused the payload (422)"
    assert_failed(answer, delivery_id=delivery_id, attempts=2, retryable=False, message=message)
    assert_dead(shared_rows, shared_agent, delivery_id=delivery_id, statuses=["503", "422"], message=message)


async def test_a_redirect_is_not_followed(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    elsewhere = AgentStandIn()
    await elsewhere.start()
    for status in (301, 302, 303, 307, 308):
        shared_agent.behave(Behaviour(status=status, location=f"{elsewhere.url}/webhooks/chatwoot"))
        delivery_id, answer = await post(shared_relay)
        assert (answer.status_code, trace(shared_rows, delivery_id).final_status) == (500, str(status))
        assert len(seen_of(shared_agent, delivery_id)) == 1
    await elsewhere.stop()
    assert not elsewhere.seen


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_there_are_as_many_attempts_as_are_set(
    start_one: Any, shared_agent: AgentStandIn, shared_rows: Rows, most: int
) -> None:
    relay = await start_one(chatwoot_webhook_max_attempts=most, chatwoot_webhook_backoff_factor=1)
    shared_agent.behave(Behaviour(status=503))
    delivery_id, answer = await post(relay)
    message = "Agent SDK answered 503"
    assert_failed(answer, delivery_id=delivery_id, attempts=most, retryable=True, message=message)
    assert_dead(shared_rows, shared_agent, delivery_id=delivery_id, statuses=["503"] * most, message=message)
    assert len(seen_of(shared_agent, delivery_id)) == most


async def test_what_the_agent_answered_is_kept_with_the_attempt(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    shared_agent.behave(Behaviour(status=422))
    delivery_id, _ = await post(shared_relay)
    assert trace(shared_rows, delivery_id).tried[0].answer == '{"detail": "set to answer 422"}'
