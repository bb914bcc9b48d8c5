"""A delivery that comes again within a minute of its death is one incident; the agent's reason is part of the cause."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from relay.domain.retry import with_agents_error
from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.servers import HeldAgent, Rows, RunningRelay

    StartRelay = Callable[..., Awaitable[RunningRelay]]

MESSAGE: dict[str, Any] = {"event": "message_created", "id": 1, "content": "Hi", "conversation": {"id": 7}}
EARLIER = "UPDATE relay.deliveries SET finished_at = finished_at - interval '70 seconds'"


async def test_what_an_agent_bot_sends_three_times_is_one_dead_letter(
    start_relay: StartRelay, agent: HeldAgent, chatwoot: ChatwootStandIn, rows: Rows
) -> None:
    relay = await start_relay(chatwoot_webhook_response_deadline_ms=60_000)
    agent.behave(Behaviour(status=503))
    chatwoot.sender.bot_pause_s = 0
    chatwoot.webhook_url = f"{relay.url}/api/webhooks/chatwoot"
    chatwoot.bot_secret = b""
    message = chatwoot.add_message(7, "hi")
    for _ in range(3):
        sent = await chatwoot.post(chatwoot.payload_of(message), delivery_id="the-same")
        assert sent.status == 500
    assert len(agent.seen) == 9
    assert len(rows.facts("support.webhook.dead_letter")) == 1
    assert len(rows.facts("support.webhook.retry")) == 3
    assert rows("SELECT state, run FROM relay.deliveries") == [("dead", 3)]
    rows(EARLIER)
    await chatwoot.post(chatwoot.payload_of(message), delivery_id="the-same")
    assert len(rows.facts("support.webhook.dead_letter")) == 2


async def test_a_redelivery_that_waits_long_before_it_dies_is_no_second_incident_either(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows
) -> None:
    relay = await start_relay(
        chatwoot_webhook_max_attempts=2, chatwoot_webhook_max_delay_ms=3_600_000,
        chatwoot_webhook_response_deadline_ms=60_000,
    )  # fmt: skip
    agent.behave(Behaviour(status=503))
    assert (await relay.post(MESSAGE, x_chatwoot_delivery="the-same")).status_code == 500
    agent.behave(Behaviour(status=429, retry_after="600", times=1), Behaviour(status=503))
    again = asyncio.create_task(relay.post(MESSAGE, x_chatwoot_delivery="the-same"))
    await until(lambda: rows("SELECT state FROM relay.deliveries") == ["waiting"])
    rows("UPDATE relay.attempts SET started_at = started_at - interval '600 seconds'")
    rows("UPDATE relay.deliveries SET next_attempt_at = now()")
    assert (await again).status_code == 500
    assert rows("SELECT state, run FROM relay.deliveries") == [("dead", 2)]
    assert len(rows.facts("support.webhook.dead_letter")) == 1


async def test_the_guarded_statement_leaves_no_second_dead_letter_either(
    start_relay: StartRelay, agent: HeldAgent, rows: Rows
) -> None:
    relay = await start_relay(chatwoot_webhook_response_deadline_ms=60_000)
    agent.behave(Behaviour(status=422))
    await rows.change("ALTER TABLE dashboard_facts ADD CONSTRAINT ours CHECK (scope = 'app') NOT VALID")
    for _ in range(2):
        assert (await relay.post(MESSAGE, x_chatwoot_delivery="the-same")).status_code == 500
    aside = "SELECT count(*) FROM relay.facts_aside WHERE fact_type = 'support.webhook.dead_letter'"
    assert rows(aside) == [1]


async def test_the_agents_own_reason_separates_causes(start_relay: StartRelay, agent: HeldAgent, rows: Rows) -> None:
    relay = await start_relay(chatwoot_webhook_max_attempts=1)
    reasons = ("Chatwoot answered 401", "Model answered 400", "Chatwoot answered 401.", None)
    for number, reason in enumerate(reasons):
        agent.behave(Behaviour(status=502, error=reason))
        await relay.post(MESSAGE | {"id": number})
    counted = rows("SELECT last_error, count(*) FROM relay.deliveries GROUP BY 1 ORDER BY 1")
    assert counted == [
        ("Agent SDK answered 502", 1),
        ("Agent SDK answered 502: Chatwoot answered 401", 2),
        ("Agent SDK answered 502: Model answered 400", 1),
    ]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'{"error": "conversation 4711 is gone"}', "E: conversation … is gone"),
        (b'{"error": "request 1f0c3c1e-7f2e-4c55-9d0a-3d1f4e5a6b7c at 2026-11-27T04:00:00Z"}', "E: request … at …"),
        (b'{"error": "two\\nlines  here."}', "E: two lines here"),
        (b'{"error": "HTTP 429 after 3 tries"}', "E: HTTP 429 after 3 tries"),
        (b'{"error": {"code": 1}}', "E"),
        (b'{"error": ""}', "E"),
        (b'{"error": "' + b"x" * 500 + b'"}', "E: " + "x" * 160 + "…"),
        (b"<html>", "E"),
        (b'{"error', "E"),
    ],
)
def test_only_a_short_reason_that_groups_is_taken(answer: bytes, error: str) -> None:
    assert with_agents_error("E", answer) == error
    assert with_agents_error(None, answer) is None
