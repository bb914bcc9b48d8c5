"""Order within a conversation whose deliveries are for two Agent SDKs, as a property of the store.

Relays of either destination come and go, retries wait long, and every statement that relays run by the clock may run at
any time.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from relay.domain.delivery import Deferred, WaitReason
from relay.store import destinations, gate
from relay.store.claims import claim_backlog
from relay.store.database import connection_parameters
from relay.store.deliveries import Claimed, hand_back
from relay.store.storing import store
from tests.store.test_destinations import BLUE, GREEN, leave, message, relay_of
from tests.store.values import finish, finish_of, outcome

if TYPE_CHECKING:
    from uuid import UUID

    from relay.store.database import Connection
    from tests.servers import Rows

_AGENTS = (BLUE, GREEN)
_KINDS = {
    "store": 6, "claim": 5, "end": 4, "leave": 2, "return": 2, "short retry": 1, "long retry": 1, "hand back": 1,
    "minute": 1, "keep house": 1,
}  # fmt: skip
_RUNS, _STEPS = 40, 50


_WAITING = """
    SELECT conversation_key, position FROM relay.deliveries
     WHERE state IN ('received', 'waiting') AND conversation_key IS NOT NULL
"""
_HEADLESS = """
    SELECT DISTINCT c.key FROM relay.deliveries d JOIN relay.conversations c ON c.key = d.conversation_key
     WHERE d.blocked AND NOT EXISTS (SELECT FROM relay.deliveries h
                                      WHERE h.conversation_key = c.key AND h.position = c.head AND NOT h.blocked
                                        AND h.state IN ('received', 'forwarding', 'waiting'))
"""
_PLACES = "SELECT conversation_key, position FROM relay.deliveries WHERE id = ANY(%s)"


class _Model:
    """One relay a destination, and what they hold. A relay that has left is another one when it returns."""

    def __init__(self, connection: Connection, rows: Rows) -> None:
        self.connection, self.rows = connection, rows
        self.relays: dict[str, UUID] = {}
        self.held: dict[str, list[Claimed]] = {agent: [] for agent in _AGENTS}
        self.run = uuid4().hex
        self.stored = 0
        self.begun: set[int] = set()  # an interrupted run continues, even if earlier messages have come back meanwhile

    async def step(self, what: str, agent: str, conversation: int) -> None:
        is_there = agent in self.relays
        if what == "return" and not is_there:
            self.relays[agent] = await relay_of(self.connection, agent)
            await self.keep_house(agent)
        elif what == "keep house":
            await self.keep_house(agent)
        elif what == "minute":
            self.rows(
                "UPDATE relay.deliveries SET since = since - interval '61 s', "
                "next_attempt_at = next_attempt_at - interval '61 s' WHERE state = 'waiting'"
            )
        elif not is_there:
            return
        elif what == "leave":
            await hand_back(self.connection, self.relays.pop(agent))
            self.held[agent].clear()
            leave(self.rows, agent)
            await self.keep_house(agent)
        elif what == "hand back":
            await hand_back(self.connection, self.relays[agent])
            self.held[agent].clear()
        elif what == "store":
            self.stored += 1
            one = replace(message(self.stored, f"{self.run}/{conversation}"), wanted=self.stored % 2 == 0)
            stored = await store(self.connection, self.relays[agent], [one])
            self.begin(agent, [claimed for claimed in stored if isinstance(claimed, Claimed)])
        elif what == "claim":
            await self.claim(agent)
        elif self.held[agent]:
            await self.end(what, self.held[agent].pop(0))

    async def keep_house(self, agent: str) -> None:
        """What a relay does by the clock. Until then no delivery waits for a head that is over."""
        assert self.rows(_HEADLESS) == []
        await gate.release_order(self.connection, 60)
        await destinations.refresh(self.connection, self.relays.get(agent))
        assert await gate.heal_order(self.connection, "", 99) == ""

    def begin(self, agent: str, claims: list[Claimed]) -> list[int]:
        """The relay of `agent` holds these. Returns the rows of those that begin for the first time."""
        self.held[agent] += claims
        first = [one.delivery.id for one in claims if one.delivery.id not in self.begun]
        self.begun.update(first)
        return first

    async def claim(self, agent: str) -> list[tuple[str | None, int]]:
        """Claim what may be claimed: nothing that waits in the same line is earlier. Returns the places of what begins.

        What waited long for a retry has none.
        """
        taken = await claim_backlog(self.connection, self.relays[agent], most=2, most_bytes=10_000)
        waiting = self.rows(_WAITING)
        places: list[tuple[str | None, int]] = self.rows(_PLACES, (self.begin(agent, taken),))
        for line, position in places:
            assert [other for key, other in waiting if key == line and other < position] == []
        return places

    async def end(self, what: str, claimed: Claimed) -> None:
        """End the run of a delivery, or let it wait."""
        ended = finish_of(claimed, outcome("200"))
        if what != "end":
            waits = Deferred((), 1, WaitReason.RETRY, 300_000 if what == "long retry" else 0)
            ended = replace(ended, outcome=waits, facts=[])
        assert await finish(self.connection, [ended]) == [True]

    async def drain(self) -> list[tuple[str | None, int]]:
        """Let everything end, and return the positions of each line in the order in which its deliveries began."""
        for agent in _AGENTS:
            await self.step("return", agent, 0)
        self.rows("UPDATE relay.deliveries SET next_attempt_at = now() WHERE state = 'waiting'")
        await self.keep_house(BLUE)
        begun: list[tuple[str | None, int]] = []
        for _ in range(200):
            for agent in _AGENTS:
                while self.held[agent]:
                    await self.end("end", self.held[agent].pop(0))
            for agent in _AGENTS:
                begun += await self.claim(agent)
            if not any(self.held.values()):
                break
        return begun


async def test_each_conversation_keeps_its_order_and_ends_while_relays_come_and_go(dsn: str, rows: Rows) -> None:
    chance = Random(1)
    async with await psycopg.AsyncConnection.connect(autocommit=True, **connection_parameters(dsn, "tests")) as opened:
        for _ in range(_RUNS):
            kinds = chance.choices(list(_KINDS), list(_KINDS.values()), k=_STEPS)
            steps = [(what, chance.choice(_AGENTS), int(chance.random() < 0.2)) for what in kinds]
            await play(opened, rows, steps)


async def play(connection: Connection, rows: Rows, steps: list[tuple[str, str, int]]) -> None:
    """Play one run, and check what it leaves."""
    model = _Model(connection, rows)
    for agent in _AGENTS:
        await model.step("return", agent, 0)
    for what, agent, conversation in steps:
        await model.step(what, agent, conversation)
    begun = await model.drain()
    lines: dict[str | None, list[int]] = {}
    for key, position in begun:
        lines.setdefault(key, []).append(position)
    lines.pop(None, None)  # released after a long retry wait
    assert all(line == sorted(line) for line in lines.values()), (lines, steps)
    assert rows("SELECT DISTINCT state FROM relay.deliveries WHERE state <> 'delivered'") == [], steps
    assert rows("SELECT count(*) FROM relay.conversations WHERE head IS NOT NULL") == [0], steps
    assert rows("SELECT sum(number)::integer FROM relay.backlog_counts GROUP BY kind HAVING sum(number) <> 0") == []
    for agent in _AGENTS:
        leave(rows, agent)
