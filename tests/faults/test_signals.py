"""SIGTERM drains, SIGSTOP beyond the lease fences, and a supervisor replaces a worker that died."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import httpx
import libfaketime
import pytest

from tests.faults.ledger import Ledger
from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.conftest import RelayProcess, Senders, Survived
    from tests.faults.load import Load
    from tests.servers import HeldAgent, Rows

pytestmark = pytest.mark.faults


async def test_sigterm_lets_what_is_in_flight_be_finished_and_answered(
    make_relay: Callable[..., RelayProcess], senders: Senders, agent: HeldAgent, rows: Rows
) -> None:
    relay, ledger = await make_relay(chatwoot_webhook_response_deadline_ms=60_000).start(), Ledger()
    agent.behave(Behaviour(delay_ms=5_000))
    posting = [asyncio.create_task(senders.post(relay.url, ledger)) for _ in range(10)]
    await until(lambda: len(agent.seen) == 10)
    relay.signal(signal.SIGTERM)
    assert await asyncio.gather(*posting) == [200] * 10
    assert await relay.ended() == 0
    with pytest.raises(httpx.ConnectError):
        await senders.client.get(relay.url + "/health")
    assert ledger.check(rows, agent, in_flight=0)["copies"] == 0


async def test_sigterm_hands_back_what_does_not_end_and_another_relay_finishes_it_at_once(
    make_relay: Callable[..., RelayProcess], senders: Senders, agent: HeldAgent, rows: Rows
) -> None:
    first = await make_relay(relay_lease_seconds=600).start()
    second = await make_relay(relay_lease_seconds=600).start()
    ledger = Ledger(kills=1)
    agent.behave(Behaviour(delay_ms=60_000, times=5))
    posting = [asyncio.create_task(senders.post(first.url, ledger)) for _ in range(5)]
    await until(lambda: len(agent.seen) == 5)
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0
    await asyncio.gather(*posting)
    open_ones = "SELECT count(*) FROM relay.deliveries WHERE state <> 'delivered'"
    await until(lambda: rows.one(open_ones) == 0)
    assert second.is_running
    ledger.check(rows, agent, in_flight=5)


async def test_a_rolling_restart_under_load_loses_nothing_and_sends_nothing_twice(
    make_relay: Callable[..., RelayProcess], load: Load, rows: Rows, survived: Survived
) -> None:
    relays = [make_relay(), make_relay()]
    await asyncio.gather(*(relay.start() for relay in relays))
    load.start(*relays)
    recovery = []
    for relay in relays:
        await load.continues()
        relay.signal(signal.SIGTERM)
        asked_at = time.monotonic()
        recovery.append(await load.ledger.recovers(asked_at))
        assert await relay.ended() == 0
        await relay.start()
    survived("Rolling restart of 2 relays (SIGTERM)", await load.ends_well(rows), max(recovery))


async def test_under_load_a_relay_that_sleeps_beyond_its_lease_costs_no_delivery(
    make_relay: Callable[..., RelayProcess], load: Load, rows: Rows, survived: Survived
) -> None:
    sleeper, other = await asyncio.gather(make_relay().start(), make_relay().start())
    load.start(sleeper, other)
    await load.continues()
    sleeper.signal(signal.SIGSTOP)
    slept_at = time.monotonic()
    load.ledger.kills += 1
    await until(lambda: "Webhook taken over" in other.output, what="the other takes over")
    recovery = time.monotonic() - slept_at
    sleeper.signal(signal.SIGCONT)
    await load.continues()
    survived("One of 2 relays stopped beyond its lease, then continued", await load.ends_well(rows), recovery)


async def test_a_clock_that_jumps_changes_no_outcome(
    make_relay: Callable[..., RelayProcess], load: Load, rows: Rows, survived: Survived, tmp_path: Path
) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0", encoding="ascii")
    _, preload = libfaketime.get_reload_information()
    relay = await make_relay().start(**preload, FAKETIME_TIMESTAMP_FILE=str(offset))
    load.start(relay)
    recovery = []
    for jump in ("+1h", "-1h", "+30d", "-1d"):
        await load.continues()
        offset.write_text(jump, encoding="ascii")
        recovery.append(await load.ledger.recovers(time.monotonic()))
    counts = await load.ends_well(rows)
    assert rows.one("SELECT max(started_at) - min(started_at) > interval '30 days' FROM relay.attempts")
    assert counts["copies"] == 0
    survived("The relay's clock jumping by hours and days", counts, max(recovery))


async def test_a_relay_that_slept_beyond_its_lease_finishes_nothing_that_another_took_over(
    make_relay: Callable[..., RelayProcess], senders: Senders, agent: HeldAgent, rows: Rows
) -> None:
    sleeper, other = await asyncio.gather(make_relay().start(), make_relay().start())
    ledger = Ledger(kills=1)
    agent.behave(Behaviour(status=422, times=1))
    agent.hold()
    posting = asyncio.create_task(senders.post(sleeper.url, ledger, "asleep"))
    await until(lambda: len(agent.seen) == 1)
    sleeper.signal(signal.SIGSTOP)
    agent.release()
    await until(lambda: rows("SELECT state FROM relay.deliveries") == ["delivered"], what="the other took over")
    sleeper.signal(signal.SIGCONT)
    await posting
    await until(lambda: "Lease lost, run abandoned" in sleeper.output, what="it says that the delivery is another's")
    assert other.is_running
    assert rows("SELECT state, final_status FROM relay.deliveries") == [("delivered", "200")]
    (fact,) = rows.facts("support.webhook.retry")
    assert fact[0]["success"] is True
    assert rows.facts("support.webhook.dead_letter") == []


async def test_a_worker_that_was_killed_is_replaced_and_its_deliveries_are_finished(
    make_relay: Callable[..., RelayProcess], senders: Senders, agent: HeldAgent, rows: Rows
) -> None:
    relay, ledger = await make_relay(relay_workers=2).start(), Ledger(kills=1)
    workers = "SELECT pid FROM relay.instances WHERE stopped_at IS NULL AND lease_until > now() ORDER BY pid"
    before = await until(lambda: len(found := rows(workers)) == 2 and found)
    agent.hold()
    posting = [asyncio.create_task(senders.post(relay.url, ledger)) for _ in range(8)]
    await until(lambda: len(agent.seen) == 8)
    os.kill(before[0], signal.SIGKILL)
    agent.release()
    await until(lambda: set(rows(workers)) - set(before), what="another worker was started")
    assert await senders.post(relay.url, ledger) == 200
    await asyncio.gather(*posting)
    open_ones = "SELECT count(*) FROM relay.deliveries WHERE state <> 'delivered'"
    await until(lambda: rows.one(open_ones) == 0)
    ledger.check(rows, agent, in_flight=8)
