"""The forwarding log: the runbook's lines on stdout, JSON for collectors, rows for the live tail, and no secrets."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from relay.chatwoot.signature import sign
from relay.settings import WEBHOOK_PATH
from relay.store.log import CHANNEL
from tests.servers import PATIENCE_S, AgentStandIn, Behaviour, free_port, program, until, wait_until_healthy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Rows, RunningRelay

SECRET = "hunter2-secret"
CUSTOMERS = "My-card-is-stolen"
PAYLOAD = {"event": "message_created", "content": CUSTOMERS, "conversation": {"id": 77}, "sender": {"name": CUSTOMERS}}


@dataclass
class RelayOutput:
    """What a relay process printed, and the ids of the deliveries that it logged."""

    text: str
    endpoint: str
    ids: dict[str, str]
    signatures: list[str]


async def run_relay(folder: Path, dsn: str, agent: AgentStandIn, *options: str) -> RelayOutput:
    """Let a relay process deliver, retry, dead-letter, recognise and refuse webhooks, in this order; then end it."""
    port, ids, signatures = free_port(), {name: str(uuid4()) for name in ("delivered", "retried", "dead")}, []
    env = {
        "DATABASE_URL": dsn, "AGENT_SDK_URL": agent.url.replace("//", f"//user:{SECRET}@"), "CHATWOOT_API_KEY": SECRET,
        "CHATWOOT_WEBHOOK_SECRET": SECRET, "CHATWOOT_WEBHOOK_BASE_DELAY_MS": "1", "CHATWOOT_WEBHOOK_MAX_ATTEMPTS": "2",
        "RELAY_BIND": f"127.0.0.1:{port}", "RELAY_PROBE_SECONDS": "3600",
    }  # fmt: skip

    async def post(delivery_id: str, secret: str = SECRET, body: bytes = b"") -> int:
        body = body or json.dumps(PAYLOAD | {"named": delivery_id}).encode()  # a signature of its own
        timestamp = str(int(time.time()))
        signatures.append(sign(secret.encode(), timestamp, body))
        headers = {
            "x-chatwoot-delivery": delivery_id, "x-chatwoot-timestamp": timestamp,
            "x-chatwoot-signature": signatures[-1], "authorization": f"Bearer {SECRET}",
        }  # fmt: skip
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            return (await client.post(WEBHOOK_PATH, content=body, headers=headers)).status_code

    with (folder / "output").open("w+", encoding="utf-8") as output:
        with program("-m", "relay", "serve", *options, env=env, out=output):
            await asyncio.to_thread(wait_until_healthy, port)
            assert await post(ids["delivered"]) == 200
            agent.behave(Behaviour(status=503, times=1, error=CUSTOMERS))
            assert await post(ids["retried"]) == 200
            agent.behave(Behaviour(status=503, retry_after=CUSTOMERS, error=CUSTOMERS))
            assert await post(ids["dead"]) == 500
            assert await post(ids["delivered"]) == 200
            assert await post("refused", secret="another") == 401
            assert await post("refused", body=CUSTOMERS.encode()) == 400
        output.seek(0)
        return RelayOutput(output.read(), f"{agent.url}/webhooks/chatwoot", ids, signatures)


async def test_stdout_has_the_runbooks_lines(tmp_path: Path, dsn: str, agent: AgentStandIn) -> None:
    printed = await run_relay(tmp_path, dsn, agent)
    lines = [line for line in printed.text.splitlines() if "[support.webhook]" in line]
    shown = [re.sub(r"(duration|retryIn): \d+", r"\1: N", line.partition("[support.webhook] ")[2]) for line in lines]
    at, error = f"agentEndpoint: '{printed.endpoint}'", "error: 'Agent SDK answered 503'"
    reference = f"deliveryId: '{printed.ids['dead']}'"
    assert shown == [
        f"Forwarding Chatwoot webhook {{ attempt: 1, {at} }}",
        "Webhook forwarded successfully { duration: N, attempts: 1 }",
        f"Forwarding Chatwoot webhook {{ attempt: 1, {at} }}",
        "Webhook attempt failed, retrying { attempt: 1, status: '503', duration: N, retryIn: N }",
        f"Forwarding Chatwoot webhook {{ attempt: 2, {at} }}",
        "Webhook forwarded successfully { duration: N, attempts: 2 }",
        f"Forwarding Chatwoot webhook {{ attempt: 1, {at} }}",
        "Webhook attempt failed, retrying { attempt: 1, status: '503', duration: N, retryIn: N }",
        f"Forwarding Chatwoot webhook {{ attempt: 2, {at} }}",
        f"Webhook failed, dead-lettered {{ attempts: 2, finalStatus: '503', {error}, duration: N, {reference} }}",
        "Duplicate webhook, not forwarded { state: 'delivered' }",
        "Webhook rejected { reason: 'invalid_signature', status: 401, client: '127.0.0.1' }",
        "Webhook rejected { reason: 'invalid_json', status: 400, client: '127.0.0.1' }",
    ]


async def test_json_lines_hold_the_same_with_the_delivery_of_each(
    tmp_path: Path, dsn: str, agent: AgentStandIn
) -> None:
    printed = await run_relay(tmp_path, dsn, agent, "--log-format", "json")
    lines = [json.loads(line) for line in printed.text.splitlines()]
    assert all(line.keys() >= {"at", "level", "scope", "message"} for line in lines)
    retried = [line for line in lines if line.get("deliveryId") == printed.ids["retried"]]
    assert [(line["level"], line["message"]) for line in retried] == [
        ("info", "Forwarding Chatwoot webhook"),
        ("warning", "Webhook attempt failed, retrying"),
        ("info", "Forwarding Chatwoot webhook"),
        ("info", "Webhook forwarded successfully"),
    ]
    assert (retried[1]["status"], retried[1]["attempt"]) == ("503", 1)
    assert retried[3]["attempts"] == 2
    (dead,) = [line for line in lines if line["level"] == "error"]
    assert (dead["deliveryId"], dead["finalStatus"]) == (printed.ids["dead"], "503")


@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_secret_signature_or_customers_text_is_logged(
    tmp_path: Path, dsn: str, rows: Rows, agent: AgentStandIn, form: str
) -> None:
    printed = await run_relay(tmp_path, dsn, agent, "--log-format", form)
    everything = printed.text + json.dumps(rows("SELECT to_jsonb(l) FROM relay.log l"))
    assert printed.ids["dead"] in everything
    assert [secret for secret in (SECRET, CUSTOMERS, *printed.signatures) if secret in everything] == []


async def test_a_higher_level_leaves_out_what_is_below_it(tmp_path: Path, dsn: str, agent: AgentStandIn) -> None:
    printed = await run_relay(tmp_path, dsn, agent, "--log-level", "error")
    (line,) = printed.text.splitlines()
    assert f"ERROR {printed.ids['dead']} [support.webhook] Webhook failed, dead-lettered {{" in line


async def test_the_live_tail_holds_every_line_in_order(relay: RunningRelay, agent: AgentStandIn, rows: Rows) -> None:
    agent.behave(Behaviour(status=503, times=1))
    delivery_id = (await relay.post(PAYLOAD)).json()["delivery_id"]

    def tail() -> list[Any]:
        return rows(
            "SELECT level, scope, message, fields FROM relay.log WHERE delivery_id = %s ORDER BY id", (delivery_id,)
        )

    await until(lambda: len(tail()) == 4)
    assert [(level, message) for level, _, message, _ in tail()] == [
        ("info", "Forwarding Chatwoot webhook"),
        ("warning", "Webhook attempt failed, retrying"),
        ("info", "Forwarding Chatwoot webhook"),
        ("info", "Webhook forwarded successfully"),
    ]
    assert {scope for _, scope, _, _ in tail()} == {"support.webhook"}
    assert tail()[0][3] == {"attempt": 1, "agentEndpoint": f"{agent.url}/webhooks/chatwoot"}


async def test_a_batch_of_lines_is_one_notification(relay: RunningRelay, dsn: str, rows: Rows) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listener:
        await listener.execute(f"LISTEN {CHANNEL}")
        await asyncio.gather(*(relay.post(PAYLOAD) for _ in range(60)))
        notified: list[int] = []
        async for notification in listener.notifies(timeout=PATIENCE_S):
            notified.append(int(notification.payload))
            if rows.one("SELECT count(*) >= 120 AND max(id) = %s FROM relay.log", (notified[-1],)):
                break
    batches = rows("SELECT max(id) FROM relay.log GROUP BY xmin::text ORDER BY 1")
    assert notified == batches[: len(notified)]
    assert len(batches) < rows.one("SELECT count(*) FROM relay.log")
