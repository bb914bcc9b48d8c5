"""What one delivery left behind: its row, its attempts, its facts, and what the agent saw of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay.demo.agent import Seen
    from tests.servers import AgentStandIn, Rows

Fact = tuple[dict[str, Any], dict[str, Any]]

_DELIVERY = """
    SELECT id, state, run, body, event, conversation_id, test, attempts, final_status, last_error
      FROM relay.deliveries WHERE delivery_id = %s
"""
_ATTEMPTS = "SELECT run, number, wait_ms, status, error, answer FROM relay.attempts WHERE delivery = %s ORDER BY 1, 2"
_FACTS = """
    SELECT value, metadata FROM dashboard_facts
     WHERE fact_type = %s AND metadata ->> 'deliveryId' = %s ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Tried:
    """A row of the attempts table."""

    run: int
    number: int
    wait_ms: int
    status: str
    error: str | None
    answer: str


@dataclass(frozen=True, slots=True)
class Trace:
    """What Postgres holds of one delivery. Facts are `(value, metadata)`, oldest first."""

    state: str
    run: int
    body: bytes
    event: str | None
    conversation_id: str | None
    test: bool
    attempts: int | None
    final_status: str | None
    last_error: str | None
    tried: list[Tried]
    retries: list[Fact]
    dead_letters: list[Fact]


def trace(rows: Rows, delivery_id: str) -> Trace:
    """Everything in Postgres about the delivery."""
    row_id, state, run, body, *rest = rows.one(_DELIVERY, (delivery_id,))
    return Trace(
        state, run, bytes(body), *rest,
        tried=[Tried(*row) for row in rows(_ATTEMPTS, (row_id,))],
        retries=rows(_FACTS, ("support.webhook.retry", delivery_id)),
        dead_letters=rows(_FACTS, ("support.webhook.dead_letter", delivery_id)),
    )  # fmt: skip


def seen_of(agent: AgentStandIn, delivery_id: str) -> list[Seen]:
    """What the agent was sent of the delivery, oldest first."""
    return [seen for seen in agent.seen if seen.delivery_id == delivery_id]


def deliveries(rows: Rows) -> int:
    """How many deliveries are stored."""
    count: int = rows.one("SELECT count(*) FROM relay.deliveries")
    return count
