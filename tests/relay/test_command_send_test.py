"""`relay send-test`: one marked webhook, signed as Chatwoot signs, followed to its end."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

import pytest

from relay.demo.chatwoot import EVENTS, documented_payload
from relay.store.migrate import migrate
from tests.servers import Behaviour, free_port
from tests.store.plant import DEAD_LETTER, RETRY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import CommandLine
    from tests.servers import AgentStandIn, Rows, RunningRelay


async def test_it_follows_the_webhook_to_its_delivery(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn, rows: Rows
) -> None:
    agent.behave(Behaviour(status=503, times=1))
    ended = await relay_command.run("send-test", RELAY_URL=relay.url)
    assert ended.returncode == 0, ended.stderr
    database, posting, explained, answered, first, second, last = ended.stdout.splitlines()
    delivery_id = rows.one("SELECT delivery_id FROM relay.deliveries")
    assert posting == f"posting message_created to {relay.url}/api/webhooks/chatwoot as {delivery_id}"
    assert database.endswith("@localhost (DATABASE_URL)")
    assert explained == "The agent receives this as a test: it drafts a reply and posts no note in Chatwoot."
    assert answered.startswith("answered 200 after ")
    assert re.fullmatch(r"attempt 1: 503 in \d+ ms: Agent SDK answered 503", first)
    assert re.fullmatch(r"attempt 2 after a wait of \d+ ms: 200 in \d+ ms", second)
    assert last == "delivered"


async def test_one_that_dies_fails_and_says_why(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn
) -> None:
    agent.behave(Behaviour(status=422))
    ended = await relay_command.run("send-test", RELAY_URL=relay.url)
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1] == "dead: Agent SDK refused the payload (422)"


async def test_it_follows_on_when_the_relay_answers_before_the_end(
    start_relay: Callable[..., Awaitable[RunningRelay]], relay_command: CommandLine
) -> None:
    relay = await start_relay(relay_respond="stored")
    ended = await relay_command.run("send-test", "--url", relay.url)
    assert ended.returncode == 0
    assert "answered 202 after " in ended.stdout
    assert ended.stdout.splitlines()[-1] == "delivered"


async def test_one_whose_event_is_ignored_is_not_followed(
    start_relay: Callable[..., Awaitable[RunningRelay]], relay_command: CommandLine
) -> None:
    relay = await start_relay(relay_forward_events="message_updated")
    ended = await relay_command.run("send-test", RELAY_URL=relay.url)
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1].startswith("answered 200 after ")
    assert "'ignored': True" in ended.stdout


async def test_it_is_marked_as_a_test(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn, rows: Rows
) -> None:
    agent.behave(Behaviour(status=422))
    await relay_command.run("send-test", RELAY_URL=relay.url)
    assert rows("SELECT test FROM relay.deliveries") == [True]
    marks = [metadata["test"] for kind in (RETRY, DEAD_LETTER) for _, metadata in rows.facts(kind)]
    assert marks == [True, True]


async def test_it_is_signed_with_the_relays_first_secret(
    start_relay: Callable[..., Awaitable[RunningRelay]], relay_command: CommandLine, rows: Rows
) -> None:
    relay = await start_relay(chatwoot_webhook_secret="ours")
    signed = await relay_command.run("send-test", RELAY_URL=relay.url, CHATWOOT_WEBHOOK_SECRET="ours,another")
    assert signed.returncode == 0
    other = await relay_command.run("send-test", RELAY_URL=relay.url, CHATWOOT_WEBHOOK_SECRET="another")
    assert other.returncode == 1
    assert "answered 401 after " in other.stdout
    assert rows("SELECT count(*) FROM relay.deliveries") == [1]


@pytest.mark.slow
async def test_every_documented_event_can_be_sent(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn
) -> None:
    runs = (relay_command.run("send-test", "--event", event, "--json", RELAY_URL=relay.url) for event in EVENTS)
    for event, ended in zip(EVENTS, await asyncio.gather(*runs), strict=True):
        assert ended.returncode == 0
        document = json.loads(ended.stdout)
        assert (document["status"], document["state"]) == (200, "delivered")
        assert [attempt["status"] for attempt in document["attempts"]] == ["200"]
        (body,) = (seen.body for seen in agent.seen if seen.delivery_id == document["delivery_id"])
        assert json.loads(body) == documented_payload(event)


async def test_a_relay_that_is_away_is_said_with_the_remedy(relay_command: CommandLine) -> None:
    port = free_port()
    ended = await relay_command.run("send-test", RELAY_BIND=f"127.0.0.1:{port}")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"relay: No relay answers at http://127.0.0.1:{port}/api/webhooks/chatwoot")
    assert "relay serve" in ended.stderr


async def test_a_relay_on_another_database_is_named(
    relay: RunningRelay, relay_command: CommandLine, empty_dsn: str
) -> None:
    await migrate(empty_dsn)
    ended = await relay_command.run("send-test", RELAY_URL=relay.url, DATABASE_URL=empty_dsn)
    assert ended.returncode == 1
    assert "not in this database" in ended.stdout


def test_an_unknown_event_is_wrong_use(relay_command: CommandLine) -> None:
    ended = relay_command("send-test", "--event", "nothing")
    assert ended.returncode == 2
    assert "message_created" in ended.stderr
