"""What happens in the demo: a day at the support desk in a minute, with an outage in the middle.

Healthy traffic, then an Agent SDK that fails for three different reasons, then a recovered one. The outage
concerns the conversations of the demo's own customers only: a webhook that the reader sends himself, with the
runbook's curl, say, gets through at any time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from relay.chatwoot.samples import DEMO_CONVERSATIONS, DEMO_CUSTOMERS, DEMO_EVENTS, documented_payload
from relay.demo.agent import Behaviour
from relay.demo.chatwoot.records import OUTGOING, contact
from relay.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from relay.demo.agent import AgentStandIn
    from relay.demo.chatwoot import ChatwootStandIn

WEBHOOKS_A_SECOND = 6
CALM_S = 10.0
OUTAGE_S = 20.0


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the demo: when it begins (seconds), what is said, what the agent does, and its health.

    `missed` messages of customers were stored in Chatwoot over the last `missed_over`, while no relay ran; every fourth
    was answered. `secret` is what Chatwoot signs with then, `webhook_url` where its webhook is said to point; None: as
    before the script began. `held` holds forwarding, or releases it; `store_away` stops Postgres, or starts it again;
    None leaves that as it is.
    """

    at_s: float
    text: str
    behaviours: tuple[Behaviour, ...] = ()
    healthy: bool = True
    agent_down: bool = False
    secret: bytes | None = None
    webhook_url: str | None = None
    missed: int = 0
    missed_over: timedelta = timedelta()
    held: bool | None = None
    store_away: bool | None = None


def phases(calm_s: float = CALM_S, outage_s: float = OUTAGE_S) -> list[Phase]:
    """The demo's outage, after `calm_s` and for `outage_s`: 503, 429, refused payloads, each for its conversations."""
    every = DEMO_CONVERSATIONS
    overloaded = frozenset(number for number in every if number % 10 < 6)
    limited = frozenset(number for number in every if 6 <= number % 10 < 9)
    poisoned = frozenset(number for number in every if number % 10 == 9)
    outage = (
        Behaviour(status=503, conversations=overloaded),
        Behaviour(status=429, retry_after="1", conversations=limited),
        Behaviour(status=422, conversations=poisoned),
    )
    return [
        Phase(0, "traffic starts, the Agent SDK is well"),
        Phase(calm_s, "outage: the Agent SDK answers 503, 429 and 422", outage, healthy=False),
        Phase(calm_s + outage_s, "the Agent SDK is well again; what failed waits among the dead letters"),
    ]


@dataclass(slots=True)
class Traffic:
    """Chatwoot's webhooks, sent at a steady pace, and the answers to them."""

    chatwoot: ChatwootStandIn
    agent: AgentStandIn
    announce: Callable[[str], None]
    script: Sequence[Phase] = field(default_factory=phases)
    a_second: float = WEBHOOKS_A_SECOND
    hold: Callable[[bool], Awaitable[None]] | None = None
    take_store: Callable[[bool], Awaitable[None]] | None = None
    answers: Counter[str] = field(default_factory=Counter)
    _rng: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - chooses customers

    async def play(self) -> None:
        """Send webhooks and go through the phases, until cancelled."""
        began = asyncio.get_running_loop().time()
        pending = list(self.script)
        secret, webhook_url = self.chatwoot.secret, self.chatwoot.webhook_url
        async with asyncio.TaskGroup() as group:
            while True:
                elapsed = asyncio.get_running_loop().time() - began
                while pending and pending[0].at_s <= elapsed:
                    phase = pending.pop(0)
                    if phase.held and self.hold is not None:
                        await self.hold(True)
                    self.agent.behave(*phase.behaviours)
                    self.agent.healthy = phase.healthy
                    await (self.agent.refuse() if phase.agent_down else self.agent.accept())
                    self.chatwoot.secret = phase.secret or secret
                    self.chatwoot.webhook_url = phase.webhook_url or webhook_url
                    self._store_missed(phase)
                    if phase.store_away is not None and self.take_store is not None:
                        await self.take_store(phase.store_away)
                    if phase.held is False and self.hold is not None:
                        await self.hold(False)
                    self.announce(phase.text)
                if not self.a_second:
                    await asyncio.sleep(0.2)
                    continue
                group.create_task(self._send(self._payload()))
                await asyncio.sleep(1 / self.a_second)

    def _store_missed(self, phase: Phase) -> None:
        now, span_s = time.time(), phase.missed_over.total_seconds()
        for number in range(phase.missed):
            at = int(now - span_s + span_s * (number + 0.5) / phase.missed)
            conversation = DEMO_CONVERSATIONS[number % len(DEMO_CONVERSATIONS)]
            name, text = self._rng.choice(DEMO_CUSTOMERS)
            self.chatwoot.add_message(conversation, text, sender=contact(name), created_at=at)
            if number % 4 == 0:
                reply = "Thank you, it is on its way."
                self.chatwoot.add_message(conversation, reply, message_type=OUTGOING, created_at=at + 1)

    async def _send(self, payload: dict[str, Any]) -> None:
        sent = await self.chatwoot.post(payload)
        self.answers["no answer" if sent.status is None else str(sent.status)] += 1

    def _payload(self) -> dict[str, Any]:
        """A webhook as Chatwoot documents it, of one of the demo's conversations. Its message is stored in Chatwoot."""
        event = self._rng.choices(DEMO_EVENTS, weights=(6, 1, 2))[0]
        payload = documented_payload(event)
        conversation = self._rng.choice(DEMO_CONVERSATIONS)
        if "conversation" not in payload:
            return payload | {"id": conversation}
        name, text = self._rng.choice(DEMO_CUSTOMERS)
        message = self.chatwoot.add_message(conversation, text, sender=contact(name))
        return payload | {
            "id": message["id"],
            "created_at": rfc3339(datetime.fromtimestamp(message["created_at"], UTC)),
            "content": text,
            "sender": payload["sender"] | {"name": name},
            "conversation": payload["conversation"] | {"id": conversation},
        }
