"""A test webhook: one of Chatwoot's documented payloads, signed as Chatwoot signs, posted to a running relay.

It carries `X-Forwarded-From: chatwoot-test` (RUNBOOK, Manual Webhook Test), so that its facts are marked and
count for no rate and no alert, and so that the Agent SDK recognises a test. Only a test webhook for a
conversation that is named asks the agent to post what it drafts.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import httpx

from relay import http_client
from relay.chatwoot.samples import DEMO_EVENTS, EVENTS, documented_body, documented_payload
from relay.chatwoot.signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from relay.domain.headers import FORWARDED_FROM_HEADER, POST_TEST, TEST_HEADER, TEST_SENDER
from relay.domain.retry import failure_of
from relay.errors import RelayError
from relay.settings import WEBHOOK_PATH, without_credentials

if TYPE_CHECKING:
    from relay.settings import Settings

EVENTS_OF_CONVERSATIONS = DEMO_EVENTS

_BEYOND_DEADLINE_S = 30


def what_the_agent_does(event: str, conversation: int | None) -> str:
    """What becomes of a test webhook at the Agent SDK, in a sentence."""
    if conversation is None:
        return "The agent receives this as a test: it drafts a reply and posts no note in Chatwoot."
    if event != EVENTS[0]:
        return (
            f"The agent may act in conversation {conversation}; the reference agent posts notes for {EVENTS[0]} only."
        )
    return f"The agent is asked to post: a private note will appear in conversation {conversation} in Chatwoot."


def sample(event: str, conversation: int | None, account_id: int | None = None) -> bytes:
    """The documented payload of `event`, byte for byte; or moved to another `conversation`, then encoded anew.

    With `account_id` it is moved to that account too: the agent acts in its own account alone.
    """
    if conversation is None:
        return documented_body(event)
    payload = documented_payload(event)
    if isinstance(payload.get("conversation"), dict):
        payload["conversation"]["id"] = conversation
    else:
        payload["id"] = conversation
    if account_id is not None and isinstance(payload.get("account"), dict):
        payload["account"]["id"] = account_id
    return json.dumps(payload, ensure_ascii=False).encode()


async def post_test(
    settings: Settings, event: str, delivery_id: str, *, conversation: int | None = None
) -> tuple[int, Any, int]:
    """Post one of `EVENTS` as a test; returns status, JSON answer and duration in ms.

    With a `conversation` it is one of `EVENTS_OF_CONVERSATIONS` for that conversation, and asks the agent to post. Two
    tests that are signed within one second have one signature, and the second is answered as a duplicate of the
    first: it is then signed and posted again.

    Raises:
        RelayError: no relay answers there.
    """
    while True:
        status, answer, took_ms = await _post(settings, event, delivery_id, conversation)
        if not (isinstance(answer, dict) and answer.get("duplicate") and answer.get("delivery_id") != delivery_id):
            return status, answer, took_ms
        await asyncio.sleep(1 - time.time() % 1)


async def _post(settings: Settings, event: str, delivery_id: str, conversation: int | None) -> tuple[int, Any, int]:
    body = sample(event, conversation, settings.chatwoot_account_id)
    headers = {
        "content-type": "application/json",
        FORWARDED_FROM_HEADER: TEST_SENDER,
        DELIVERY_HEADER: delivery_id,
    }
    if conversation is not None:
        headers[TEST_HEADER] = POST_TEST
    if settings.secrets:
        timestamp = str(int(time.time()))
        headers |= {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: sign(settings.secrets[0], timestamp, body)}
    target = settings.own_url + WEBHOOK_PATH
    patience_s = settings.chatwoot_webhook_response_deadline_ms / 1000 + _BEYOND_DEADLINE_S
    began = time.perf_counter()
    try:
        async with http_client.client(timeout=patience_s) as client:
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


__all__ = ["EVENTS", "EVENTS_OF_CONVERSATIONS", "post_test", "sample", "what_the_agent_does"]
