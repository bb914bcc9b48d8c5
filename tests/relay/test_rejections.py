"""What refused webhooks leave behind: a count and a reason (DESIGN 6), nothing of their payload, no flood of facts."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections import Counter
from typing import TYPE_CHECKING

from relay.chatwoot.signature import sign
from relay.intake.rejections import BURST_S, MOST_A_MINUTE, ONE_BY_ONE, Rejections
from relay.telemetry.forwarding_log import ForwardingLog
from relay.telemetry.log_sink import LogSink
from relay.telemetry.metrics import Counters
from tests.servers import Rows, RunningRelay, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

SECRET = "a-webhook-secret"
CONTENT = b'{"content": "a customer wrote this"'


def rejected(rows: Rows) -> Counter[tuple[str, int]]:
    """How many rejections the facts count, by reason and status."""
    counts: Counter[tuple[str, int]] = Counter()
    for value, _ in rows.facts("support.webhook.rejected"):
        counts[value["reason"], value["status"]] += value["count"]
    return counts


async def post_signed(relay: RunningRelay, body: bytes, *, off_s: int = 0, secret: str = SECRET) -> httpx.Response:
    """Post a body, signed with `secret` at a time so many seconds ahead."""
    timestamp = str(int(time.time()) + off_s)
    signature = sign(secret.encode(), timestamp, body)
    return await relay.post(body, X_Chatwoot_Timestamp=timestamp, X_Chatwoot_Signature=signature)


async def test_each_refused_webhook_leaves_a_fact_with_its_reason_and_nothing_of_its_payload(
    start_relay: Callable[..., Awaitable[RunningRelay]], rows: Rows
) -> None:
    relay = await start_relay(chatwoot_webhook_secret=SECRET, chatwoot_webhook_max_body_bytes=1_000)
    await post_signed(relay, CONTENT + b"}", secret="a guess")
    await relay.post(CONTENT + b"}")
    await post_signed(relay, CONTENT + b"}", off_s=-1_000)
    for body in (CONTENT, b"[" + CONTENT + b"}]", b"", CONTENT + b"\xff", b"[" * 300, CONTENT.ljust(1_001)):
        await post_signed(relay, body)
    reasons = {
        ("invalid_signature", 401): 1, ("missing_signature", 401): 1, ("stale_timestamp", 401): 1,
        ("invalid_json", 400): 1, ("not_an_object", 400): 1, ("empty_body", 400): 1, ("invalid_utf8", 400): 1,
        ("nested_too_deep", 400): 1, ("body_too_large", 413): 1,
    }  # fmt: skip
    await until(lambda: rejected(rows).total() >= len(reasons))
    assert rejected(rows) == reasons
    assert "a customer wrote this" not in json.dumps(rows.facts("support.webhook.rejected")) + relay.output
    assert all(metadata["timestamp"] for _, metadata in rows.facts("support.webhook.rejected"))
    assert rows("SELECT 1 FROM relay.deliveries") == []


async def test_a_flood_of_refused_webhooks_is_counted_whole(relay: RunningRelay, rows: Rows) -> None:
    flood = 200
    answers = await asyncio.gather(*(relay.post(b"") for _ in range(flood)))
    assert {answer.status_code for answer in answers} == {400}
    await until(lambda: rejected(rows) == {("empty_body", 400): flood})


def test_many_refusals_between_two_flushes_are_one_fact_and_one_line() -> None:
    stream = io.StringIO()
    sink = LogSink(stream=stream)
    rejections = Rejections(Counters(), ForwardingLog(sink, ""))
    for _ in range(200):
        rejections.add("empty_body", 400)
    facts = rejections.take()
    sink.close()
    assert [fact.value["count"] for fact in facts] == [200]
    assert stream.getvalue().count("Webhook rejected") == 1


def test_a_client_that_goes_on_for_an_hour_leaves_few_facts_and_each_of_its_requests_is_counted() -> None:
    now = 0.0
    sink = LogSink(stream=io.StringIO())
    rejections = Rejections(Counters(), ForwardingLog(sink, ""), clock=lambda: now)
    counts: list[int] = []
    for step in range(7_200):  # a round each half second, with as many as are recorded one by one
        now = step / 2
        for _ in range(ONE_BY_ONE):
            rejections.add("invalid_signature", 401)
        counts += [fact.value["count"] for fact in rejections.take()]
    counts += [fact.value["count"] for fact in rejections.take(is_last=True)]
    sink.close()
    assert sum(counts) == 7_200 * ONE_BY_ONE
    assert counts[:MOST_A_MINUTE] == [1] * MOST_A_MINUTE
    assert len(counts) < 60 * (MOST_A_MINUTE + 60 / BURST_S)


_REFUSE_TO_STORE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'permission denied' USING ERRCODE = 'insufficient_privilege'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON relay.deliveries FOR EACH ROW EXECUTE FUNCTION refuse()
"""


async def test_what_postgres_refuses_to_store_is_counted_and_ends_health(
    start_relay: Callable[..., Awaitable[RunningRelay]], rows: Rows
) -> None:
    relay = await start_relay()
    await rows.change(_REFUSE_TO_STORE)
    answer = await relay.post(CONTENT + b"}")
    assert answer.status_code == 503
    health = await relay.client.get("/health")
    assert health.status_code == 503
    assert health.json()["database"]["error"].startswith("Postgres refuses to store webhooks: ")
    await until(lambda: rejected(rows)["not_stored", 503] == 1)
    await rows.change("DROP TRIGGER refuse ON relay.deliveries")
    assert (await relay.post(CONTENT + b"}")).status_code == 200
    assert (await relay.client.get("/health")).status_code == 200


async def test_a_line_names_the_client_behind_a_trusted_proxy_alone(
    start_relay: Callable[..., Awaitable[RunningRelay]],
) -> None:
    for trusted, client in (("127.0.0.0/8", "203.0.113.9"), ("10.0.0.0/8", "127.0.0.1")):
        relay = await start_relay(relay_trusted_proxies=trusted)
        await relay.post(b"[]", X_Forwarded_For="198.51.100.1, 203.0.113.9")
        await until(lambda r=relay, c=client: f"reason: 'not_an_object', status: 400, client: '{c}' }}" in r.output)
