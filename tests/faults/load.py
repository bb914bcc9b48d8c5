"""Senders that post all the while something is broken."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.faults.ledger import Ledger
from tests.servers import until

if TYPE_CHECKING:
    from collections import Counter

    from relay.demo.agent import AgentStandIn
    from tests.faults.conftest import RelayProcess, Senders
    from tests.servers import Rows

CLIENTS = 24
_UNFINISHED = "SELECT count(*) FROM relay.deliveries WHERE state IN ('received', 'waiting', 'forwarding')"

_STORED = "SELECT delivery_id FROM relay.deliveries"


class Load:
    """`CLIENTS` clients that post one webhook after another, and what came of it."""

    def __init__(self, senders: Senders, agent: AgentStandIn) -> None:
        self.ledger = Ledger()
        self._senders = senders
        self.agent = agent
        self._stop = asyncio.Event()
        self._posting: asyncio.Task[None] | None = None

    def start(self, *relays: RelayProcess) -> None:
        """Begin to post to the relays in turn."""
        urls = [relay.url for relay in relays]
        self._posting = asyncio.create_task(self._senders.keep_posting(urls, self.ledger, CLIENTS, self._stop))

    async def continues(self, webhooks: int = 50) -> None:
        """Wait until so many more have been taken."""
        taken = len(self.ledger.taken)
        await until(lambda: len(self.ledger.taken) > taken + webhooks, what="webhooks are taken")

    async def is_spooled(self, webhooks: int = 50) -> None:
        """Wait until so many more went to a spool."""
        spooled = self.ledger.spooled
        await until(lambda: self.ledger.spooled > spooled + webhooks, what="webhooks are spooled")

    async def is_refused(self) -> None:
        """Wait until the relay answers 503."""
        refused = len(self.ledger.refusals)
        await until(lambda: len(self.ledger.refusals) > refused, what="webhooks are answered 503")

    async def ends_well(self, rows: Rows) -> Counter[str]:
        """Stop, wait until all is finished, and hold everything against everything: sent, lost, copies."""
        await self.stop()
        taken = set(self.ledger.taken)
        await until(lambda: taken <= set(rows(_STORED)), what="all that was answered for is stored", every_s=0.2)
        await until(lambda: rows.one(_UNFINISHED) == 0, what="all is finished")
        await until(lambda: rows.one("SELECT count(*) FROM relay.facts_aside") == 0, what="no fact waits aside")
        return self.ledger.check(rows, self.agent, in_flight=CLIENTS)

    async def stop(self) -> None:
        """Post no more, and wait for the answers."""
        self._stop.set()
        if self._posting is not None:
            await self._posting
