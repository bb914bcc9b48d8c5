"""Counts and records rejected webhooks (no payload). Bursts are aggregated.

Any client that reaches the port can cause rejections. The first few of a moment are logged and recorded one by one, a
burst as one line and one fact with its count. So are those beyond `MOST_A_MINUTE`, so that a client that goes on for
days fills no disk.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from relay.domain.delivery import FactType
from relay.domain.facts import Fact
from relay.errors import StoreUnavailable
from relay.store import facts as stored_facts
from relay.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.store.database import Database
    from relay.telemetry.forwarding_log import ForwardingLog
    from relay.telemetry.metrics import Counters

ONE_BY_ONE = 20
"""Rejections of one reason between two flushes that are recorded one by one; more are one fact."""

MOST_A_MINUTE = 100
"""So many of one reason are recorded one by one in a minute."""

BURST_S = 2.0
"""How long after the fact of a burst the next one of its reason is recorded at the earliest."""


SENDER: ContextVar[str | None] = ContextVar("SENDER", default=None)
"""The address that the current request came from. It is logged, and not recorded in facts."""


_Key = tuple[str, int, bool]
"""Reason, status, and whether it was a test."""


class Rejections:
    """Collects rejections until `take` turns them into facts. Bursts that the forwarding log counts end there too."""

    def __init__(
        self, counters: Counters, forwarding_log: ForwardingLog, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._minute = clock()
        self._single: Counter[_Key] = Counter()
        self._bursts_at: dict[_Key, float] = {}
        self._counters = counters
        self._forwarding_log = forwarding_log
        self._pending: Counter[_Key] = Counter()
        self._unrecorded: dict[_Key, Fact] = {}
        self._senders: defaultdict[_Key, list[str | None]] = defaultdict(list)

    def add(self, reason: str, status: int, *, test: bool = False) -> None:
        """Count a webhook that was answered `status` for `reason`. A `test` webhook raises no alert."""
        self._counters.rejected[reason] += 1
        self._pending[reason, status, test] += 1
        if self._pending[reason, status, test] <= ONE_BY_ONE:
            self._senders[reason, status, test].append(SENDER.get())

    def take(self, *, is_last: bool = False) -> list[Fact]:
        """Log the rejections since the last call and return their facts, after those that were put back."""
        self._forwarding_log.flush(at_once=is_last)
        now = self._clock()
        if now - self._minute >= 60:
            self._minute = now
            self._single.clear()
        facts: list[Fact] = []
        for key, count in list(self._pending.items()):
            reason, status, test = key
            shares = self._shares(key, count, now, is_last=is_last)
            if not shares:
                continue
            del self._pending[key]
            known = self._senders.pop(key, [])
            for number, share in enumerate(shares):
                client = known[number] if number < len(known) else None
                self._forwarding_log.rejected(reason, status, share, client=client)
                facts.append(_fact(reason, status, share, test=test))
        unrecorded, self._unrecorded = self._unrecorded, {}
        return [*unrecorded.values(), *facts]

    def _shares(self, key: _Key, count: int, now: float, *, is_last: bool) -> list[int]:
        """The counts of the facts that `count` rejections become now; none if they wait for more."""
        if count <= ONE_BY_ONE and self._single[key] + count <= MOST_A_MINUTE:
            self._single[key] += count
            return [1] * count
        if now - self._bursts_at.get(key, float("-inf")) < BURST_S and not is_last:
            return []
        self._bursts_at[key] = now
        return [count]

    def put_back(self, facts: list[Fact]) -> None:
        """Take back facts that could not be recorded, as one a reason with the time of the first."""
        for fact in facts:
            key = (fact.value["reason"], fact.value["status"], fact.metadata["test"])
            first = self._unrecorded.get(key)
            count = fact.value["count"] + (0 if first is None else first.value["count"])
            metadata = fact.metadata if first is None else first.metadata
            self._unrecorded[key] = Fact(fact.fact_type, fact.value | {"count": count}, metadata)


class RejectionRecorder:
    """The service that records rejections as facts."""

    name = "rejections"
    interval_s = 0.5

    def __init__(self, database: Database, rejections: Rejections) -> None:
        self._database = database
        self._rejections = rejections

    async def run_once(self) -> None:
        """Record what was rejected since the last round. What cannot be recorded is kept for the next.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        facts = self._rejections.take()
        if not facts:
            return
        try:
            async with self._database.connection() as connection:
                await stored_facts.record(connection, facts)
        except StoreUnavailable:
            self._rejections.put_back(facts)
            raise


def _fact(reason: str, status: int, count: int, *, test: bool) -> Fact:
    now = rfc3339(datetime.now(UTC))
    value = {"reason": reason, "status": status, "count": count}
    return Fact(FactType.REJECTED, value, {"timestamp": now, "test": test})
