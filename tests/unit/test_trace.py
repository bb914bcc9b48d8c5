"""Traces: the sender's, or one made from the delivery id; the same after every restart."""

from __future__ import annotations

import re
from dataclasses import replace

from relay.domain.delivery import Delivery
from relay.domain.trace import attempt_span, parse_traceparent, receipt_span, trace_of

SENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
DELIVERY = Delivery(1, "a", 1, (), b"{}", None, None, test=False)
MALFORMED = [
    "", "00", SENT.upper(), SENT.replace("00-", "ff-", 1), SENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
    SENT.replace("00f067aa0ba902b7", "0" * 16), SENT + "-more", SENT[:-1],
]  # fmt: skip


def test_a_senders_trace_is_taken() -> None:
    trace = trace_of("0192-abc", (("traceparent", f" {SENT} "),))
    assert (trace.trace_id, trace.parent, trace.flags) == (SENT[3:35], SENT[36:52], "00")
    assert trace.traceparent("a" * 16) == f"00-{SENT[3:35]}-{'a' * 16}-00"


def test_what_is_malformed_is_replaced_by_a_trace_of_the_delivery() -> None:
    assert [value for value in MALFORMED if parse_traceparent(value) is not None] == []
    made = {trace_of("0192-abc", (("traceparent", value),)) for value in MALFORMED} | {trace_of("0192-abc", ())}
    (trace,) = made
    assert trace.parent is None
    assert parse_traceparent(trace.traceparent(receipt_span("0192-abc"))) is not None
    assert trace_of("0192-abd", ()).trace_id != trace.trace_id


def test_spans_have_ids_of_their_own() -> None:
    some = [replace(DELIVERY, run=run, waited_ms=waited_ms) for run in (1, 2) for waited_ms in (0, 5_000)]
    spans = {receipt_span("a"), receipt_span("b"), *(attempt_span(one, n) for one in some for n in (1, 2))}
    assert len(spans) == 10
    assert all(re.fullmatch(r"[0-9a-f]{16}", span) for span in spans)
