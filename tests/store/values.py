"""Receipts and outcomes as values, for the tests that hand them to the store."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from relay.domain.delivery import Attempt, Outcome, Receipt, Signature
from relay.domain.facts import facts_of_run
from relay.store import finishing
from relay.store.deliveries import Claimed, Finish, Incoming

if TYPE_CHECKING:
    from relay.store.database import Connection

ENDPOINT = "http://agent/webhooks/chatwoot"
EXPIRES_AT = int(time.time()) + 86_400  # no run of the tests takes so long


def incoming(
    delivery_id: str = "",
    *,
    body: bytes = b'{"event": "message_created"}',
    claim: UUID | None = None,
    signature: UUID | None = None,
    ignored: bool = False,
    encoded_body: bytes | None = None,
) -> Incoming:
    """A webhook on its way into the store, by default under a fresh id; a signature expires at `EXPIRES_AT`."""
    receipt = Receipt(
        delivery_id=delivery_id or str(uuid4()),
        headers=(("content-type", "application/json"), ("x-chatwoot-event", "é")),
        body=body,
        event="message_created",
        conversation_id="77",
        customer=True,
        test=False,
        ignored=ignored,
        encoded_body=encoded_body,
        signature=None if signature is None else Signature(signature, EXPIRES_AT),
    )
    return Incoming(claim or uuid4(), receipt)


def outcome(*statuses: str, answer: str = "") -> Outcome:
    """A run whose attempts ended like this, for example `outcome("503", "200")`."""
    attempts = tuple(
        Attempt(
            number=number,
            started_at=datetime.now(UTC),
            wait_ms=0 if number == 1 else 200,
            duration_ms=5,
            status=status,
            success=status == "200",
            retryable=status != "200",
            error=None if status == "200" else f"Agent SDK answered {status}",
            answer=answer,
        )
        for number, status in enumerate(statuses, 1)
    )
    return Outcome(attempts, duration_ms=205 * len(attempts))


async def finish(connection: Connection, batch: list[Finish]) -> list[bool]:
    """Finish these, and return of each whether it was recorded."""
    return [done.recorded for done in await finishing.finish(connection, batch)]


def finish_of(claimed: Claimed, ended: Outcome) -> Finish:
    """What the relay records when a claimed delivery's run has ended."""
    return Finish(claimed.claim, claimed.delivery, ended, facts_of_run(claimed.delivery, ended, ENDPOINT))
