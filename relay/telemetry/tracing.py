"""OpenTelemetry spans of deliveries. Off without `OTEL_EXPORTER_OTLP_ENDPOINT`; needs the extra `otel`.

A span is recorded when it has ended. Its id is known before, since it is computed (`domain.trace`) or drawn, so that no
part of the relay has to hand spans on. No span carries a customer's text or the agent's.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, cast

from relay.domain.retry import without_agents_error
from relay.domain.trace import attempt_span, parse_traceparent, receipt_span, trace_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from relay.domain.delivery import Attempt, Delivery, Headers
    from relay.domain.trace import Trace
    from relay.settings import Settings

Kind = Literal["SERVER", "CLIENT", "INTERNAL"]

NOT_INSTALLED = "OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is not installed: no traces are sent"
REMEDY = "pip install 'hotdash-relay[otel]'"


@dataclass(frozen=True, slots=True)
class Span:
    """What has ended. Times are in nanoseconds since 1970; `error` says why it failed, None if it did not."""

    name: str
    trace: Trace
    parent: str | None
    began: int
    ended: int
    kind: Kind = "INTERNAL"
    id: str | None = None
    attributes: tuple[tuple[str, Any], ...] = ()
    error: str | None = None


class Tracing:
    """Records nothing: tracing is off. `OtelTracing` sends what it is given."""

    on = False

    def record(self, span: Span) -> None:
        """Send a span, some time."""

    def close(self) -> None:
        """Send what is left; waits a moment at most."""

    def trace_id(self, delivery_id: str, headers: Headers) -> str | None:
        """The trace in which the delivery's spans are recorded; None while tracing is off."""
        return trace_of(delivery_id, headers).trace_id if self.on else None

    def received(self, delivery_id: str, headers: Headers, began: int, **attributes: Any) -> None:
        """A webhook came in at `began` and has been answered now.

        A duplicate's span has an id of its own: the computed one is that of the first receipt.
        """
        if not self.on:
            return
        trace = trace_of(delivery_id, headers)
        error = f"answered {attributes['status']}" if attributes.get("status", 200) >= 500 else None
        known = (("delivery.id", delivery_id), *_named(attributes, "webhook"))
        span_id = None if attributes.get("duplicate") else receipt_span(delivery_id)
        self.record(Span("receive", trace, trace.parent, began, now(), "SERVER", span_id, known, error))

    def step(self, name: str, delivery_id: str, headers: Headers, began: int, *, error: str | None = None) -> None:
        """A step of a delivery, such as `store` or `finish`, has ended now."""
        if not self.on:
            return
        known = (("delivery.id", delivery_id),)
        parent = receipt_span(delivery_id)
        span = Span(name, trace_of(delivery_id, headers), parent, began, now(), attributes=known, error=error)
        self.record(span)

    def handled(self, traceparent: str | None, began: int, status: int, delivery_id: str) -> None:
        """The reference agent answered a webhook now, within the trace that came with it."""
        trace = parse_traceparent(traceparent)
        if not self.on or trace is None:
            return
        known = (("delivery.id", delivery_id), ("http.response.status_code", status))
        error = f"answered {status}" if status >= 500 else None
        self.record(Span("draft", trace, trace.parent, began, now(), "SERVER", attributes=known, error=error))

    def attempts(self, delivery: Delivery, attempts: Sequence[Attempt]) -> None:
        """Attempts at the agent, and the waits before them, have ended."""
        if not self.on:
            return
        trace, parent = trace_of(delivery.delivery_id, delivery.headers), receipt_span(delivery.delivery_id)
        for place, one in enumerate(attempts):
            began = nanoseconds(one.started_at)
            known = (("delivery.id", delivery.delivery_id), ("delivery.run", delivery.run))
            is_first = one.number == 1
            waited_ms = delivery.waited_ms if is_first else one.wait_ms
            if waited_ms:
                usual = "backlog" if is_first else "retry"
                why = (*known, ("wait.reason", (delivery.waited_for if place == 0 else None) or usual))
                self.record(Span("wait", trace, parent, began - waited_ms * 1_000_000, began, attributes=why))
            span_id = attempt_span(delivery, one.number)
            more = (*known, ("attempt.number", one.number), ("attempt.status", one.status))
            ended = began + one.duration_ms * 1_000_000
            error = without_agents_error(one.error)
            self.record(Span("attempt", trace, parent, began, ended, "CLIENT", span_id, more, error))


def now() -> int:
    """The time in nanoseconds since 1970."""
    return time.time_ns()


def nanoseconds(moment: datetime) -> int:
    """`moment` in nanoseconds since 1970."""
    return round(moment.timestamp() * 1_000_000) * 1000


def _named(attributes: dict[str, Any], prefix: str) -> tuple[tuple[str, Any], ...]:
    return tuple((f"{prefix}.{name}", value) for name, value in attributes.items() if value is not None)


class OtelTracing(Tracing):
    """Sends spans with OpenTelemetry's SDK, in batches from a thread of its own."""

    on = True

    def __init__(self, endpoint: str, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self._ids = _Ids()
        own = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": service}
        self._provider = TracerProvider(resource=Resource.create(own), id_generator=cast("Any", self._ids))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
        self._tracer = self._provider.get_tracer("hotdash-relay")

    def record(self, span: Span) -> None:
        """Send a span, some time."""
        from opentelemetry import trace as api  # noqa: PLC0415 - an extra

        self._ids.trace_id, self._ids.span_id = span.trace.trace_id, span.id
        context = None
        if span.parent is not None:
            flags = api.TraceFlags(int(span.trace.flags, 16))
            parent = api.SpanContext(
                int(span.trace.trace_id, 16), int(span.parent, 16), is_remote=True, trace_flags=flags
            )
            context = api.set_span_in_context(api.NonRecordingSpan(parent))
        made = self._tracer.start_span(
            span.name,
            context=context,
            kind=api.SpanKind[span.kind],
            attributes=dict(span.attributes),
            start_time=span.began,
        )
        if span.error is not None:
            made.set_status(api.Status(api.StatusCode.ERROR, span.error))
        made.end(max(span.began, span.ended))

    def close(self) -> None:
        """Send what is left; waits a moment at most."""
        self._provider.shutdown()


class _Ids:
    """OpenTelemetry's `IdGenerator` for spans whose ids are known."""

    trace_id: str
    span_id: str | None = None

    def generate_span_id(self) -> int:
        """Return the id of the span that is being made."""
        return int(self.span_id or os.urandom(8).hex(), 16)

    def generate_trace_id(self) -> int:
        """Return the trace of the span that is being made."""
        return int(self.trace_id, 16)

    def is_trace_id_random(self) -> bool:
        """Keep OpenTelemetry from claiming that trace ids are random: some are computed."""
        return False


def is_installed() -> bool:
    """True if the extra `otel` is there."""
    return find_spec("opentelemetry") is not None and find_spec("opentelemetry.sdk") is not None


def make_tracing(settings: Settings, service: str) -> Tracing:
    """What records spans under the name `service`: nothing, unless an endpoint is set and the extra is installed."""
    if settings.otel_exporter_otlp_endpoint is None or not is_installed():
        return Tracing()
    return OtelTracing(settings.otel_exporter_otlp_endpoint, service)
