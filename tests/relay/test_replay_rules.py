"""When a replay sends, waits and ends: its rate, its canary, the rule that stops it, and what operators ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from relay.store import replay_work, replays
from relay.store.replays import Control, PlanState
from tests.relay.operators import Operator
from tests.servers import PATIENCE_S, ROOT, Behaviour, free_port, program, until
from tests.store.plant import REPLAY, Plant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.servers import HeldAgent, Rows, RunningRelay

ONE_BY_ONE = {"relay_max_in_flight": 2}  # a replay takes half of what is free
AN_HOUR_APART = {
    "chatwoot_webhook_base_delay_ms": 3_600_000, "chatwoot_webhook_max_delay_ms": 3_600_000,
    "chatwoot_webhook_max_attempts": 2,
}  # fmt: skip


@pytest_asyncio.fixture
async def operator(dsn: str) -> AsyncIterator[Operator]:
    async with Operator(dsn) as opened:
        yield opened


@pytest.fixture
def letters(rows: Rows) -> list[str]:
    """Thirty dead letters."""
    Plant(rows).delivery("dead", delivery_id="letter-00")
    rows(
        "INSERT INTO relay.deliveries (delivery_id, state, claim, test, customer, headers, body) "
        "SELECT 'letter-' || lpad(n::text, 2, '0'), state, gen_random_uuid(), test, customer, headers, body "
        "FROM relay.deliveries, generate_series(1, 29) AS n"
    )
    found: list[str] = rows("SELECT delivery_id FROM relay.deliveries ORDER BY 1")
    return found


def sent(agent: HeldAgent) -> list[str]:
    return [seen.delivery_id for seen in agent.seen]


async def test_a_relay_claims_no_plan_that_it_works_on_though_its_own_lease_ran_out(
    operator: Operator, rows: Rows, letters: list[str]
) -> None:
    relay, plan_id = Plant(rows).relay(lease_s=-1), await operator.ask(*letters[:3])
    taken = await replay_work.claim(operator.connection, relay, working=[])
    assert taken is not None
    assert taken.id == plan_id
    assert await replay_work.claim(operator.connection, relay, working=[plan_id]) is None
    assert await replay_work.claim(operator.connection, Plant(rows).relay(), working=[]) is not None


async def test_a_plan_sends_no_faster_than_its_rate(
    relay: RunningRelay, operator: Operator, letters: list[str]
) -> None:
    plan = await operator.reaches(await operator.ask(*letters[:6], rate=8), PlanState.DONE)
    assert plan.delivered == 6
    assert plan.started_at is not None
    assert plan.finished_at is not None
    assert (plan.finished_at - plan.started_at).total_seconds() >= 5 / 8


async def test_live_traffic_gets_the_slot_that_replays_have_left(
    start_relay: Callable[..., Awaitable[RunningRelay]], operator: Operator, agent: HeldAgent, letters: list[str]
) -> None:
    relay = await start_relay(**ONE_BY_ONE, relay_respond="stored")
    agent.hold()
    plan_id = await operator.ask(*letters[:3], rate=None)
    await until(lambda: len(agent.seen) == 1)
    answer = await relay.post({"event": "message_created", "id": 1}, X_Chatwoot_Delivery="live")
    assert (answer.status_code, answer.json().get("waiting")) == (202, None)
    await until(lambda: sent(agent) == [letters[0], "live"])
    agent.release()
    await operator.reaches(plan_id, PlanState.DONE)


async def test_a_canary_that_fails_stops_the_plan_before_the_rest(
    relay: RunningRelay, operator: Operator, agent: HeldAgent, rows: Rows, letters: list[str]
) -> None:
    agent.behave(Behaviour(status=422, times=1))
    plan = await operator.reaches(await operator.ask(*letters, canary=1), PlanState.STOPPED)
    assert sent(agent) == letters[:1]
    assert plan.stopped_why == "the canary failed"
    assert (plan.delivered, plan.dead, plan.left) == (0, 1, 29)
    assert plan.finished_at is not None
    assert rows("SELECT count(*) FROM relay.deliveries WHERE state = 'dead'") == [30]


async def test_a_canary_that_waits_for_its_next_attempt_still_goes_alone(
    start_relay: Callable[..., Awaitable[RunningRelay]], operator: Operator, agent: HeldAgent, rows: Rows,
    letters: list[str],
) -> None:  # fmt: skip
    await start_relay(**AN_HOUR_APART)
    agent.behave(Behaviour(status=503, times=3))
    first = await operator.ask(*letters[:4], canary=1)
    await _end_wait(rows, letters[0])
    plan = await operator.reaches(first, PlanState.STOPPED)
    assert (sent(agent), plan.stopped_why) == ([letters[0]] * 2, "the canary failed")
    second = await operator.ask(*letters[:4], canary=1)
    await _end_wait(rows, letters[0])
    await operator.reaches(second, PlanState.DONE)
    assert sent(agent)[2:5] == [letters[0]] * 2 + [letters[1]]


async def test_failures_that_had_to_wait_count_in_a_row(
    start_relay: Callable[..., Awaitable[RunningRelay]], operator: Operator, agent: HeldAgent, rows: Rows,
    letters: list[str],
) -> None:  # fmt: skip
    await start_relay(**AN_HOUR_APART)
    agent.behave(Behaviour(status=503))
    plan_id = await operator.ask(*letters, stop_after=2)
    for letter in letters[:2]:
        await _end_wait(rows, letter)
    plan = await operator.reaches(plan_id, PlanState.STOPPED)
    assert (set(sent(agent)), plan.stopped_why) == (set(letters[:2]), "2 failures in a row")


async def _end_wait(rows: Rows, letter: str) -> None:
    """Let the next attempt of a delivery be due as soon as it waits."""
    waits = (
        "UPDATE relay.deliveries SET next_attempt_at = now() WHERE state = 'waiting' AND delivery_id = %s RETURNING 1"
    )
    await until(lambda: rows(waits, (letter,)))


async def test_the_last_of_a_canary_must_succeed_too(
    relay: RunningRelay, operator: Operator, agent: HeldAgent, letters: list[str]
) -> None:
    agent.behave(Behaviour(times=2), Behaviour(status=422))
    plan = await operator.reaches(await operator.ask(*letters, canary=3), PlanState.STOPPED)
    assert sent(agent) == letters[:3]
    assert (plan.delivered, plan.dead, plan.left) == (2, 1, 27)


async def test_a_canary_goes_alone_and_the_rest_after_it(
    relay: RunningRelay, operator: Operator, agent: HeldAgent, letters: list[str]
) -> None:
    agent.behave(Behaviour(delay_ms=150, times=2))
    plan = await operator.reaches(await operator.ask(*letters[:5], canary=2), PlanState.DONE)
    assert plan.delivered == 5
    first, second, third, *_ = agent.seen
    assert (second.at - first.at).total_seconds() >= 0.15
    assert (third.at - second.at).total_seconds() >= 0.15


async def test_so_many_failures_in_a_row_stop_a_plan(
    relay: RunningRelay, operator: Operator, agent: HeldAgent, letters: list[str]
) -> None:
    agent.behave(Behaviour(status=422))
    plan = await operator.reaches(await operator.ask(*letters, stop_after=3), PlanState.STOPPED)
    assert plan.stopped_why == "3 failures in a row"
    assert (plan.dead, plan.left) == (3, 27)
    assert len(agent.seen) == 3


async def test_a_success_between_failures_begins_the_row_anew(
    start_relay: Callable[..., Awaitable[RunningRelay]], operator: Operator, agent: HeldAgent, letters: list[str]
) -> None:
    await start_relay(**ONE_BY_ONE)
    agent.behave(*(Behaviour(status=200 if number % 3 == 2 else 422, times=1) for number in range(9)))
    plan = await operator.reaches(await operator.ask(*letters[:9], stop_after=3), PlanState.DONE)
    assert (plan.delivered, plan.dead) == (3, 6)


async def test_without_a_stop_rule_a_plan_goes_through_all_failures(
    relay: RunningRelay, operator: Operator, agent: HeldAgent, letters: list[str]
) -> None:
    agent.behave(Behaviour(status=422))
    plan = await operator.reaches(await operator.ask(*letters, stop_after=0), PlanState.DONE)
    assert plan.dead == 30


async def test_failures_before_a_pause_count_after_it(
    start_relay: Callable[..., Awaitable[RunningRelay]], operator: Operator, agent: HeldAgent, letters: list[str]
) -> None:
    await start_relay(**ONE_BY_ONE)
    agent.behave(Behaviour(status=422))
    agent.hold(after=1)
    plan_id = await operator.ask(*letters, stop_after=3)
    await operator.settles(plan_id, 1)
    await operator.steer(plan_id, Control.PAUSE)
    await operator.reaches(plan_id, PlanState.PAUSED)
    agent.release()
    await operator.steer(plan_id, Control.RESUME)
    plan = await operator.reaches(plan_id, PlanState.STOPPED)
    assert plan.dead == 3


async def test_a_paused_plan_sends_nothing_until_it_is_resumed(
    relay: RunningRelay, operator: Operator, agent: HeldAgent, rows: Rows, letters: list[str]
) -> None:
    plan_id = await operator.ask(*letters[:20], rate=3)
    await operator.settles(plan_id, 2)
    await operator.steer(plan_id, Control.PAUSE)
    await operator.reaches(plan_id, PlanState.PAUSED)
    await until(lambda: not rows("SELECT 1 FROM relay.replay_items WHERE state = 'sending'"))
    paused_at = await operator.plan(plan_id)
    await operator.reaches(await operator.ask(*letters[20:], rate=20), PlanState.DONE)
    assert await operator.plan(plan_id) == paused_at
    assert len(agent.seen) == paused_at.delivered + 10 < 30
    await operator.steer(plan_id, Control.RESUME)
    assert (await operator.reaches(plan_id, PlanState.DONE)).delivered == 20
    assert sorted(sent(agent)) == letters


async def test_a_stopped_plan_leaves_the_rest_dead_for_another_one(
    relay: RunningRelay, operator: Operator, agent: HeldAgent, rows: Rows, letters: list[str]
) -> None:
    plan_id = await operator.ask(*letters, rate=3)
    await operator.settles(plan_id, 2)
    await operator.steer(plan_id, Control.STOP)
    plan = await operator.reaches(plan_id, PlanState.STOPPED)
    assert plan.stopped_why == "stopped by maria (login: postgres)"
    assert plan.left > 0
    dead = rows("SELECT delivery_id FROM relay.deliveries WHERE state = 'dead' ORDER BY id")
    assert (await operator.reaches(await operator.ask(*dead), PlanState.DONE)).delivered == len(dead)
    assert sorted(sent(agent)) == letters


async def test_what_was_under_way_when_a_plan_was_stopped_is_still_counted(
    relay: RunningRelay, operator: Operator, agent: HeldAgent, letters: list[str]
) -> None:
    agent.hold()
    plan_id = await operator.ask(*letters[:2])
    await until(lambda: len(agent.seen) == 2)
    await operator.steer(plan_id, Control.STOP)
    await operator.reaches(plan_id, PlanState.STOPPED)
    agent.release()
    plan = await operator.settles(plan_id, 2)
    assert (plan.state, plan.delivered, plan.left) == (PlanState.STOPPED, 2, 0)


async def test_a_plan_that_is_stopped_before_a_relay_takes_it_sends_nothing(
    operator: Operator, agent: HeldAgent, letters: list[str], start_relay: Callable[..., Awaitable[RunningRelay]]
) -> None:
    plan_id = await operator.ask(*letters)
    await operator.steer(plan_id, Control.STOP)
    await start_relay()
    assert (await operator.reaches(plan_id, PlanState.STOPPED)).left == len(letters)
    assert not agent.seen


async def test_a_paused_plan_can_be_stopped(
    operator: Operator, agent: HeldAgent, letters: list[str], start_relay: Callable[..., Awaitable[RunningRelay]]
) -> None:
    plan_id = await operator.ask(*letters)
    await operator.steer(plan_id, Control.PAUSE)
    await start_relay()
    await operator.reaches(plan_id, PlanState.PAUSED)
    await operator.steer(plan_id, Control.STOP)
    assert (await operator.reaches(plan_id, PlanState.STOPPED)).left == len(letters)
    assert not agent.seen


async def test_progress_is_recorded_while_a_plan_is_running(
    relay: RunningRelay, dsn: str, operator: Operator, agent: HeldAgent, letters: list[str]
) -> None:
    agent.hold(after=1)
    async with Operator(dsn) as watcher:
        await watcher.connection.execute(f"LISTEN {replays.CHANNEL}")
        plan_id = await operator.ask(*letters[:4])
        seen = []
        async for notification in watcher.connection.notifies(timeout=PATIENCE_S):
            assert notification.payload == str(plan_id)
            seen.append(await operator.plan(plan_id))
            if seen[-1].ended:
                break
            if seen[-1].delivered:
                agent.release()
    assert seen[-1].state is PlanState.DONE
    assert any(plan.state is PlanState.RUNNING and plan.delivered for plan in seen)


async def test_another_relay_continues_the_plan_of_one_that_stopped(
    start_relay: Callable[..., Awaitable[RunningRelay]],
    operator: Operator,
    agent: HeldAgent,
    rows: Rows,
    letters: list[str],
) -> None:
    first = await start_relay()
    plan_id = await operator.ask(*letters[:12], rate=2)
    await operator.settles(plan_id, 2)
    await first.stop()
    assert not (await operator.plan(plan_id)).ended
    await start_relay()
    plan = await operator.reaches(plan_id, PlanState.DONE)
    assert plan.delivered == 12
    assert sorted(sent(agent)) == letters[:12]
    assert len(rows.facts(REPLAY)) == 12


async def test_another_relay_continues_the_plan_of_one_that_was_killed(
    start_relay: Callable[..., Awaitable[RunningRelay]],
    operator: Operator,
    agent: HeldAgent,
    dsn: str,
    rows: Rows,
    letters: list[str],
) -> None:
    env = {
        "DATABASE_URL": dsn, "AGENT_SDK_URL": agent.url, "RELAY_BIND": f"127.0.0.1:{free_port()}",
        "RELAY_LEASE_SECONDS": "1", "RELAY_PROBE_SECONDS": "3600", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    with program("-m", "relay", "serve", env=env) as killed:
        plan_id = await operator.ask(*letters[:12], rate=10)
        await operator.settles(plan_id, 2)
        killed.kill()
        killed.wait()
    await start_relay()
    plan = await operator.reaches(plan_id, PlanState.DONE)
    assert (plan.delivered, plan.skipped) == (12, 0)
    assert set(sent(agent)) == set(letters[:12])
    assert len(rows.facts(REPLAY)) == 12
