"""The trace of a delivery (W3C Trace Context): the sender's, or one made from the delivery id.

Every id is computed from what is stored, so that a delivery's attempts, replays and restarts belong to one trace
although no relay remembers it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.domain.headers import first_header

if TYPE_CHECKING:
    from relay.domain.delivery import Delivery, Headers

TRACEPARENT = "traceparent"
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = "01"


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace that a delivery belongs to. `parent` is the sender's span, None where the sender named none."""

    trace_id: str
    parent: str | None
    flags: str = _SAMPLED

    def traceparent(self, span_id: str) -> str:
        """The header that makes `span_id` of this trace the parent of what a receiver does."""
        return f"00-{self.trace_id}-{span_id}-{self.flags}"


def parse_traceparent(value: str | None) -> Trace | None:
    """The trace in a `traceparent` header; None if there is none or it is malformed."""
    found = _FORM.fullmatch((value or "").strip())
    return None if found is None else Trace(found[1], found[2], found[3])


def trace_of(delivery_id: str, headers: Headers) -> Trace:
    """The trace of a delivery with these stored `headers`."""
    sent = parse_traceparent(first_header(headers, TRACEPARENT))
    return sent or Trace(_digest("trace", delivery_id)[:32], None)


def receipt_span(delivery_id: str) -> str:
    """The id of the span of a webhook's receipt, the parent of all that the relay does for it."""
    return _digest("receipt", delivery_id)[:16]


def attempt_span(delivery: Delivery, number: int) -> str:
    """The id of the span of one attempt. Probes of the breaker share a number; the time waited tells them apart."""
    return _digest("attempt", f"{delivery.run} {number} {delivery.waited_ms} {delivery.delivery_id}")[:16]


def _digest(kind: str, text: str) -> str:
    return hashlib.sha256(f"{kind} {text}".encode("utf-8", "surrogatepass")).hexdigest()
