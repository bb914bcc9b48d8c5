"""What a replay sends and what it leaves behind: frozen dead letters, through the same retries, recorded as replays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from relay.chatwoot.signature import sign
from relay.store.replays import Control, PlanState
from tests.relay.operators import NAME, Operator
from tests.servers import Behaviour, until
from tests.store.plant import DEAD_LETTER, REPLAY, RETRY, Plant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.servers import AgentStandIn, Rows, RunningRelay

ODD_BODY = b'{ "event":"message_created",\t"content": "caf\\u00e9 \\ud83d\\ude00", "n": 1.50, "id" : 7 }\n'


@pytest_asyncio.fixture
async def operator(dsn: str) -> AsyncIterator[Operator]:
    async with Operator(dsn) as opened:
        yield opened


@pytest.fixture
def plant(rows: Rows) -> Plant:
    return Plant(rows)


@pytest.fixture
def letters(plant: Plant) -> list[str]:
    """Three dead letters."""
    ids = ["first", "second", "third"]
    for delivery_id in ids:
        plant.delivery("dead", delivery_id=delivery_id)
    return ids


def states(rows: Rows) -> dict[str, str]:
    return dict(rows("SELECT delivery_id, state FROM relay.deliveries"))


async def test_a_plan_sends_what_it_froze_and_is_done(
    relay: RunningRelay, operator: Operator, agent: AgentStandIn, rows: Rows, letters: list[str]
) -> None:
    plan = await operator.reaches(await operator.ask(*letters), PlanState.DONE)
    assert sorted(seen.delivery_id for seen in agent.seen) == letters
    assert states(rows) == dict.fromkeys(letters, "delivered")
    assert (plan.total, plan.delivered, plan.dead, plan.skipped, plan.left) == (3, 3, 0, 0, 0)
    assert plan.started_at is not None
    assert plan.finished_at is not None
    assert plan.created_at <= plan.started_at <= plan.finished_at


async def test_a_plan_sends_nothing_that_died_after_it_was_asked_for(
    operator: Operator,
    agent: AgentStandIn,
    rows: Rows,
    plant: Plant,
    letters: list[str],
    start_relay: Callable[..., Awaitable[RunningRelay]],
) -> None:
    plan = await operator.ask(*letters)
    plant.delivery("dead", delivery_id="later")
    await start_relay()
    await operator.reaches(plan, PlanState.DONE)
    assert states(rows)["later"] == "dead"
    assert sorted(seen.delivery_id for seen in agent.seen) == letters


async def test_a_plan_sends_in_the_order_it_was_frozen_in(
    operator: Operator,
    agent: AgentStandIn,
    letters: list[str],
    start_relay: Callable[..., Awaitable[RunningRelay]],
) -> None:
    await start_relay()
    await operator.reaches(await operator.ask("third", "first", "second", canary=3), PlanState.DONE)
    assert [seen.delivery_id for seen in agent.seen] == ["third", "first", "second"]


async def test_a_plan_without_deliveries_is_done_at_once(relay: RunningRelay, operator: Operator) -> None:
    plan = await operator.reaches(await operator.ask(), PlanState.DONE)
    assert plan.total == plan.left == 0


async def test_a_success_is_recorded_as_a_replay_and_not_as_a_retry(
    relay: RunningRelay, operator: Operator, rows: Rows, plant: Plant
) -> None:
    plant.delivery("dead", delivery_id="one", conversation_id="77")
    plan_id = await operator.ask("one")
    await operator.reaches(plan_id, PlanState.DONE)
    ((value, metadata),) = rows.facts(REPLAY)
    assert value.pop("durationMs") >= 0
    assert value == {
        "attempts": 1, "success": True, "finalStatus": "200", "requestedBy": NAME, "replayId": plan_id,
    }  # fmt: skip
    assert metadata["deliveryId"] == "one"
    assert metadata["conversationId"] == 77
    assert rows.facts(RETRY) == rows.facts(DEAD_LETTER) == []


async def test_what_fails_again_is_dead_again_and_makes_no_outage_worse(
    relay: RunningRelay, operator: Operator, agent: AgentStandIn, rows: Rows, letters: list[str]
) -> None:
    agent.behave(Behaviour(status=422))
    plan = await operator.reaches(await operator.ask("first"), PlanState.DONE)
    assert (plan.delivered, plan.dead) == (0, 1)
    assert rows("SELECT state, run, final_status FROM relay.deliveries WHERE delivery_id = 'first'") == [
        ("dead", 2, "422")
    ]
    ((value, _),) = rows.facts(REPLAY)
    assert (value["success"], value["finalStatus"], value["attempts"]) == (False, "422", 1)
    assert rows.facts(RETRY) == rows.facts(DEAD_LETTER) == []


async def test_a_replay_of_a_test_webhook_is_still_a_test(
    relay: RunningRelay, operator: Operator, rows: Rows, plant: Plant
) -> None:
    plant.delivery("dead", delivery_id="one", test=True)
    await operator.reaches(await operator.ask("one"), PlanState.DONE)
    assert [metadata["test"] for _, metadata in rows.facts(REPLAY)] == [True]


async def test_a_replay_is_retried_like_any_delivery(
    relay: RunningRelay, operator: Operator, agent: AgentStandIn, rows: Rows, letters: list[str]
) -> None:
    agent.behave(Behaviour(status=503, times=2))
    await operator.reaches(await operator.ask("first"), PlanState.DONE)
    assert [seen.attempt for seen in agent.seen] == ["1", "2", "3"]
    assert {seen.delivery_id for seen in agent.seen} == {"first"}
    assert {seen.headers["idempotency-key"] for seen in agent.seen} == {"first"}
    assert rows("SELECT a.run, a.number, a.status FROM relay.attempts a ORDER BY a.number") == [
        (2, 1, "503"), (2, 2, "503"), (2, 3, "200"),
    ]  # fmt: skip
    assert [value["attempts"] for value, _ in rows.facts(REPLAY)] == [3]


async def test_the_agent_gets_the_bytes_and_headers_that_chatwoot_sent(
    relay: RunningRelay, operator: Operator, agent: AgentStandIn, rows: Rows
) -> None:
    agent.behave(Behaviour(status=422, times=1))
    given = {"x_chatwoot_signature": "sha256=abc", "x_chatwoot_timestamp": "1700000000"}
    await relay.post(ODD_BODY, x_chatwoot_delivery="odd", **given)
    await operator.reaches(await operator.ask("odd"), PlanState.DONE)
    first, again = agent.seen
    assert again.body == first.body == ODD_BODY
    assert again.headers["x-chatwoot-signature"] == "sha256=abc"
    assert again.headers["x-chatwoot-timestamp"] == "1700000000"


async def test_an_edited_body_is_sent_and_the_original_is_kept(
    relay: RunningRelay, operator: Operator, agent: AgentStandIn, rows: Rows, plant: Plant
) -> None:
    plant.delivery("dead", delivery_id="one", body=ODD_BODY)
    edited = b'{"event": "message_created",  "content": "mended"}'
    plan_id = await operator.ask("one", edited_body=edited)
    plan = await operator.reaches(plan_id, PlanState.DONE)
    assert [seen.body for seen in agent.seen] == [edited]
    assert plan.edited
    assert rows("SELECT state, body FROM relay.deliveries") == [("delivered", ODD_BODY)]
    assert rows("SELECT edited_body FROM relay.replay_plans WHERE id = %s", (plan_id,)) == [edited]


async def test_an_edit_that_fails_does_not_stick_to_the_delivery(
    relay: RunningRelay, operator: Operator, agent: AgentStandIn, plant: Plant
) -> None:
    plant.delivery("dead", delivery_id="one", body=ODD_BODY)
    agent.behave(Behaviour(status=422, times=1))
    await operator.reaches(await operator.ask("one", edited_body=b'{"edited": true}'), PlanState.DONE)
    await operator.reaches(await operator.ask("one"), PlanState.DONE)
    assert [seen.body for seen in agent.seen] == [b'{"edited": true}', ODD_BODY]


@pytest.mark.parametrize("secret", ["first-secret,second-secret", None])
async def test_an_edited_body_never_goes_with_the_originals_signature(
    start_relay: Callable[..., Awaitable[RunningRelay]],
    operator: Operator,
    agent: AgentStandIn,
    rows: Rows,
    plant: Plant,
    secret: str | None,
) -> None:
    await start_relay(chatwoot_webhook_secret=secret)
    plant.delivery("dead", delivery_id="one")
    old = [["x-chatwoot-signature", "sha256=old"], ["x-chatwoot-timestamp", "1"]]
    rows("UPDATE relay.deliveries SET headers = %s::jsonb", (json.dumps(old),))
    edited = b'{"event": "message_created"}'
    await operator.reaches(await operator.ask("one", edited_body=edited), PlanState.DONE)
    (seen,) = agent.seen
    timestamp = seen.headers.get("x-chatwoot-timestamp")
    expected = None if secret is None else sign(b"first-secret", timestamp or "", edited)
    assert seen.headers.get("x-chatwoot-signature") == expected
    assert timestamp != "1"


async def test_who_asked_and_why_stays_on_record(
    relay: RunningRelay, operator: Operator, rows: Rows, letters: list[str]
) -> None:
    plan_id = await operator.ask(*letters, reason="the agent is back", filter="status:503")
    plan = await operator.reaches(plan_id, PlanState.DONE)
    assert (plan.requested_by, plan.reason, plan.filter) == (NAME, "the agent is back", "status:503")
    assert rows("SELECT operator, action, plan_id, reason, details FROM relay.operator_actions") == [
        (
            NAME,
            "replay",
            plan_id,
            "the agent is back",
            {"total": 3, "filter": "status:503", "deliveries": ["first", "second", "third"]},
        )
    ]


async def test_the_audit_marks_an_edited_body(
    relay: RunningRelay, operator: Operator, rows: Rows, letters: list[str]
) -> None:
    await operator.ask("second", edited_body=b'{"event": "message_created"}')
    assert rows("SELECT details FROM relay.operator_actions") == [
        {"total": 1, "filter": "", "body": "edited", "deliveries": ["second"]}
    ]


async def test_the_audit_names_a_few_deliveries_and_counts_many(
    relay: RunningRelay, operator: Operator, rows: Rows, plant: Plant, letters: list[str]
) -> None:
    many = [*letters, "fourth", "fifth", "sixth"]
    for delivery_id in many[3:]:
        plant.delivery("dead", delivery_id=delivery_id)
    await operator.ask(*many[:5])
    await operator.ask(*many)
    few, all_of_them = rows("SELECT details FROM relay.operator_actions ORDER BY id")
    assert few["deliveries"] == many[:5]
    assert all_of_them == {"total": 6, "filter": ""}


async def test_two_plans_that_hold_the_same_deliveries_send_each_once(
    start_relay: Callable[..., Awaitable[RunningRelay]],
    operator: Operator,
    agent: AgentStandIn,
    rows: Rows,
    plant: Plant,
) -> None:
    ids = [f"letter-{number}" for number in range(40)]
    for delivery_id in ids:
        plant.delivery("dead", delivery_id=delivery_id)
    asked = [await operator.ask(*ids), await operator.ask(*ids), await operator.ask(*reversed(ids))]
    await start_relay()
    await start_relay()
    plans = [await operator.reaches(plan_id, PlanState.DONE) for plan_id in asked]
    assert sorted(seen.delivery_id for seen in agent.seen) == sorted(ids)
    assert sum(plan.delivered for plan in plans) == len(ids)
    assert all(plan.delivered + plan.skipped == len(ids) for plan in plans)
    assert len(rows.facts(REPLAY)) == len(ids)


async def test_what_failed_in_another_plan_meanwhile_is_not_sent_a_second_time(
    operator: Operator,
    agent: AgentStandIn,
    letters: list[str],
    start_relay: Callable[..., Awaitable[RunningRelay]],
) -> None:
    agent.behave(Behaviour(status=422))
    asked = [await operator.ask("first"), await operator.ask("first")]
    await start_relay()
    plans = [await operator.reaches(plan_id, PlanState.DONE) for plan_id in asked]
    assert len(agent.seen) == 1
    assert sorted((plan.dead, plan.skipped) for plan in plans) == [(0, 1), (1, 0)]


async def test_a_delivery_that_was_discarded_meanwhile_is_not_sent(
    operator: Operator,
    agent: AgentStandIn,
    rows: Rows,
    letters: list[str],
    start_relay: Callable[..., Awaitable[RunningRelay]],
) -> None:
    plan_id = await operator.ask(*letters)
    await operator.steer(plan_id, Control.PAUSE)
    rows(
        "INSERT INTO relay.operator_actions (operator, action, deliveries, reason) "
        "SELECT 'maria', 'discard', array_agg(id), 'spam' FROM relay.deliveries WHERE delivery_id = 'second'"
    )
    await start_relay()
    await until(lambda: states(rows)["second"] == "discarded")
    await operator.steer(plan_id, Control.RESUME)
    plan = await operator.reaches(plan_id, PlanState.DONE)
    assert sorted(seen.delivery_id for seen in agent.seen) == ["first", "third"]
    assert states(rows) == {"first": "delivered", "second": "discarded", "third": "delivered"}
    assert (plan.delivered, plan.skipped) == (2, 1)


async def test_a_delivery_that_was_delivered_meanwhile_is_not_sent(
    operator: Operator,
    agent: AgentStandIn,
    letters: list[str],
    rows: Rows,
    start_relay: Callable[..., Awaitable[RunningRelay]],
) -> None:
    plan_id = await operator.ask(*letters)
    await operator.steer(plan_id, Control.PAUSE)
    relay = await start_relay()
    await operator.reaches(plan_id, PlanState.PAUSED)
    body: bytes = rows.one("SELECT body FROM relay.deliveries WHERE delivery_id = 'second'")
    answer = await relay.post(body, x_chatwoot_delivery="second")
    assert answer.json()["processed"] is True
    await operator.steer(plan_id, Control.RESUME)
    plan = await operator.reaches(plan_id, PlanState.DONE)
    assert sorted(seen.delivery_id for seen in agent.seen) == letters
    assert (plan.delivered, plan.skipped) == (2, 1)


async def test_more_plans_than_a_relay_works_on_at_once_are_all_done(
    operator: Operator,
    agent: AgentStandIn,
    plant: Plant,
    start_relay: Callable[..., Awaitable[RunningRelay]],
) -> None:
    asked: list[Any] = []
    for number in range(7):
        plant.delivery("dead", delivery_id=str(number))
        asked.append(await operator.ask(str(number)))
    await start_relay()
    for plan_id in asked:
        assert (await operator.reaches(plan_id, PlanState.DONE)).delivered == 1
    assert len(agent.seen) == 7
