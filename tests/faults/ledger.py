"""Compares the answers that senders got, what the agent saw and what the tables hold."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.servers import until

if TYPE_CHECKING:
    from tests.servers import AgentStandIn, Rows

_RUNS = """
    SELECT delivery_id, state, run, final_status,
           (SELECT count(DISTINCT a.run) FROM relay.attempts a WHERE a.delivery = d.id)
      FROM relay.deliveries d
"""
_OUTCOMES = """
    SELECT metadata ->> 'deliveryId', count(*) FROM dashboard_facts
     WHERE fact_type IN ('support.webhook.retry', 'support.webhook.replay') GROUP BY 1
"""


@dataclass
class Ledger:
    """`statuses` is the status of every answer a sender got, by delivery id; 0 for none.

    `refusals` are the reasons of all that were answered 503. `conversations` are the deliveries of each, as they were
    sent; `spooled` counts those that went to a spool. `kills` counts the crashes, `good_since` says when the latest
    webhook that was answered 200 had been sent.
    """

    statuses: dict[str, int] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    kills: int = 0
    spooled: int = 0
    conversations: dict[int, list[str]] = field(default_factory=dict)
    good_since: float = float("-inf")

    async def recovers(self, since: float) -> float:
        """Wait until a webhook that was sent after `since` (`time.monotonic()`) is answered 200: seconds from then."""
        await until(lambda: self.good_since >= since, what="a webhook is answered 200 again")
        return time.monotonic() - since

    @property
    def taken(self) -> list[str]:
        """The deliveries that the relay answered for: they must never be lost."""
        return [delivery_id for delivery_id, status in self.statuses.items() if status in {200, 202, 500}]

    def check_order(self, agent: AgentStandIn) -> None:
        """Each conversation's deliveries came to the agent in the order in which they were sent.

        Raises:
            AssertionError: some did not.
        """
        first = {seen.delivery_id: place for place, seen in reversed(list(enumerate(agent.seen)))}
        for conversation, sent in self.conversations.items():
            places = [first[delivery_id] for delivery_id in sent if delivery_id in first]
            assert places == sorted(places), f"conversation {conversation} came out of order"

    def check(self, rows: Rows, agent: AgentStandIn, *, in_flight: int) -> Counter[str]:
        """Every delivery that was answered for, and every one that is stored, has exactly one outcome per run
        that came to its end; a run that a crash cut short has none.

        Copies at the agent are allowed where a crash explains them: for what was in flight then, `in_flight` at
        most each time. Returns how many were sent, refused, lost and duplicated.

        Raises:
            AssertionError: one is missing, unfinished, or has no or several outcomes.
        """
        stored = {row[0]: row[1:] for row in rows(_RUNS)}
        outcomes = dict(rows(_OUTCOMES))
        lost = [delivery_id for delivery_id in self.taken if delivery_id not in stored]
        assert not lost, f"{len(lost)} of {len(self.taken)} answered deliveries are gone: {lost[:3]}"
        for delivery_id, (state, run, _, runs) in stored.items():
            assert state in {"delivered", "dead"}, (delivery_id, state)
            recorded = outcomes.get(delivery_id, 0)
            assert 1 <= recorded == runs <= run, (delivery_id, state, run, recorded, runs)
        arrived = Counter(seen.delivery_id for seen in agent.seen if seen.status == 200)
        for delivery_id, status in self.statuses.items():
            if status == 200:
                assert stored[delivery_id][0] == "delivered"
                assert arrived[delivery_id], f"{delivery_id} is said to be delivered, and the agent never saw it"
        copies = sum(number - 1 for number in arrived.values())
        assert copies <= self.kills * in_flight, f"{copies} copies are more than {self.kills} crashes explain"
        return Counter(sent=len(self.statuses), refused=len(self.refusals), lost=len(lost), copies=copies)
