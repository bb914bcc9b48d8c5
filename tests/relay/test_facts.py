"""What a delivery's facts say beyond the runbook's numbers: tests are marked, and no payload is too odd to be kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from relay.store import overview
from relay.store.database import connection_parameters
from tests.relay.traces import seen_of, trace
from tests.servers import AgentStandIn, Behaviour, Rows, RunningRelay

if TYPE_CHECKING:
    from relay.store.overview import Overview

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAYLOAD = {"event": "message_created", "id": 9, "message_type": "incoming", "conversation": {"id": 77}}


async def overview_of(rows: Rows) -> Overview:
    """What console and `relay status` would show."""
    parameters = connection_parameters(rows.dsn, "tests")
    async with await psycopg.AsyncConnection.connect(autocommit=True, **parameters) as connection:
        return await overview.read(connection)


async def test_a_test_webhook_is_handled_like_any_other_and_its_facts_are_marked(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    shared_agent.behave(Behaviour(status=422, times=1))
    for success in (False, True):
        delivery_id = str(uuid4())
        await shared_relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id, X_Forwarded_From="chatwoot-test")
        left = trace(shared_rows, delivery_id)
        assert left.test is True
        assert [(value["success"], metadata["test"]) for value, metadata in left.retries] == [(success, True)]
        assert [metadata["test"] for _, metadata in left.dead_letters] == ([] if success else [True])
        assert len(seen_of(shared_agent, delivery_id)) == 1


async def test_test_webhooks_count_for_no_rate_and_no_alert(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    before = await overview_of(shared_rows)
    shared_agent.behave(Behaviour(status=422))
    for _ in range(30):
        answer = await shared_relay.post(PAYLOAD, X_Forwarded_From="chatwoot-test")
        assert answer.status_code == 500
    state = await overview_of(shared_rows)
    assert state.last_24h == before.last_24h
    assert [verdict.rule.name for verdict in state.firing] == [verdict.rule.name for verdict in before.firing]


ODD = {
    "a NUL": rb'{"event": "message_created", "content": "a\u0000b", "conversation": {"id": 7}}',
    "half a surrogate pair": rb'{"event": "message_created", "content": "\ud83d", "conversation": {"id": 7}}',
    "a NUL in a key": rb'{"event": "message_created", "\u0000": 1, "conversation": {"id": 7}}',
    "too large a number": b'{"event": "message_created", "n": 1e1000000, "conversation": {"id": 7}}',
    "too small a number": b'{"event": "message_created", "n": 1e-99999, "conversation": {"id": 7}}',
    "a number of 200000 figures": b'{"event": "message_created", "n": '
    + b"7" * 200_000
    + b', "conversation": {"id": 7}}',
}
NOT_SO_ODD = {
    "a number of 4000 figures": b'{"event": "message_created", "n": ' + b"7" * 4_000 + b', "conversation": {"id": 7}}',
    "a key twice": b'{"event": "message_created", "n": 1, "n": 2, "conversation": {"id": 7}}',
    "what looks like a NUL": rb'{"event": "message_created", "content": "a\\u0000b", "conversation": {"id": 7}}',
    "nested 200 deep": b'{"event": "message_created", "conversation": {"id": 7}, "n":' + b"[" * 199 + b"]" * 199 + b"}",
}


@pytest.mark.parametrize("kind", [*ODD, *NOT_SO_ODD])
async def test_an_odd_body_is_kept_and_forwarded_whole_and_its_dead_letter_says_if_its_copy_was_altered(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows, kind: str
) -> None:
    shared_agent.behave(Behaviour(status=422))
    body, delivery_id = (ODD | NOT_SO_ODD)[kind], str(uuid4())
    answer = await shared_relay.post(body, X_Chatwoot_Delivery=delivery_id)
    assert answer.status_code == 500, answer.text
    (seen,) = seen_of(shared_agent, delivery_id)
    left = trace(shared_rows, delivery_id)
    assert seen.body == left.body == body
    ((letter, metadata),) = left.dead_letters
    assert (letter["payload"]["event"], letter["payload"]["conversation"]) == ("message_created", {"id": 7})
    assert metadata.get("payload_altered", False) is (kind in ODD)


async def test_one_odd_body_does_not_hold_up_the_others(shared_relay: RunningRelay, shared_agent: AgentStandIn) -> None:
    shared_agent.behave()
    for body in ODD.values():
        assert (await shared_relay.post(body)).status_code == 200


ODD_FIELDS: list[dict[str, Any]] = [
    {"event": None}, {"event": 5}, {"event": {"a": 1}}, {"event": "x" * 5_000}, {"event": "a\0b"}, {"event": "\ud800"},
    {"event": "message_created", "conversation": "x"}, {"event": "message_created", "conversation": {"id": "a\0b"}},
    {"event": "message_created", "conversation": {"id": 10**400}}, {"event": "conversation_created", "id": [1]}, {},
]  # fmt: skip


@pytest.mark.parametrize("payload", ODD_FIELDS, ids=lambda payload: ascii(payload)[:40])
async def test_an_event_of_any_shape_is_delivered(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows, payload: dict[str, Any]
) -> None:
    shared_agent.behave()
    delivery_id = str(uuid4())
    answer = await shared_relay.post(json.dumps(payload).encode(), X_Chatwoot_Delivery=delivery_id)
    assert answer.status_code == 200, answer.text
    assert trace(shared_rows, delivery_id).state == "delivered"


async def test_every_webhook_leaves_one_retry_fact_whatever_came_of_it(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    count = "SELECT count(*) FROM dashboard_facts WHERE fact_type = 'support.webhook.retry'"
    before = shared_rows.one(count)
    shared_agent.behave(Behaviour(status=503, times=4), Behaviour(status=404, times=1))
    for _ in range(4):
        await shared_relay.post(PAYLOAD)
    assert shared_rows.one(count) == before + 4
