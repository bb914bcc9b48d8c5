"""The quiet window: a customer who writes in several messages gets one draft for all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.agent.conftest import Model, customer
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.agent.conftest import RunningAgent

    Start = Callable[..., Awaitable[RunningAgent]]

LEFT = {"status": "left_to_newer"}
WORDS = ["Hello,", "I ordered on Monday.", "Number 5.", "Where is it?"]


async def test_a_newer_message_ends_the_wait(start_agent: Start, chatwoot: ChatwootStandIn, model: Model) -> None:
    agent = await start_agent(agent_quiet_ms=60_000, llm_base_url=model.url, llm_model="small")
    first = customer(chatwoot, WORDS[0])
    waiting = asyncio.create_task(agent.post(first))
    await until(lambda: any("before=" in asked for asked in chatwoot.requests), what="the agent waits")
    customer(chatwoot, WORDS[1])
    answer = await waiting
    assert (answer.status_code, answer.json()) == (200, LEFT)
    assert (model.asked, chatwoot.notes) == ([], [])


async def test_a_colleagues_answer_ends_the_wait(start_agent: Start, chatwoot: ChatwootStandIn) -> None:
    agent = await start_agent(agent_quiet_ms=60_000)
    waiting = asyncio.create_task(agent.post(customer(chatwoot)))
    await until(lambda: any("before=" in asked for asked in chatwoot.requests), what="the agent waits")
    chatwoot.add_message(7, "It left us today.", message_type=1)
    assert (await waiting).json() == {"ignored": True, "reason": "answered already"}


async def test_a_burst_is_one_note_in_whatever_order_its_webhooks_come(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model
) -> None:
    agent = await start_agent(agent_quiet_ms=20, llm_base_url=model.url, llm_model="small")
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 3, 0, 3, 2]):
        chatwoot.conversations[7].clear()
        payloads = [customer(chatwoot, text) for text in WORDS]
        answers = [(await agent.post(payloads[place])).json() for place in order]
        assert [answer == LEFT for answer in answers] == [place != 3 for place in order]
        assert model.turns == [("user", text) for text in WORDS]
        assert len(chatwoot.notes) == 1


async def test_an_answered_question_is_not_answered_again_with_the_next_one(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model
) -> None:
    agent = await start_agent(llm_base_url=model.url, llm_model="small")
    await agent.post(customer(chatwoot, "Where is my order?"))
    chatwoot.add_message(7, "It left us today.", message_type=1)
    await agent.post(customer(chatwoot, "Thanks. And the invoice?"))
    assert model.turns == [
        ("user", "Where is my order?"), ("assistant", "It left us today."), ("user", "Thanks. And the invoice?"),
    ]  # fmt: skip
    assert len(chatwoot.notes) == 2


async def test_test_webhooks_wait_for_nothing(start_agent: Start, chatwoot: ChatwootStandIn, model: Model) -> None:
    agent = await start_agent(agent_quiet_ms=60_000, llm_base_url=model.url, llm_model="small")
    chatwoot.requests.clear()
    payload = customer(chatwoot)
    chatwoot.add_message(7, "Answered.", message_type=1)
    drafted = await agent.post(payload, **{"x-relay-test": "true"})
    assert drafted.json() == {"status": "drafted", "posted": False, "test": True, "conversation_id": 7}
    assert list(chatwoot.requests) == []
    for key in ("one", "two"):
        posted = await agent.post(payload, key=key, **{"x-relay-test": "post"})
        assert posted.json()["posted"] is True
    assert len(chatwoot.notes) == 2
    assert {line.split()[0] for line in chatwoot.requests} == {"POST"}


async def test_a_caller_that_gave_up_finds_the_draft_of_its_first_try(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model
) -> None:
    agent = await start_agent(llm_base_url=model.url, llm_model="small")
    drafting, release = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        drafting.set()
        await release.wait()

    model.meanwhile = hold
    payload = customer(chatwoot)
    first = asyncio.create_task(agent.post(payload))
    await drafting.wait()
    first.cancel()
    second = asyncio.create_task(agent.post(payload))
    release.set()
    assert (await second).json()["status"] == "draft_ready"
    assert (len(model.asked), len(chatwoot.notes)) == (1, 1)
