"""From a customer's message to one private note, through relay and agent, with kills on the way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.agent.conftest import Model, message
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.agent.conftest import AgentProcess, RunningAgent
    from tests.conftest import CommandLine
    from tests.faults.conftest import RelayProcess
    from tests.servers import Rows, RunningRelay

pytestmark = pytest.mark.faults
STATES = "SELECT state FROM relay.deliveries WHERE state <> 'ignored'"


async def one_note(chatwoot: ChatwootStandIn, rows: Rows) -> None:
    """Everything has settled, and there is one note."""
    await until(lambda: rows(STATES) == ["delivered"])
    await until(lambda: rows("SELECT count(*) FROM relay.deliveries WHERE state = 'ignored'") == [1])
    assert len(chatwoot.notes) == 1


async def test_a_message_becomes_a_note_whose_own_webhook_is_ignored(
    start_relay: Callable[..., Awaitable[RunningRelay]], start_agent: Callable[..., Awaitable[RunningAgent]],
    chatwoot: ChatwootStandIn, rows: Rows,
) -> None:  # fmt: skip
    agent = await start_agent()
    relay = await start_relay(agent=agent.url)
    chatwoot.webhook_url = relay.url + "/api/webhooks/chatwoot"
    sent = await chatwoot.post(message())
    assert sent.answer is not None
    assert sent.answer["agent_status"] == "draft_ready"
    await one_note(chatwoot, rows)
    assert rows("SELECT agent_status FROM relay.deliveries WHERE state = 'delivered'") == ["draft_ready"]


async def test_a_redelivered_and_a_replayed_webhook_give_no_second_note(
    start_relay: Callable[..., Awaitable[RunningRelay]], start_agent: Callable[..., Awaitable[RunningAgent]],
    chatwoot: ChatwootStandIn, rows: Rows, relay_command: CommandLine,
) -> None:  # fmt: skip
    agent = await start_agent()
    relay = await start_relay(agent=agent.url)
    chatwoot.webhook_url = relay.url + "/api/webhooks/chatwoot"
    for _ in range(2):
        await chatwoot.post(message(), delivery_id="the-same")
    rows("UPDATE relay.deliveries SET state = 'dead' WHERE delivery_id = 'the-same'")
    ended = await relay_command.run("replay", "the-same", "--yes")
    assert ended.returncode == 0, ended.stderr
    await one_note(chatwoot, rows)


async def test_an_agent_killed_while_it_drafts_makes_one_note(
    agent_process: AgentProcess, relay_process: RelayProcess, chatwoot: ChatwootStandIn, model: Model, rows: Rows
) -> None:
    model.hang = True
    await asyncio.gather(agent_process.start(LLM_BASE_URL=model.url, LLM_MODEL="small"), relay_process.start())
    posting = asyncio.create_task(chatwoot.post(message()))
    await until(lambda: model.asked)
    await agent_process.kill()
    model.hang = False
    await agent_process.start(LLM_BASE_URL=model.url, LLM_MODEL="small")
    await posting
    await one_note(chatwoot, rows)


async def test_an_agent_killed_after_chatwoot_took_the_note_finds_it_there(
    agent_process: AgentProcess, relay_process: RelayProcess, chatwoot: ChatwootStandIn, rows: Rows
) -> None:
    chatwoot.mute = True
    await asyncio.gather(agent_process.start(), relay_process.start())
    posting = asyncio.create_task(chatwoot.post(message()))
    await until(lambda: chatwoot.notes)
    await agent_process.kill()
    chatwoot.mute = False
    await agent_process.start()
    await posting
    await one_note(chatwoot, rows)
    assert rows("SELECT count(*) FROM relay.notes WHERE note_id IS NOT NULL") == [1]


async def test_a_relay_killed_while_the_agent_works_ends_in_one_note(
    agent_process: AgentProcess, relay_process: RelayProcess, chatwoot: ChatwootStandIn, model: Model, rows: Rows
) -> None:
    model.hang = True
    await asyncio.gather(
        agent_process.start(LLM_BASE_URL=model.url, LLM_MODEL="small", LLM_TIMEOUT_MS="1000"), relay_process.start()
    )
    posting = asyncio.create_task(chatwoot.post(message()))
    await until(lambda: model.asked)
    await relay_process.kill()
    model.hang = False
    await relay_process.start()
    await posting
    await one_note(chatwoot, rows)


async def test_a_relay_killed_after_the_note_was_posted_gives_no_second_one(
    agent_process: AgentProcess, relay_process: RelayProcess, chatwoot: ChatwootStandIn, rows: Rows
) -> None:
    chatwoot.mute = True
    await asyncio.gather(agent_process.start(), relay_process.start())
    posting = asyncio.create_task(chatwoot.post(message()))
    await until(lambda: chatwoot.notes)
    await relay_process.kill()
    chatwoot.mute = False
    await agent_process.kill()
    await asyncio.gather(agent_process.start(), relay_process.start())
    await posting
    await until(lambda: rows(STATES) == ["delivered"])
    assert len(chatwoot.notes) == 1
