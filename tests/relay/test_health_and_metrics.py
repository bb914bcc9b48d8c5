"""`GET /health` and `GET /metrics` (DESIGN 2): true figures for load balancers and Prometheus, no customer's data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay import __version__
from tests.relay.wire import BluntAgent
from tests.servers import AgentStandIn, Behaviour, RunningRelay, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn

    StartRelay = Callable[..., Awaitable[RunningRelay]]

CUSTOMERS = ["Jane Marker", "jane@marker.example", "my secret question", "conv-8842", "delivery-8842"]
PAYLOAD = {
    "event": "message_created", "id": 9, "message_type": "incoming", "content": "my secret question",
    "sender": {"name": "Jane Marker", "email": "jane@marker.example"}, "conversation": {"id": "conv-8842"},
}  # fmt: skip

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def health_of(relay: RunningRelay) -> tuple[int, dict[str, Any]]:
    """Status and body of the health check."""
    answer = await relay.client.get("/health")
    return answer.status_code, answer.json()


async def samples_of(relay: RunningRelay) -> Samples:
    """What Prometheus reads, by name and labels (the worker's left out)."""
    answer = await relay.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted((k, v) for k, v in sample.labels.items() if k != "worker"))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_a_relay_that_can_serve_and_store_is_healthy(relay: RunningRelay) -> None:
    status, health = await health_of(relay)
    assert (status, health["status"], health["version"], health["database"]["ok"]) == (200, "ok", __version__, True)
    assert (health["in_flight"], health["signed"]) == (0, False)


async def test_health_reports_agent_and_chatwoot_as_last_probed(
    start_relay: StartRelay, agent: AgentStandIn, chatwoot: ChatwootStandIn
) -> None:
    agent.healthy = False
    relay = await start_relay(
        chatwoot_base_url=chatwoot.url, chatwoot_api_key=chatwoot.api_key, chatwoot_account_id=chatwoot.account_id,
        chatwoot_webhook_secret="s3cret",
    )  # fmt: skip

    async def probed() -> dict[str, Any] | None:
        _, health = await health_of(relay)
        return health if health["agent"] and health["chatwoot"] and health["chatwoot_api"] else None

    health = await until(probed)
    assert (health["agent"]["ok"], health["agent"]["status"]) == (False, "503")
    assert (health["chatwoot"]["ok"], health["chatwoot_api"]["ok"]) == (True, True)
    assert health["signed"] is True
    assert health["status"] == "ok", "the relay itself can serve and store"


async def test_a_relay_without_a_free_slot_is_healthy_since_it_stores(start_relay: StartRelay) -> None:
    async with BluntAgent(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", held=True) as agent:
        relay = await start_relay(agent=agent.url, relay_max_in_flight=1, relay_respond="stored")
        await relay.post(PAYLOAD)
        status, health = await health_of(relay)
        assert (status, health["status"], health["in_flight"]) == (200, "ok", 1)
        agent.may_answer.set()
        await relay.ready()


async def test_metrics_count_what_happened(relay: RunningRelay, agent: AgentStandIn) -> None:
    agent.behave(Behaviour(status=503, times=1), Behaviour(times=1), Behaviour(status=422, times=1))
    known = str(uuid4())
    for delivery_id in (known, str(uuid4()), known):
        await relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id)
    await relay.post(b"[]")
    samples = await samples_of(relay)
    assert samples["relay_webhooks_received_total", ()] == 2
    assert samples["relay_webhooks_duplicates_total", ()] == 1
    assert samples["relay_deliveries_total", (("state", "delivered"),)] == 1
    assert samples["relay_deliveries_total", (("state", "dead"),)] == 1
    attempts = {labels: value for (name, labels), value in samples.items() if name == "relay_attempts_total"}
    assert attempts == {(("status", "503"),): 1, (("status", "200"),): 1, (("status", "422"),): 1}
    assert samples["relay_webhooks_rejected_total", (("reason", "not_an_object"),)] == 1
    assert samples["relay_forwarding_seconds_count", ()] == 2
    assert samples["relay_forwarding_seconds_bucket", (("le", "+Inf"),)] == 2
    assert samples["relay_database_up", ()] == 1
    assert samples["relay_dead_letters_open", ()] == 1
    assert samples["relay_success_ratio", (("window", "1h"),)] == 0.5
    assert samples["relay_attempts_average", (("window", "1h"),)] == 1.5
    assert samples["relay_in_flight", ()] == 0


async def test_metrics_say_which_alerts_fire(relay: RunningRelay, agent: AgentStandIn) -> None:
    before = await samples_of(relay)
    agent.behave(Behaviour(status=422))
    for _ in range(6):
        await relay.post(PAYLOAD)
    after = await samples_of(relay)
    firing = [("relay_alerts_firing", (("severity", severity),)) for severity in ("P0", "Critical", "Warning", "P2")]
    assert [before[key] for key in firing] == [0, 0, 0, 0]
    assert [after[key] for key in firing] == [0, 1, 1, 0]
    assert after["relay_alert_firing", (("rule", "success-rate-critical"), ("severity", "Critical"))] == 1


@pytest.mark.parametrize("status", [200, 422])
async def test_neither_holds_a_customers_data(relay: RunningRelay, agent: AgentStandIn, status: int) -> None:
    agent.behave(Behaviour(status=status))
    await relay.post(PAYLOAD, X_Chatwoot_Delivery="delivery-8842")
    await relay.post(json.dumps(PAYLOAD).encode()[:-1])
    for path in ("/health", "/metrics"):
        text = (await relay.client.get(path)).text
        assert "relay" in text or "ok" in text
        assert [word for word in CUSTOMERS if word in text] == []


@pytest.mark.parametrize("path", ["/health", "/metrics"])
async def test_they_can_only_be_asked(relay: RunningRelay, path: str) -> None:
    assert (await relay.client.post(path)).status_code == 405
