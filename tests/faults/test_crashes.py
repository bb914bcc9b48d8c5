"""`kill -9` in every phase of a delivery, and under load: what was answered for is never lost."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from relay.demo.agent import AgentStandIn
from tests.faults.ledger import Ledger
from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import CommandLine
    from tests.faults.conftest import RelayProcess, Senders, Survived
    from tests.faults.load import Load
    from tests.servers import Rows

pytestmark = pytest.mark.faults


def states(rows: Rows) -> list[str]:
    return rows("SELECT state FROM relay.deliveries ORDER BY id")


async def test_what_was_stored_and_not_yet_forwarded_is_forwarded_after_the_restart(
    make_relay: Callable[..., RelayProcess], senders: Senders, rows: Rows
) -> None:
    relay, ledger = make_relay(relay_lease_seconds=600), Ledger()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as never_accepts:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(never_accepts.getsockname())
        port = never_accepts.getsockname()[1]
        await relay.start(AGENT_SDK_URL=f"http://127.0.0.1:{port}")
        posting = asyncio.create_task(senders.post(relay.url, ledger, "stored"))
        await until(lambda: states(rows) == ["forwarding"])
        await relay.kill()
        for filler in fillers:
            filler.close()
    assert await posting == 0
    agent = AgentStandIn(port=port)
    await agent.start()
    try:
        await relay.start(AGENT_SDK_URL=agent.url)
        await until(lambda: states(rows) == ["delivered"])
        assert [seen.delivery_id for seen in agent.seen] == ["stored"]
        ledger.check(rows, agent, in_flight=0)
    finally:
        await agent.stop()


async def test_an_attempt_that_was_cut_short_is_made_again_under_the_same_key(
    make_relay: Callable[..., RelayProcess], senders: Senders, agent: AgentStandIn, rows: Rows
) -> None:
    relay, ledger = await make_relay(relay_lease_seconds=600).start(), Ledger()
    agent.behave(Behaviour(delay_ms=60_000))
    posting = asyncio.create_task(senders.post(relay.url, ledger, "cut-short"))
    await until(lambda: len(agent.seen) == 1)
    await relay.kill()
    assert await posting == 0
    agent.behave()
    await relay.start()
    await until(lambda: states(rows) == ["delivered"])
    assert [seen.headers["idempotency-key"] for seen in agent.seen] == ["cut-short"] * 2
    (fact,) = rows.facts("support.webhook.retry")
    assert fact[0]["success"] is True


async def test_a_relay_that_dies_between_two_attempts_leaves_nothing_undone(
    make_relay: Callable[..., RelayProcess], senders: Senders, agent: AgentStandIn, rows: Rows
) -> None:
    relay, ledger = await make_relay(chatwoot_webhook_base_delay_ms=25_000, relay_lease_seconds=600).start(), Ledger()
    agent.behave(Behaviour(status=503, times=1))
    posting = asyncio.create_task(senders.post(relay.url, ledger, "between"))
    await until(lambda: len(agent.seen) == 1)
    await relay.kill()
    assert await posting == 0
    await relay.start()
    await until(lambda: states(rows) == ["delivered"])
    assert [seen.status for seen in agent.seen] == [503, 200]


async def test_what_the_agent_took_and_was_not_recorded_is_recorded_once(
    make_relay: Callable[..., RelayProcess], senders: Senders, agent: AgentStandIn, rows: Rows, dsn: str
) -> None:
    relay, ledger = await make_relay(relay_lease_seconds=600).start(), Ledger(kills=1)
    with psycopg.connect(dsn) as holding:
        holding.execute("LOCK TABLE relay.attempts IN EXCLUSIVE MODE")
        posting = asyncio.create_task(senders.post(relay.url, ledger, "taken"))
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        (backend,) = await until(lambda: agent.seen and rows(waiting), what="the outcome waits for the lock")
        await relay.kill()
        rows("SELECT pg_terminate_backend(%s)", (backend,))  # else it would run on without its client
        await until(lambda: not rows(waiting))
    assert await posting == 0
    assert states(rows) == ["forwarding"]
    await relay.start()
    await until(lambda: states(rows) == ["delivered"])
    assert ledger.check(rows, agent, in_flight=1)["copies"] == 1


async def test_another_relay_takes_over_once_the_lease_of_the_dead_one_has_run_out(
    make_relay: Callable[..., RelayProcess], senders: Senders, agent: AgentStandIn, rows: Rows
) -> None:
    first, second = await asyncio.gather(make_relay().start(), make_relay().start())
    ledger = Ledger(kills=1)
    agent.behave(Behaviour(delay_ms=60_000, times=1))
    posting = asyncio.create_task(senders.post(first.url, ledger, "orphan"))
    await until(lambda: len(agent.seen) == 1)
    await first.kill()
    await posting
    await until(lambda: states(rows) == ["delivered"])
    ledger.check(rows, agent, in_flight=1)
    await until(lambda: "Webhook taken over" in second.output)


@pytest.mark.parametrize("relays", [1, 3])
async def test_relays_killed_at_random_moments_under_load_lose_nothing_that_was_answered(
    make_relay: Callable[..., RelayProcess],
    load: Load,
    rows: Rows,
    relays: int,
    pytestconfig: pytest.Config,
    survived: Survived,
) -> None:
    rounds = pytestconfig.getoption("--faults-rounds")
    rng, recovery = random.Random(11), []
    running = [make_relay() for _ in range(relays)]
    await asyncio.gather(*(relay.start() for relay in running))
    load.start(*running)
    for _ in range(rounds):
        await load.continues()
        await asyncio.sleep(rng.uniform(0, 0.3))
        victim = rng.choice(running)
        await victim.kill()
        load.ledger.kills += 1
        killed_at = time.monotonic()
        await victim.start()
        recovery.append(await load.ledger.recovers(killed_at))
    fault = f"{'The relay' if relays == 1 else f'One of {relays} relays'} killed (kill -9), {rounds} times"
    survived(fault, await load.ends_well(rows), max(recovery))


async def test_a_plan_continues_where_the_relay_that_carried_it_out_died(
    make_relay: Callable[..., RelayProcess],
    senders: Senders,
    agent: AgentStandIn,
    rows: Rows,
    relay_command: CommandLine,
) -> None:
    first, ledger = await make_relay(chatwoot_webhook_max_attempts=1).start(), Ledger(kills=1)
    agent.behave(Behaviour(status=503))
    await asyncio.gather(*(senders.post(first.url, ledger) for _ in range(30)))
    assert states(rows) == ["dead"] * 30
    agent.behave()
    agent.seen.clear()
    asked = asyncio.create_task(relay_command.run("replay", "--yes", "--rate", "5", "--canary", "0", "--json"))
    await until(lambda: len(agent.seen) >= 5, what="the replay is under way")
    await first.kill()
    sent = len(agent.seen)
    assert sent < 30
    second = await make_relay().start()
    ended = await asked
    assert ended.returncode == 0, ended.stderr
    assert second.is_running
    assert states(rows) == ["delivered"] * 30
    assert rows("SELECT total, delivered, dead, skipped FROM relay.replay_plans") == [(30, 30, 0, 0)]
    facts = rows("SELECT metadata ->> 'deliveryId' FROM dashboard_facts WHERE fact_type = 'support.webhook.replay'")
    assert len(facts) == len(set(facts)) == 30
    assert len(agent.seen) <= 30 + 2, "only what was in flight at the crash is sent again"
