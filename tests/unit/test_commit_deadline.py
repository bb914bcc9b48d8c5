"""Group commit's deadline: an item whose submitter has given up is not committed."""

from __future__ import annotations

import asyncio
import math
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from relay.errors import StoreUnavailable
from relay.store import batch
from relay.store.batch import GroupCommit
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Sequence


class Ledger:
    """A store that commits once it is let; `begun` and `committed` are what came to it, in order."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.begun: list[str] = []
        self.committed: list[str] = []

    async def commit(self, items: Sequence[str]) -> list[str]:
        """Commit a batch."""
        self.begun += items
        await self.let.wait()
        self.committed += items
        return list(items)


async def test_no_commit_of_an_item_begins_after_its_deadline() -> None:
    ledger = Ledger()
    group: GroupCommit[str, str] = GroupCommit(ledger.commit)
    running = asyncio.create_task(group.run())
    first = asyncio.create_task(group.submit("first", by=math.inf))
    await until(lambda: ledger.begun)
    late = asyncio.create_task(group.submit("late", by=time.monotonic()))
    patient = asyncio.create_task(group.submit("patient", by=time.monotonic() + 3600))
    until_now = time.monotonic()
    await until(lambda: time.monotonic() > until_now)
    ledger.let.set()
    with pytest.raises(StoreUnavailable):
        await late
    assert [await first, await patient] == ledger.committed == ["first", "patient"]
    running.cancel()


async def test_a_commit_that_began_in_time_counts_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(batch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    ledger = Ledger()
    group: GroupCommit[str, str] = GroupCommit(ledger.commit)
    running = asyncio.create_task(group.run())
    submitted = asyncio.create_task(group.submit("in time", by=1))
    await until(lambda: ledger.begun)
    now[0] = 2
    ledger.let.set()
    assert await submitted == "in time"
    running.cancel()
