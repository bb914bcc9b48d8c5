"""Exactly one note for each group of messages: random orders, duplicates, lost answers, outages; from fixed seeds."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from relay.agent import attempt
from relay.demo.chatwoot import Oddity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.agent.conftest import Model, RunningAgent

    Start = Callable[..., Awaitable[RunningAgent]]

CONVERSATIONS = range(100, 112)


async def delivered(agents: list[RunningAgent], payload: dict[str, Any], chance: random.Random) -> None:
    """Post a webhook until it is taken, each time to any of the agents, as relays do."""
    for _ in range(2_000):
        answer = await chance.choice(agents).post(payload, key=str(chance.random()))
        if answer.status_code == 200:
            return
        assert answer.status_code in {502, 503}, answer.text
        assert "retry-after" in answer.headers
        await asyncio.sleep(0.02)
    raise AssertionError(f"never taken: {answer.text}")


async def trouble(chatwoot: ChatwootStandIn, model: Model, chance: random.Random, done: asyncio.Event) -> None:
    """Lose answers, break the model, and take Chatwoot away, until `done`."""
    while not done.is_set():
        chatwoot.oddities |= {Oddity.ANSWER_LOST}
        model.status = chance.choice([200, 200, 500])
        chatwoot.healthy = chance.random() > 0.1
        await asyncio.sleep(chance.random() / 20)
    chatwoot.healthy, model.status = True, 200


async def test_each_group_gets_exactly_one_note(
    start_agent: Start, chatwoot: ChatwootStandIn, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "SETTLE_S", 0.5)
    settings: dict[str, Any] = {"llm_base_url": model.url, "llm_model": "small", "agent_quiet_ms": 20}
    agents = [await start_agent(**settings), await start_agent(**settings)]
    for seed in range(3):
        chance = random.Random(seed)
        chatwoot.conversations.clear()
        chatwoot.oddities = {Oddity.ATTRIBUTES_DROPPED} if seed % 2 else set()
        payloads: list[dict[str, Any]] = []
        groups: dict[int, list[str]] = {}
        for number in CONVERSATIONS:
            groups[number] = [f"{number}.{place}" for place in range(chance.randint(1, 5))]
            payloads += [chatwoot.payload_of(chatwoot.add_message(number, text)) for text in groups[number]]
        sent = [*payloads, *chance.choices(payloads, k=len(payloads) // 2)]
        chance.shuffle(sent)
        done = asyncio.Event()
        troubling = asyncio.create_task(trouble(chatwoot, model, random.Random(-seed), done))
        posting = [asyncio.create_task(delivered(agents, payload, chance)) for payload in sent]
        try:
            await asyncio.gather(*posting)
        finally:
            done.set()
            await troubling
        newest = {one["conversation"]["id"]: one["id"] for one in payloads}
        keys = Counter(note["source_id"] for note in chatwoot.notes)
        assert keys == Counter(f"relay-draft-1-{message}" for message in newest.values()), f"seed {seed}"
        asked = {tuple(turn["content"] for turn in body["messages"][1:]) for _, body in model.asked}
        assert asked >= {tuple(group) for group in groups.values()}
