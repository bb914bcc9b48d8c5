"""Traces: every attempt carries the delivery's, and with a collector relay and agent are one trace."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp import web
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from relay.domain.trace import parse_traceparent
from tests.agent.conftest import customer, of_chatwoot, start_agent
from tests.servers import AT_ONCE_S, AgentStandIn, Behaviour, Rows, RunningRelay, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.agent.conftest import RunningAgent

    StartRelay = Callable[..., Awaitable[RunningRelay]]

__all__ = ["start_agent"]
SENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PAYLOAD = {"event": "message_created", "id": 9, "content": "a customer's words", "conversation": {"id": 7}}
needs_otel = pytest.mark.skipif(find_spec("opentelemetry") is None, reason="the extra otel is not installed")


async def test_every_attempt_carries_the_deliverys_trace(relay: RunningRelay, agent: AgentStandIn) -> None:
    agent.behave(Behaviour(status=503, times=1))
    await relay.post(PAYLOAD, traceparent=SENT)
    agent.behave(Behaviour(status=503, times=1))
    await relay.post(PAYLOAD, traceparent="00-" + "0" * 32 + "-00f067aa0ba902b7-01")
    sent = [seen.headers["traceparent"] for seen in agent.seen]
    assert sent[:2] == [SENT, SENT], "nothing is recorded here, so the sender stays the agent's parent"
    assert sent[2] == sent[3] != SENT
    assert parse_traceparent(sent[2]) is not None


class Collector:
    """An OpenTelemetry collector: keeps the spans that it is sent over HTTP, as `(service, span)`."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []

    async def start(self) -> str:
        app = web.Application()
        app.router.add_post("/v1/traces", self._traces)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def _traces(self, request: web.Request) -> web.Response:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as wire  # noqa: PLC0415 - an extra

        message = wire.ExportTraceServiceRequest.FromString(await request.read())
        for resource in message.resource_spans:
            names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.spans += [(names["service.name"], span) for scope in resource.scope_spans for span in scope.spans]
        return web.Response(body=wire.ExportTraceServiceResponse().SerializeToString())


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    """A collector and its endpoint."""
    made = Collector()
    yield made, await made.start()
    await made.runner.cleanup()


@needs_otel
async def test_relay_and_agent_are_one_trace(
    start_relay: StartRelay,
    start_agent: Callable[..., Awaitable[RunningAgent]],
    chatwoot: ChatwootStandIn,
    agent: AgentStandIn,
    collector: tuple[Collector, str],
) -> None:
    kept, endpoint = collector
    reference = await start_agent(**of_chatwoot(chatwoot), otel_exporter_otlp_endpoint=endpoint)
    agent.upstream = reference.url
    agent.behave(Behaviour(status=503, times=1, error="a customer's words"))
    relay = await start_relay(otel_exporter_otlp_endpoint=endpoint)
    await relay.post(customer(chatwoot, "a customer's words"), traceparent=SENT)
    names = {"receive", "store", "wait", "attempt", "finish", "draft"}
    await until(lambda: {span.name for _, span in kept.spans} >= names, what="every kind of span")
    assert {span.trace_id.hex() for _, span in kept.spans} == {SENT[3:35]}
    spans = {span.name: span for _, span in kept.spans}
    attempts = sorted((s for _, s in kept.spans if s.name == "attempt"), key=lambda s: s.start_time_unix_nano)
    receipt = spans["receive"]
    assert receipt.parent_span_id.hex() == SENT[36:52]
    assert {spans[name].parent_span_id for name in ("store", "wait", "finish")} == {receipt.span_id}
    assert [span.parent_span_id for span in attempts] == [receipt.span_id] * 2
    assert spans["draft"].parent_span_id == attempts[1].span_id, "the agent continues the attempt that reached it"
    assert {service for service, span in kept.spans if span.name == "draft"} == {"hotdash-agent"}
    assert [span.status.code for span in attempts] == [2, 0]
    assert all(receipt.start_time_unix_nano <= span.start_time_unix_nano for span in attempts)
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for _, span in kept.spans)
    assert not any("customer's words" in str(span) for _, span in kept.spans)
    answer = await relay.client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    with_trace = {
        sample.name
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.exemplar is not None and sample.exemplar.labels == {"trace_id": SENT[3:35]}
    }
    assert with_trace == {
        "relay_attempt_seconds_bucket", "relay_forwarding_seconds_bucket", "relay_delivery_seconds_bucket"
    }  # fmt: skip
    assert SENT[3:35] not in (await relay.client.get("/metrics")).text, "Prometheus' own format has no exemplars"


@needs_otel
async def test_the_waits_of_a_hold_and_of_the_breaker_are_spans_and_each_probe_has_its_own(
    start_relay: StartRelay, agent: AgentStandIn, rows: Rows, collector: tuple[Collector, str]
) -> None:
    kept, endpoint = collector
    relay = await start_relay(otel_exporter_otlp_endpoint=endpoint, relay_breaker="on")
    rows("SELECT relay.hold('maria', 'a deployment', NULL)")
    await until(lambda: "Forwarding held" in relay.output or rows("SELECT 1 FROM relay.gate WHERE held"))
    agent.behave(Behaviour(status=503, retry_after="2", times=1), Behaviour(status=503, times=1), Behaviour())
    answer = await relay.post(PAYLOAD, traceparent=SENT)
    assert answer.json()["waiting"] == "hold"
    rows("SELECT relay.release('maria', NULL)")
    waits_for_probe = "SELECT 1 FROM relay.breaker WHERE probe_at > now()"
    for probes in (0, 1):
        await until(lambda probes=probes: len(agent.seen) > probes and rows(waits_for_probe))
        rows("UPDATE relay.breaker SET probe_at = now()")
    await until(lambda: [span.name for _, span in kept.spans].count("finish") == 3, what="the run ended")
    attempts = sorted((s for _, s in kept.spans if s.name == "attempt"), key=lambda s: s.start_time_unix_nano)
    assert [span.span_id.hex() for span in attempts] == [seen.headers["traceparent"][36:52] for seen in agent.seen]
    assert len({span.span_id for span in attempts}) == 3
    reasons = [
        attribute.value.string_value
        for span in sorted((s for _, s in kept.spans if s.name == "wait"), key=lambda s: s.end_time_unix_nano)
        for attribute in span.attributes
        if attribute.key == "wait.reason"
    ]
    assert reasons == ["hold", "breaker", "breaker"]
    assert {span.trace_id.hex() for _, span in kept.spans} == {SENT[3:35]}


@needs_otel
async def test_a_collector_that_is_away_delays_nothing(start_relay: StartRelay) -> None:
    relay = await start_relay(otel_exporter_otlp_endpoint="http://127.0.0.1:9")
    async with asyncio.timeout(AT_ONCE_S):
        answers = await asyncio.gather(*(relay.post(PAYLOAD | {"n": n}) for n in range(20)))
    assert {answer.status_code for answer in answers} == {200}
