"""Two relays with different Agent SDKs on one database (DESIGN 1.2, 6): who forwards what, and `relay redirect`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest_asyncio

from relay.store import gate, sessions
from tests.relay.test_backlog import all_delivered, message, order_at
from tests.servers import Behaviour, HeldAgent, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.conftest import CommandLine
    from tests.servers import Rows, RunningRelay

    StartRelay = Callable[..., Awaitable[RunningRelay]]


@pytest_asyncio.fixture
async def other_agent() -> AsyncIterator[HeldAgent]:
    """Another Agent SDK."""
    stand_in = HeldAgent()
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


def age(rows: Rows, agent: HeldAgent) -> None:
    """The relays of `agent` stopped an hour ago."""
    rows(
        "UPDATE relay.instances SET heartbeat_at = heartbeat_at - interval '1 hour', stopped_at = now() "
        "WHERE agent LIKE %s",
        (agent.url + "/%",),
    )


async def test_what_waits_for_an_agent_without_a_relay_is_visible_and_an_operator_redirects_it(
    start_relay: StartRelay, agent: HeldAgent, other_agent: HeldAgent, rows: Rows, dsn: str, relay_command: CommandLine
) -> None:
    blue, green = await start_relay(), await start_relay(agent=other_agent)
    async with sessions.connected(dsn) as connection:
        await gate.hold(connection, "maria", "a deploy")
        for number, relay in enumerate([blue, green, blue, green], 1):
            answer = await relay.post(message(number), X_Chatwoot_Delivery=f"d-{number}")
            assert answer.json()["waiting"] == "hold"
        await blue.stop()
        age(rows, agent)
        await gate.release(connection, "maria")
    await until(lambda: order_at(other_agent) == {1: [2, 4]})  # neither waits for those of the other agent
    rows("UPDATE relay.deliveries SET received_at = now() - interval '6 min' WHERE delivery_id = 'd-1'")

    status = (await relay_command.run("status")).stdout
    assert "2 × destination" in status
    assert f"No live relay forwards to {agent.url}/webhooks/chatwoot" in status
    document = json.loads((await relay_command.run("status", "--json")).stdout)
    assert [one["destination"] for one in document["backlog"]["destinations_without_relay"]] == [
        f"{agent.url}/webhooks/chatwoot"
    ]
    assert [one["rule"] for one in document["alerts"] if one["firing"]] == ["backlog-p1"]
    shown = json.loads((await relay_command.run("show", "d-1", "--json")).stdout)
    assert (shown["destination"], shown["waits"]) == (f"{agent.url}/webhooks/chatwoot", "destination")
    assert "relay redirect --from" in (await relay_command.run("diagnose")).stdout
    metrics = (await green.client.get("/metrics")).text
    assert 'relay_backlog{reason="destination"} 2.0' in metrics
    assert (await green.client.get("/health")).json()["backlog"]["by_reason"]["destination"] == 2

    places = ("--from", agent.url, "--to", f"{other_agent.url}/webhooks/chatwoot", "--json")
    asked = await relay_command.run("redirect", *places, "--dry-run")
    assert json.loads(asked.stdout)["deliveries"] == 2
    moved = await relay_command.run("redirect", *places, "--reason", "it is gone", CONSOLE_OPERATOR="maria")
    assert (moved.returncode, json.loads(moved.stdout)["deliveries"]) == (0, 2)
    await until(all_delivered(rows, 4))
    assert order_at(other_agent) == {1: [2, 4, 1, 3]}
    assert not agent.seen
    audit = rows(
        "SELECT operator, reason, details ->> 'deliveries' FROM relay.operator_actions WHERE action = 'redirect'"
    )
    assert audit == [("maria", "it is gone", "2")]
    same = await relay_command.run("redirect", "--from", agent.url, "--to", agent.url)
    assert same.returncode == 2


async def test_a_replay_is_sent_by_a_relay_of_the_destination_and_by_any_once_that_has_none(
    start_relay: StartRelay, agent: HeldAgent, other_agent: HeldAgent, rows: Rows, relay_command: CommandLine
) -> None:
    blue, green = await start_relay(), await start_relay(agent=other_agent)
    for stand_in in (agent, other_agent):
        stand_in.behave(Behaviour(status=400))
    await blue.post(message(1))
    await green.post(message(2, 2))
    other_agent.behave(Behaviour())
    assert (await relay_command.run("replay", "--yes", "--canary", "0")).returncode == 1
    assert (order_at(agent), order_at(other_agent)) == ({1: [1]}, {2: [2]})
    assert (len(agent.seen), len(other_agent.seen)) == (2, 2)
    await blue.stop()
    age(rows, agent)
    assert (await relay_command.run("replay", "--yes")).returncode == 0
    assert order_at(other_agent) == {1: [1], 2: [2]}


async def test_each_agent_has_slots_of_its_own(
    start_relay: StartRelay, agent: HeldAgent, other_agent: HeldAgent, rows: Rows
) -> None:
    limits = {"relay_agent_concurrency": 2, "relay_respond": "stored"}
    relays = [await start_relay(**limits), await start_relay(agent=other_agent, **limits)]
    for stand_in in (agent, other_agent):
        stand_in.hold()
    for n in range(8):
        await relays[n % 2].post(message(n, n))
    await until(lambda: (len(agent.seen), len(other_agent.seen)) == (2, 2))
    for stand_in in (agent, other_agent):
        stand_in.release()
    await until(all_delivered(rows, 8))
