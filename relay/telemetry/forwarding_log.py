"""The messages of the forwarding log: one method for each event of a webhook (RUNBOOK, Check Logs).

No line carries a secret, a signature or a customer's text, nor what the agent answered, which may repeat it: numbers,
states, ids, the relay's own sentences and the agent's URL only.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from relay.domain.retry import without_agents_error
from relay.telemetry.burst import Burst
from relay.telemetry.log_sink import FORWARDING_SCOPE

if TYPE_CHECKING:
    from relay.domain.delivery import Attempt, Delivery, Outcome, WaitReason
    from relay.store.deliveries import Duplicate
    from relay.telemetry.log_sink import LogSink


class ForwardingLog:
    """Logs the events of webhooks. `endpoint` is the agent's URL without credentials."""

    def __init__(self, sink: LogSink, endpoint: str) -> None:
        self._sink = sink
        self._log = sink.logger(FORWARDING_SCOPE)
        self._endpoint = endpoint
        self._copies = Burst(
            partial(self._log.warning, "Signature seen before under another delivery id, not forwarded")
        )

    def attempting(self, delivery: Delivery, number: int) -> None:
        """Logs the start of an attempt (the runbook's line)."""
        self._sink.info(
            FORWARDING_SCOPE,
            "Forwarding Chatwoot webhook",
            delivery.delivery_id,
            attempt=number,
            agentEndpoint=self._endpoint,
        )

    def retrying(self, delivery: Delivery, attempt: Attempt, pause_ms: float) -> None:
        """Logs an attempt that failed and will be retried."""
        self._log.warning(
            "Webhook attempt failed, retrying",
            delivery_id=delivery.delivery_id,
            attempt=attempt.number,
            status=attempt.status,
            duration=attempt.duration_ms,
            retryIn=round(pause_ms),
        )

    def delivered(self, delivery: Delivery, outcome: Outcome) -> None:
        """Logs a delivery that the agent accepted (the runbook's line)."""
        self._sink.info(
            FORWARDING_SCOPE,
            "Webhook forwarded successfully",
            delivery.delivery_id,
            duration=outcome.duration_ms,
            attempts=outcome.count,
        )

    def dead_lettered(self, delivery: Delivery, outcome: Outcome) -> None:
        """Logs a delivery that became a dead letter."""
        self._log.error(
            "Webhook failed, dead-lettered",
            delivery_id=delivery.delivery_id,
            attempts=outcome.count,
            finalStatus=outcome.last.status,
            error=without_agents_error(outcome.last.error),
            duration=outcome.duration_ms,
            deliveryId=delivery.delivery_id,
        )

    def duplicate(self, sent_id: str, known: Duplicate) -> None:
        """Logs a webhook whose delivery id, or whose signature, is known: it is not forwarded.

        Copies of a captured request under other ids share a line each ten seconds.
        """
        if sent_id == known.delivery_id:
            self._log.info("Duplicate webhook, not forwarded", delivery_id=known.delivery_id, state=known.state)
        else:
            self._copies.add(delivery_id=known.delivery_id, state=known.state, sentAs=sent_id)

    def flush(self, *, at_once: bool = False) -> None:
        """Logs bursts that have been counted, if it is time for their next line or `at_once`."""
        self._copies.flush(at_once=at_once)

    def kept_apart(self, sent_id: str, delivery_id: str) -> None:
        """Logs a webhook with the id of a dead letter and another body: it became a delivery of its own."""
        self._log.warning(
            "Webhook differs from the dead letter of its id, kept under another",
            delivery_id=delivery_id,
            sentAs=sent_id,
        )

    def ignored(self, delivery_id: str, event: str | None) -> None:
        """Logs a webhook that is stored but not forwarded."""
        self._log.info("Webhook ignored, not forwarded", delivery_id=delivery_id, webhookEvent=event)

    def not_stored(self, delivery_id: str, reason: str) -> None:
        """Logs that Postgres refused or cancelled a webhook's statement. `reason` holds no customer's text."""
        self._log.warning("Webhook not stored", delivery_id=delivery_id, reason=reason)

    def waits(self, delivery_id: str, reason: WaitReason) -> None:
        """A webhook was stored and waits for its turn."""
        self._log.info("Webhook stored, waits", delivery_id=delivery_id, waits=reason)

    def deferred(self, delivery: Delivery, reason: WaitReason, pause_ms: float) -> None:
        """A run is interrupted; its next attempt is made later, by whichever relay is free then."""
        self._log.info(
            "Webhook waits for its next attempt",
            delivery_id=delivery.delivery_id,
            waits=reason,
            retryIn=round(pause_ms),
        )

    def breaker(self, what: str, **fields: object) -> None:
        """The circuit breaker opened or closed."""
        self._log.warning(f"Circuit breaker {what}", **fields)

    def spooling(self, reason: str) -> None:
        """Logs that webhooks go to the spool until Postgres commits again."""
        self._log.warning("Postgres does not store webhooks, they go to the spool", reason=reason)

    def spooled(self, delivery_id: str) -> None:
        """Logs a webhook that is durable in the spool."""
        self._log.info("Webhook spooled", delivery_id=delivery_id)

    def drained(self, count: int) -> None:
        """Logs that webhooks went from the spool into Postgres."""
        self._log.info("Spool drained into Postgres", webhooks=count)

    def taken_over(self, delivery: Delivery) -> None:
        """Logs a delivery claimed from a relay that no longer forwards it."""
        self._log.info("Webhook taken over", delivery_id=delivery.delivery_id, run=delivery.run)

    def given_up(self, delivery: Delivery) -> None:
        """Logs a run abandoned because the lease expired: another relay finishes the delivery."""
        self._log.warning("Lease lost, run abandoned", delivery_id=delivery.delivery_id, run=delivery.run)

    def rejected(self, reason: str, status: int, count: int, *, client: str | None = None) -> None:
        """Logs `count` webhooks that were rejected for `reason`; `client` is the address that the first came from."""
        fields = {"reason": reason, "status": status} | ({"count": count} if count > 1 else {})
        fields |= {"client": client} if client is not None else {}
        self._log.warning("Webhook rejected", **fields)

    def failed(self, error: BaseException | None) -> None:
        """Logs a defect of the relay itself: the delivery stays leased and will be taken over."""
        self._log.error("Webhook left unfinished by a defect", error=type(error).__name__)

    def replay(self, what: str, plan_id: int, **fields: object) -> None:
        """Logs an event of a replay plan: started, paused, resumed, stopped or done."""
        self._log.info(f"Replay {what}", replay=plan_id, **fields)
