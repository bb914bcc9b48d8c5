"""Exactly one note for each group of messages while agent, relay and Chatwoot are killed at random; fixed seeds."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from relay.demo.chatwoot import Oddity
from tests.servers import until

if TYPE_CHECKING:
    from relay.demo.chatwoot import ChatwootStandIn
    from tests.agent.conftest import AgentProcess, Model
    from tests.faults.conftest import RelayProcess
    from tests.servers import Rows

pytestmark = pytest.mark.faults

CONVERSATIONS = range(100, 106)
SETTLE_S = 2.0
UNFINISHED = "SELECT count(*) FROM relay.deliveries WHERE state NOT IN ('delivered', 'ignored')"
KILLS = 3


class Customers:
    """Write messages in bursts; Chatwoot sends each one's webhook once or twice, and not in order."""

    def __init__(self, chatwoot: ChatwootStandIn, chance: random.Random) -> None:
        self._chatwoot = chatwoot
        self._chance = chance
        self.newest: dict[int, int] = {}

    async def write(self, conversation: int) -> None:
        """One burst. A webhook that no relay took is sent again, as an operator's backfill does."""
        messages = [self._chatwoot.add_message(conversation, f"part {n}") for n in range(self._chance.randint(1, 4))]
        self.newest[conversation] = messages[-1]["id"]
        sent = [*messages, *self._chance.choices(messages, k=1)]
        self._chance.shuffle(sent)
        await asyncio.gather(*(self._deliver(number, message["id"]) for number, message in enumerate(sent)))

    async def _deliver(self, number: int, message_id: int) -> None:
        message = next(
            one for every in self._chatwoot.conversations.values() for one in every if one["id"] == message_id
        )
        payload = self._chatwoot.payload_of(message)
        while True:
            sent = await self._chatwoot.post(payload, delivery_id=f"{message_id}-{number}")
            if sent.status is not None and sent.status < 500:
                return
            await asyncio.sleep(0.2)


async def break_things(
    agent: AgentProcess, relay: RelayProcess, chatwoot: ChatwootStandIn, model: Model, chance: random.Random
) -> None:
    """Kill one of the three at a random moment, and start it again."""
    env = {"LLM_BASE_URL": model.url, "LLM_MODEL": "small", "AGENT_QUIET_MS": "100"}
    for _ in range(KILLS):
        await asyncio.sleep(chance.random())
        chatwoot.oddities.add(Oddity.ANSWER_LOST)
        victim = chance.choice(["agent", "relay", "chatwoot"])
        if victim == "agent":
            chatwoot.mute = chance.random() < 0.5  # what is posted then gets no answer before the kill
            await asyncio.sleep(chance.random() / 2)
            await agent.kill()
            chatwoot.mute = False
            await agent.start(**env)
        elif victim == "relay":
            await relay.kill()
            await relay.start()
        else:
            chatwoot.healthy = False
            await asyncio.sleep(chance.random())
            chatwoot.healthy = True


async def test_each_group_gets_exactly_one_note(
    agent_process: AgentProcess, relay_process: RelayProcess, chatwoot: ChatwootStandIn, model: Model, rows: Rows,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    agent_process.hurry(SETTLE_S)
    env = {"LLM_BASE_URL": model.url, "LLM_MODEL": "small", "AGENT_QUIET_MS": "100"}
    await asyncio.gather(agent_process.start(**env), relay_process.start())
    chatwoot.open_conversations(CONVERSATIONS)
    for seed in range(request.config.getoption("--faults-rounds", 3)):
        chance = random.Random(seed)
        chatwoot.conversations = {number: [] for number in CONVERSATIONS}
        chatwoot.oddities = {Oddity.ATTRIBUTES_DROPPED} if seed % 2 else set()
        customers = Customers(chatwoot, chance)
        await asyncio.gather(
            break_things(agent_process, relay_process, chatwoot, model, chance),
            *(customers.write(number) for number in CONVERSATIONS),
        )
        await until(lambda: rows(UNFINISHED) == [0], what="all is delivered")
        keys = Counter(note["source_id"] for note in chatwoot.notes)
        assert keys == Counter(f"relay-draft-1-{message}" for message in customers.newest.values()), f"seed {seed}"
