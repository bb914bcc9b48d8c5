"""A test webhook: one of Chatwoot's documented payloads, signed as Chatwoot signs, posted to a running relay.

It carries `X-Forwarded-From: chatwoot-test` (RUNBOOK, Manual Webhook Test), so that its facts are marked and
count for no rate and no alert.
"""

from __future__ import annotations

import asyncio
import time
from importlib import resources
from typing import TYPE_CHECKING, Any

import httpx

from relay.errors import RelayError
from relay.headers import FORWARDED_FROM_HEADER
from relay.outcome import failure_of
from relay.receive import TEST_SENDER
from relay.settings import WEBHOOK_PATH, without_credentials
from relay.signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

if TYPE_CHECKING:
    from relay.settings import Settings

EVENTS = ("message_created", "message_updated", "conversation_status_changed", "webwidget_triggered")
_BEYOND_DEADLINE_S = 30


async def post_test(settings: Settings, event: str, delivery_id: str) -> tuple[int, Any, int]:
    """Post one of `EVENTS` as a test; returns status, JSON answer and duration in ms.

    Two tests that are signed within one second have one signature, and the second is answered as a duplicate of the
    first: it is then signed and posted again.

    Raises:
        RelayError: no relay answers there.
    """
    while True:
        status, answer, took_ms = await _post(settings, event, delivery_id)
        if not (isinstance(answer, dict) and answer.get("duplicate") and answer.get("delivery_id") != delivery_id):
            return status, answer, took_ms
        await asyncio.sleep(1 - time.time() % 1)


async def _post(settings: Settings, event: str, delivery_id: str) -> tuple[int, Any, int]:
    body = (resources.files("relay.demo") / "payloads" / f"{event}.json").read_bytes()
    headers = {
        "content-type": "application/json",
        FORWARDED_FROM_HEADER: TEST_SENDER,
        DELIVERY_HEADER: delivery_id,
    }
    if settings.secrets:
        timestamp = str(int(time.time()))
        headers |= {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: sign(settings.secrets[0], timestamp, body)}
    target = settings.own_url + WEBHOOK_PATH
    patience_s = settings.chatwoot_webhook_response_deadline_ms / 1000 + _BEYOND_DEADLINE_S
    began = time.perf_counter()
    try:
        async with httpx.AsyncClient(timeout=patience_s) as client:
            response = await client.post(target, content=body, headers=headers)
    except httpx.HTTPError as error:
        raise RelayError(
            f"No relay answers at {without_credentials(target)} ({failure_of(error)}); "
            "start one with `relay serve`, or set RELAY_URL"
        ) from error
    took_ms = round((time.perf_counter() - began) * 1000)
    try:
        return response.status_code, response.json(), took_ms
    except (ValueError, RecursionError):  # no JSON, or not even text
        return response.status_code, response.text[:500], took_ms
