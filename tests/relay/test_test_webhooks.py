"""Test webhooks: every attempt is marked for the Agent SDK, and a note is posted only on request."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.conftest import of_chatwoot
from tests.servers import Behaviour, free_port, program, until, wait_until_healthy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.conftest import CommandLine
    from tests.servers import AgentStandIn, Rows, RunningRelay

MESSAGE: dict[str, Any] = {
    "event": "message_created", "id": 1, "content": "Hi", "message_type": "incoming", "conversation": {"id": 10},
}  # fmt: skip
TEST = {"x_forwarded_from": "chatwoot-test"}


def marks(agent: AgentStandIn) -> list[str | None]:
    """The `X-Relay-Test` of every attempt that the agent saw."""
    return [seen.headers.get("x-relay-test") for seen in agent.seen]


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        (TEST, "true"),
        (TEST | {"x_relay_test": "true"}, "true"),
        (TEST | {"x_relay_test": "false"}, "true"),
        (TEST | {"x_relay_test": ""}, "true"),
        (TEST | {"x_relay_test": "posts"}, "true"),
        (TEST | {"x_relay_test": "post"}, "post"),
        (TEST | {"x_relay_test": "POST"}, "post"),
        ({"x_forwarded_from": "Chatwoot-Test", "x_relay_test": "post"}, "post"),
        ({}, None),
        ({"x_relay_test": "post"}, None),
        ({"x_relay_test": "true"}, None),
        ({"x_forwarded_from": "somebody", "x_relay_test": "post"}, None),
    ],
    ids=str,
)
async def test_only_tests_are_marked_for_the_agent(
    relay: RunningRelay, agent: AgentStandIn, headers: dict[str, str], value: str | None
) -> None:
    assert (await relay.post(MESSAGE, **headers)).status_code == 200
    assert marks(agent) == [value]


@pytest.mark.parametrize("wish", ["true", "post"])
async def test_retries_a_redelivery_and_replays_carry_the_mark(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn, wish: str
) -> None:
    agent.behave(Behaviour(status=503, times=6))
    headers = TEST | {"x_relay_test": wish, "x_chatwoot_delivery": "a-test"}
    for _ in range(2):
        assert (await relay.post(MESSAGE, **headers)).status_code == 500
    ended = await relay_command.run("replay", "--yes", "a-test")
    assert ended.returncode == 0, ended.stderr
    assert marks(agent) == [wish] * 7


async def test_a_relay_that_takes_over_sends_the_mark(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows
) -> None:
    relay = await start_relay(chatwoot_webhook_max_attempts=1)
    agent.behave(Behaviour(status=503))
    await relay.post(MESSAGE, **TEST, x_relay_test="post")
    await relay.stop()
    agent.behave()
    rows("UPDATE relay.deliveries SET state = 'received', owner = NULL")
    await start_relay()
    await until(lambda: rows("SELECT state FROM relay.deliveries") == ["delivered"])
    assert marks(agent) == ["post", "post"]


# With the reference agent behind


async def test_a_test_is_drafted_and_only_one_for_a_conversation_is_posted(
    start_relay: Callable[..., Awaitable[RunningRelay]], relay_command: CommandLine, chatwoot: ChatwootStandIn, dsn: str
) -> None:
    port = free_port()
    env = {name.upper(): str(value) for name, value in of_chatwoot(chatwoot).items()}
    env |= {"DATABASE_URL": dsn, "HOME": str(relay_command.folder)}
    with program("-m", "relay", "agent", "serve", "--bind", f"127.0.0.1:{port}", env=env):
        await asyncio.to_thread(wait_until_healthy, port)
        relay = await start_relay(agent=f"http://127.0.0.1:{port}", chatwoot_webhook_response_deadline_ms=60_000)
        plain = await relay_command.run("send-test", "--json", RELAY_URL=relay.url)
        assert plain.returncode == 0, plain.stdout
        assert chatwoot.notes == []
        document = json.loads(plain.stdout)
        assert (document["asks_to_post"], document["conversation"]) == (False, None)
        assert document["answer"]["agent_status"] == "drafted"
        answer = json.loads(document["attempts"][-1]["answer"])
        assert answer == {"status": "drafted", "posted": False, "test": True, "conversation_id": 10}

        posted = await relay_command.run("send-test", "--conversation", "4711", RELAY_URL=relay.url)
        assert posted.returncode == 0, posted.stdout
        assert "a private note will appear in conversation 4711" in posted.stdout
        (note,) = chatwoot.notes
        assert (note["conversation_id"], note["private"]) == (4711, True)

        by_hand = await relay.post(MESSAGE, **TEST)
        assert by_hand.json()["agent_status"] == "drafted"
        real = await relay.post(MESSAGE | {"id": 2}, x_relay_test="true")
        assert real.json()["agent_status"] == "draft_ready"
        assert len(chatwoot.notes) == 2


async def test_the_demos_agent_behaves_alike(relay: RunningRelay) -> None:
    assert (await relay.post(MESSAGE, **TEST)).json()["agent_status"] == "drafted"
    assert (await relay.post(MESSAGE, **TEST, x_relay_test="post")).json()["agent_status"] == "draft_ready"
    assert (await relay.post(MESSAGE)).json()["agent_status"] == "draft_ready"


# The command


@pytest.mark.parametrize("event", ["message_created", "message_updated", "conversation_status_changed"])
async def test_each_event_of_a_conversation_can_be_sent_for_one(
    relay: RunningRelay, relay_command: CommandLine, agent: AgentStandIn, rows: Rows, event: str
) -> None:
    ended = await relay_command.run("send-test", "--event", event, "--conversation", "77", RELAY_URL=relay.url)
    assert ended.returncode == 0, ended.stderr
    assert rows("SELECT conversation_id, test FROM relay.deliveries") == [("77", True)]
    assert marks(agent) == ["post"]
    assert ("will appear in conversation 77" in ended.stdout) == (event == "message_created")


@pytest.mark.parametrize(
    "arguments",
    [("--conversation", "0"), ("--conversation", "x"), ("--conversation", "1", "--event", "webwidget_triggered")],
)
def test_a_conversation_that_cannot_be_is_wrong_use(relay_command: CommandLine, arguments: tuple[str, ...]) -> None:
    assert relay_command("send-test", *arguments).returncode == 2


def test_the_help_says_whether_a_note_is_posted(relay_command: CommandLine) -> None:
    shown = " ".join(relay_command("send-test", "--help").stdout.split())
    assert "drafts a reply but posts no note in Chatwoot" in shown
    assert "ask the agent to post its draft there as a private note" in shown
