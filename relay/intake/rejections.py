"""Counts and records rejected webhooks (no payload). Bursts are aggregated.

Any client that reaches the port can cause rejections. The first few of a moment are logged and recorded one by one, a
burst as one line and one fact with its count.
"""

from __future__ import annotations

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
    from relay.store.database import Database
    from relay.telemetry.forwarding_log import ForwardingLog
    from relay.telemetry.metrics import Counters

ONE_BY_ONE = 20
"""Rejections of one reason between two flushes that are recorded one by one; more are one fact."""


SENDER: ContextVar[str | None] = ContextVar("SENDER", default=None)
"""The address that the current request came from. It is logged, and not recorded in facts."""


class Rejections:
    """Collects rejections until `take` turns them into facts. Bursts that the forwarding log counts end there too."""

    def __init__(self, counters: Counters, forwarding_log: ForwardingLog) -> None:
        self._counters = counters
        self._forwarding_log = forwarding_log
        self._pending: Counter[tuple[str, int, bool]] = Counter()
        self._unrecorded: dict[tuple[str, int, bool], Fact] = {}
        self._senders: defaultdict[tuple[str, int, bool], list[str | None]] = defaultdict(list)

    def add(self, reason: str, status: int, *, test: bool = False) -> None:
        """Count a webhook that was answered `status` for `reason`. A `test` webhook raises no alert."""
        self._counters.rejected[reason] += 1
        self._pending[reason, status, test] += 1
        if self._pending[reason, status, test] <= ONE_BY_ONE:
            self._senders[reason, status, test].append(SENDER.get())

    def take(self, *, is_last: bool = False) -> list[Fact]:
        """Log the rejections since the last call and return their facts, after those that were put back."""
        self._forwarding_log.flush(at_once=is_last)
        pending, self._pending = self._pending, Counter()
        senders, self._senders = self._senders, defaultdict(list)
        facts: list[Fact] = []
        for (reason, status, test), count in pending.items():
            shares = [1] * count if count <= ONE_BY_ONE else [count]
            known = senders[reason, status, test]
            for number, share in enumerate(shares):
                client = known[number] if number < len(known) else None
                self._forwarding_log.rejected(reason, status, share, client=client)
                facts.append(_fact(reason, status, share, test=test))
        unrecorded, self._unrecorded = self._unrecorded, {}
        return [*unrecorded.values(), *facts]

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
