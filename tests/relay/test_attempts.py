"""How a delivery is attempted: the waits between attempts, what the agent is sent, and that nothing the sender does
afterwards stops it."""

from __future__ import annotations

import asyncio
import gc
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx
import pytest

from relay.chatwoot.signature import sign
from tests.relay.traces import deliveries, seen_of, trace
from tests.relay.wire import BluntAgent, wire_to
from tests.servers import Behaviour, HeldAgent, Rows, RunningRelay, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    StartRelay = Callable[..., Awaitable[RunningRelay]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAYLOAD = {"event": "message_created", "id": 9, "conversation": {"id": 77}}
BODY = b'{ "event":"message_created",\t"content":"caf\\u00e9 \\ud83d\\ude00 \xe2\x82\xac", "n": 1.50, "n": 1e400 }\r\n'
EARLY_S = 0.005  # how much too early a timer may fire


async def attempted(relay: RunningRelay, rows: Rows, **headers: str) -> tuple[str, list[int]]:
    """Post a webhook; its delivery id, and the waits before each attempt as the attempts table has them, in ms."""
    delivery_id = str(uuid4())
    await relay.post(PAYLOAD, X_Chatwoot_Delivery=delivery_id, **headers)
    return delivery_id, [tried.wait_ms for tried in trace(rows, delivery_id).tried]


async def test_by_default_the_second_attempt_waits_200_ms_and_the_third_400(
    start_one: StartRelay, shared_agent: HeldAgent, shared_rows: Rows
) -> None:
    relay = await start_one(chatwoot_webhook_base_delay_ms=None)
    shared_agent.behave(Behaviour(status=503))
    delivery_id, waits_ms = await attempted(relay, shared_rows)
    assert waits_ms == [0, 200, 400]
    first, second, third = (seen.at.timestamp() for seen in seen_of(shared_agent, delivery_id))
    assert second - first >= 0.2 - EARLY_S
    assert third - second >= 0.4 - EARLY_S
    assert trace(shared_rows, delivery_id).retries[0][0]["durationMs"] >= 600 - 2_000 * EARLY_S


async def test_base_delay_and_factor_can_be_set(
    start_one: StartRelay, shared_agent: HeldAgent, shared_rows: Rows
) -> None:
    relay = await start_one(
        chatwoot_webhook_base_delay_ms=20, chatwoot_webhook_backoff_factor=3, chatwoot_webhook_max_attempts=4,
        chatwoot_webhook_max_delay_ms=100,
    )  # fmt: skip
    shared_agent.behave(Behaviour(status=500))
    _, waits_ms = await attempted(relay, shared_rows)
    assert waits_ms == [0, 20, 60, 100]


async def test_jitter_spreads_the_waits_within_its_share(
    start_one: StartRelay, shared_agent: HeldAgent, shared_rows: Rows
) -> None:
    relay = await start_one(
        chatwoot_webhook_base_delay_ms=40, chatwoot_webhook_backoff_factor=1, chatwoot_webhook_jitter=0.5,
        chatwoot_webhook_max_attempts=8,
    )  # fmt: skip
    shared_agent.behave(Behaviour(status=500))
    _, waits_ms = await attempted(relay, shared_rows)
    assert waits_ms[0] == 0
    assert all(20 <= wait_ms <= 60 for wait_ms in waits_ms[1:])
    assert len(set(waits_ms[1:])) > 1


async def test_a_retry_after_in_seconds_is_waited_for(
    start_one: StartRelay, shared_agent: HeldAgent, shared_rows: Rows
) -> None:
    relay = await start_one(chatwoot_webhook_max_attempts=2)
    shared_agent.behave(Behaviour(status=503, retry_after="1"))
    delivery_id, waits_ms = await attempted(relay, shared_rows)
    assert waits_ms == [0, 1_000]
    first, second = (seen.at.timestamp() for seen in seen_of(shared_agent, delivery_id))
    assert second - first >= 1 - EARLY_S


def _date_in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT")


async def test_a_retry_after_that_is_a_date_is_waited_for_from_the_answer_on(
    start_one: StartRelay, shared_agent: HeldAgent, shared_rows: Rows
) -> None:
    relay = await start_one(chatwoot_webhook_max_attempts=2)
    shared_agent.behave(Behaviour(status=503, retry_after=_date_in(3), delay_ms=1_500, times=1))
    _, waits_ms = await attempted(relay, shared_rows)
    assert waits_ms[1] <= 1_500


@pytest.mark.parametrize("asked", ["3600", _date_in(3_600)], ids=["seconds", "date"])
async def test_a_retry_after_is_waited_for_up_to_the_longest_delay(
    start_one: StartRelay, shared_agent: HeldAgent, shared_rows: Rows, asked: str
) -> None:
    relay = await start_one(chatwoot_webhook_max_delay_ms=150)
    shared_agent.behave(Behaviour(status=429, retry_after=asked))
    _, waits_ms = await attempted(relay, shared_rows)
    assert waits_ms == [0, 150, 150]


@pytest.mark.parametrize("asked", ["0", "Mon, 23 Nov 2020 14:02:00 GMT", "soon", "-5"])
async def test_a_retry_after_that_asks_for_less_or_nothing_leaves_the_waits_as_they_are(
    start_one: StartRelay, shared_agent: HeldAgent, shared_rows: Rows, asked: str
) -> None:
    relay = await start_one(chatwoot_webhook_base_delay_ms=30)
    shared_agent.behave(Behaviour(status=429, retry_after=asked))
    _, waits_ms = await attempted(relay, shared_rows)
    assert waits_ms == [0, 30, 60]


async def test_the_agent_can_recognise_every_attempt(
    shared_relay: RunningRelay, shared_agent: HeldAgent, shared_rows: Rows
) -> None:
    shared_agent.behave(Behaviour(status=503))
    delivery_id, _ = await attempted(shared_relay, shared_rows)
    headers = [seen.headers for seen in seen_of(shared_agent, delivery_id)]
    assert [h["x-relay-attempt"] for h in headers] == ["1", "2", "3"]
    for sent in headers:
        assert sent["x-chatwoot-delivery"] == sent["idempotency-key"] == delivery_id
        assert sent["x-forwarded-from"] == "hotdash-relay"
        assert sent["content-type"] == "application/json"


async def test_chatwoots_own_headers_pass_through_and_others_do_not(
    shared_relay: RunningRelay, shared_agent: HeldAgent, shared_rows: Rows
) -> None:
    shared_agent.behave()
    chatwoots = {
        "x-chatwoot-signature": "sha256=abc", "x-chatwoot-timestamp": "1795442520", "x-chatwoot-event": "new",
    }  # fmt: skip
    others = {
        "authorization": "Bearer of-the-relay",
        "cookie": "a=b",
        "x-forwarded-for": "10.0.0.1",
        "connection": "close",
    }
    delivery_id, _ = await attempted(
        shared_relay, shared_rows, **chatwoots, **others, idempotency_key="chosen by the sender"
    )
    (seen,) = seen_of(shared_agent, delivery_id)
    assert seen.headers.items() >= chatwoots.items()
    assert not seen.headers.keys() & (others.keys() - {"connection"})
    assert seen.headers["idempotency-key"] == delivery_id


async def test_only_headers_that_are_passed_on_or_needed_are_stored(
    shared_relay: RunningRelay, shared_agent: HeldAgent, shared_rows: Rows
) -> None:
    shared_agent.behave()
    secret = ["Authorization", "Cookie", "X-Api-Key", "Proxy-Authorization", "Cf-Access-Jwt-Assertion"]
    added = dict.fromkeys([*secret, "X-Forwarded-For"], "s3cret")
    delivery_id, _ = await attempted(
        shared_relay, shared_rows, **added, x_chatwoot_signature="sha256=abc", x_chatwoot_timestamp="1",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )  # fmt: skip
    headers = shared_rows.one("SELECT headers FROM relay.deliveries WHERE delivery_id = %s", (delivery_id,))
    assert sorted(name for name, _ in headers) == [
        "content-type", "traceparent", "x-chatwoot-delivery", "x-chatwoot-signature", "x-chatwoot-timestamp",
    ]  # fmt: skip


async def test_a_signature_that_was_verified_passes_through_and_still_fits(
    start_one: StartRelay, shared_agent: HeldAgent
) -> None:
    relay = await start_one(chatwoot_webhook_secret="s3cret")
    shared_agent.behave(Behaviour(status=503, times=1))
    timestamp = str(int(datetime.now(UTC).timestamp()))
    delivery_id = str(uuid4())
    answer = await relay.post(
        BODY, X_Chatwoot_Delivery=delivery_id, X_Chatwoot_Timestamp=timestamp,
        X_Chatwoot_Signature=sign(b"s3cret", timestamp, BODY),
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    for seen in seen_of(shared_agent, delivery_id):
        signed_at = seen.headers["x-chatwoot-timestamp"]
        assert seen.headers["x-chatwoot-signature"] == sign(b"s3cret", signed_at, seen.body)
    assert len(seen_of(shared_agent, delivery_id)) == 2


async def test_the_body_arrives_byte_for_byte_at_every_attempt(
    shared_relay: RunningRelay, shared_agent: HeldAgent, shared_rows: Rows
) -> None:
    shared_agent.behave(Behaviour(status=503, times=2))
    delivery_id = str(uuid4())
    await shared_relay.post(BODY, X_Chatwoot_Delivery=delivery_id)
    assert [seen.body for seen in seen_of(shared_agent, delivery_id)] == [BODY] * 3
    assert trace(shared_rows, delivery_id).body == BODY


async def test_a_large_body_arrives_whole(shared_relay: RunningRelay, shared_agent: HeldAgent) -> None:
    shared_agent.behave()
    body = json.dumps({"event": "message_created", "content": "x" * 4_000_000}).encode()
    delivery_id = str(uuid4())
    assert (await shared_relay.post(body, X_Chatwoot_Delivery=delivery_id)).status_code == 200
    (seen,) = seen_of(shared_agent, delivery_id)
    assert seen.body == body


async def test_without_a_delivery_id_the_agent_gets_a_fresh_uuid_and_nothing_is_a_duplicate(
    shared_relay: RunningRelay, shared_agent: HeldAgent
) -> None:
    shared_agent.behave()
    answers = [(await shared_relay.post(PAYLOAD)).json() for _ in range(2)]
    ids = [answer["delivery_id"] for answer in answers]
    assert len({UUID(delivery_id) for delivery_id in ids}) == 2
    for delivery_id in ids:
        (seen,) = seen_of(shared_agent, delivery_id)
        assert seen.headers["idempotency-key"] == delivery_id


async def test_no_delivery_carries_a_cookie_that_the_answer_to_another_one_set(start_one: StartRelay) -> None:
    async with BluntAgent(b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: 0\r\n\r\n") as agent:
        relay = await start_one(agent=agent.url)
        for _ in range(2):
            assert (await relay.post(PAYLOAD)).status_code == 200
        assert [b"cookie" in head.lower() for head in agent.heads] == [False, False]


@pytest.mark.parametrize("moment", ["as soon as it is stored", "during an attempt"])
async def test_a_client_that_hangs_up_does_not_cancel_the_forwarding(
    shared_relay: RunningRelay, shared_agent: HeldAgent, shared_rows: Rows, moment: str
) -> None:
    shared_agent.behave(Behaviour(status=503, times=1))
    shared_agent.hold()
    delivery_id, body = str(uuid4()), json.dumps(PAYLOAD).encode()
    async with wire_to(shared_relay) as wire:
        await wire.begin(f"Content-Length: {len(body)}", f"X-Chatwoot-Delivery: {delivery_id}")
        await wire.send(body)
        if moment == "during an attempt":
            await until(lambda: seen_of(shared_agent, delivery_id))
        else:
            await until(lambda: shared_rows("SELECT 1 FROM relay.deliveries WHERE delivery_id = %s", (delivery_id,)))
        wire.hang_up()
    shared_agent.release()
    await until(lambda: trace(shared_rows, delivery_id).state == "delivered")
    left = trace(shared_rows, delivery_id)
    assert [tried.status for tried in left.tried] == ["503", "200"]
    assert [retry["success"] for retry, _ in left.retries] == [True]


async def test_a_client_that_hangs_up_in_the_middle_of_its_body_leaves_nothing(
    shared_relay: RunningRelay, shared_agent: HeldAgent, shared_rows: Rows
) -> None:
    shared_agent.behave()
    before = deliveries(shared_rows)
    async with wire_to(shared_relay) as wire:
        await wire.begin("Content-Length: 1000", "X-Chatwoot-Delivery: cut-off")
        await wire.send(json.dumps(PAYLOAD).encode())
        wire.hang_up()
    assert (await shared_relay.post(PAYLOAD)).status_code == 200
    assert deliveries(shared_rows) == before + 1
    assert not seen_of(shared_agent, "cut-off")


async def test_many_webhooks_at_once_are_each_forwarded_once(
    shared_relay: RunningRelay, shared_agent: HeldAgent, shared_rows: Rows
) -> None:
    shared_agent.behave()
    before = deliveries(shared_rows)
    posts = (shared_relay.post(PAYLOAD | {"id": n, "conversation": {"id": n}}) for n in range(100))
    answers = await asyncio.gather(*posts)
    assert {answer.status_code for answer in answers} == {200}
    ids: list[Any] = [answer.json()["delivery_id"] for answer in answers]
    assert deliveries(shared_rows) == before + 100
    for n, delivery_id in enumerate(ids):
        (seen,) = seen_of(shared_agent, delivery_id)
        assert json.loads(seen.body)["id"] == n


async def test_what_was_sent_leaves_memory_without_the_garbage_collector(
    start_one: StartRelay, shared_rows: Rows
) -> None:
    relay = await start_one()
    gc.disable()
    try:
        delivery_id, _ = await attempted(relay, shared_rows)
        requests = [found for found in gc.get_objects() if type(found) is httpx.Request]
    finally:
        gc.enable()
    assert [found for found in requests if found.headers.get("idempotency-key") == delivery_id] == []
