"""Deliveries, attempts and outcomes as values. No I/O, no SQL, no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

Headers = tuple[tuple[str, str], ...]

BACKFILL_ID = "backfill-"
OWN_IDS = ("relay-", BACKFILL_ID, "replay-")
"""How delivery ids begin that the relay itself gives. No sender may claim one: it could meet a row of the relay's."""


class State(StrEnum):
    """The state of a delivery. DESIGN, 1, names every transition and who makes it."""

    RECEIVED = "received"
    FORWARDING = "forwarding"
    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"
    DISCARDED = "discarded"
    IGNORED = "ignored"


class WaitReason(StrEnum):
    """Why a delivery waits (DESIGN, 1.1)."""

    ORDER = "order"
    CAPACITY = "capacity"
    HOLD = "hold"
    BREAKER = "breaker"
    RETRY = "retry"
    DESTINATION = "destination"


class FactType(StrEnum):
    """The kinds of facts in `dashboard_facts` (RUNBOOK, Recorded Metrics; DESIGN, 6)."""

    RETRY = "support.webhook.retry"
    DEAD_LETTER = "support.webhook.dead_letter"
    REPLAY = "support.webhook.replay"
    REJECTED = "support.webhook.rejected"
    HEALTH = "support.health"
    ALERT = "support.alert"


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that was verified. `key` is the first half of its HMAC: it names the signature, however the header
    writes it, and cannot be used to sign. `expires_at` (unix seconds) is the end of its validity.
    """

    key: UUID
    expires_at: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A webhook that was received, verified and parsed, but not stored yet.

    `body` is the JSON, `encoded_body` what came in if that had a content coding (else None, and `body` came in byte
    for byte); `headers` are those that are kept, names in lower case. `signature` is the one that was verified, None
    where no secret is configured.
    `event` and `conversation_id` are read from the body and None where it does not say; `customer` is True
    for a message that a customer wrote and that waits for an answer. `ignored` is True for a webhook that is stored
    but not forwarded. `account_id` is the account that the payload names, None if it names none. `destination` is the
    Agent SDK that it was accepted for, as the spool keeps it; None: that of the relay that stores it.
    """

    delivery_id: str
    headers: Headers
    body: bytes
    event: str | None
    conversation_id: str | None
    customer: bool
    test: bool
    ignored: bool = False
    encoded_body: bytes | None = None
    signature: Signature | None = None
    account_id: str | None = None
    destination: str | None = None

    @property
    def order_key(self) -> str | None:
        """Names the conversation whose deliveries are forwarded in order; None for a delivery that is not ordered."""
        if self.conversation_id is None or self.test or self.ignored:
            return None
        return f"{self.account_id or ''}/{self.conversation_id}"

    @property
    def size(self) -> int:
        """The bytes of both forms of its body."""
        return len(self.body) + len(self.encoded_body or b"")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A stored webhook that this relay has claimed, ready for one run of the retry loop.

    `id` is the row, `delivery_id` Chatwoot's UUID, `run` counts the runs of the retry loop
    (1 for the first). `plan_id` is set when the run is a replay; `edited` when that replay sends a
    body that an operator changed, which is then `body`. `encoded_body` is the body as it came in, if that had
    a content coding. `tries` attempts of this run are recorded already, from before a wait; they took `spent_ms`.
    `waited_ms` is the time spent in the backlog and in waits between attempts, `paused_ms` the last of these waits,
    `waited_for` its reason.
    `order_key` names its conversation while it takes part in the order of it.
    """

    id: int
    delivery_id: str
    run: int
    headers: Headers
    body: bytes
    event: str | None
    conversation_id: str | None
    test: bool
    plan_id: int | None = None
    edited: bool = False
    requested_by: str | None = None
    encoded_body: bytes | None = None
    tries: int = 0
    spent_ms: int = 0
    waited_ms: int = 0
    paused_ms: int = 0
    waited_for: WaitReason | None = None
    order_key: str | None = None

    @property
    def sent_body(self) -> bytes:
        """The body that the agent gets: as it was received, or as an operator edited it."""
        return self.body if self.encoded_body is None else self.encoded_body

    @property
    def size(self) -> int:
        """The bytes of both forms of its body."""
        return len(self.body) + len(self.encoded_body or b"")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST to the Agent SDK and its result.

    `status` is the HTTP status in digits, or a word for the failure (`timeout`, `dns_failure`, …: DESIGN, 3).
    `error` is None on success, else a sentence that failure groups share. `wait_ms` is the pause before the attempt.
    `answer` is the beginning of the agent's answer; `retry_after_ms` its `Retry-After`.
    """

    number: int
    started_at: datetime
    wait_ms: int
    duration_ms: int
    status: str
    success: bool
    retryable: bool
    error: str | None = None
    answer: str = ""
    agent_status: str | None = None
    retry_after_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run of the retry loop ended. `duration_ms` spans the whole loop, short waits included.

    `attempts` are those since the run was last claimed; `earlier` attempts before them are recorded already.
    """

    attempts: tuple[Attempt, ...]
    duration_ms: int
    earlier: int = 0

    @property
    def count(self) -> int:
        """The attempts of the whole run."""
        return self.earlier + len(self.attempts)

    @property
    def last(self) -> Attempt:
        """The attempt that decided the outcome."""
        return self.attempts[-1]

    @property
    def success(self) -> bool:
        """True if the agent answered 2xx."""
        return self.last.success

    @property
    def state(self) -> State:
        """The state that the delivery moves to."""
        return State.DELIVERED if self.success else State.DEAD


@dataclass(frozen=True, slots=True)
class Deferred:
    """A run that is interrupted: the delivery becomes `waiting`, and its next attempt is due after `pause_ms`.

    `attempts` are those since the run was last claimed, without a probe of the circuit breaker. `duration_ms` is the
    length of the run so far.
    """

    attempts: tuple[Attempt, ...]
    duration_ms: int
    reason: WaitReason
    pause_ms: float
    earlier: int = 0

    @property
    def count(self) -> int:
        """The attempts of the whole run."""
        return self.earlier + len(self.attempts)
