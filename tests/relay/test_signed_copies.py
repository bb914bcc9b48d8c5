"""A signed request that is sent again: one delivery, whatever id, worker or relay the copies come to."""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from relay.chatwoot.signature import sign
from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from relay.demo.agent import AgentStandIn
    from tests.servers import Rows, RunningRelay

    StartRelay = Callable[..., Awaitable[RunningRelay]]

SECRETS = "first-secret,second-secret"
BODY = b'{"event": "message_created", "id": 9, "conversation": {"id": 77}}'


def signed(body: bytes = BODY, *, secret: bytes = b"first-secret", age_s: int = 0) -> dict[str, str]:
    """The headers of a signature that was made so many seconds ago."""
    timestamp = str(int(time.time()) - age_s)
    return {"X_Chatwoot_Timestamp": timestamp, "X_Chatwoot_Signature": sign(secret, timestamp, body)}


def duplicate_of(delivery_id: str, state: str) -> dict[str, Any]:
    return {"success": True, "duplicate": True, "delivery_id": delivery_id, "state": state}


def body_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code in {200, 202}, answer.text
    said: dict[str, Any] = answer.json()
    return said


@pytest.mark.parametrize("age_s", [0, 290, -290], ids=["now", "nearly five minutes old", "nearly as far ahead"])
async def test_copies_under_other_ids_are_duplicates_that_name_the_first(
    start_relay: StartRelay, agent: AgentStandIn, rows: Rows, age_s: int
) -> None:
    relay, captured = await start_relay(chatwoot_webhook_secret=SECRETS), signed(age_s=age_s)
    first, *others = [str(uuid4()) for _ in range(11)]
    assert body_of(await relay.post(BODY, X_Chatwoot_Delivery=first, **captured))["processed"] is True
    for delivery_id in others:
        assert body_of(await relay.post(BODY, X_Chatwoot_Delivery=delivery_id, **captured)) == duplicate_of(
            first, "delivered"
        )
    assert body_of(await relay.post(BODY, **captured)) == duplicate_of(first, "delivered")  # no id at all
    as_a_test = await relay.post(BODY, X_Chatwoot_Delivery=str(uuid4()), X_Forwarded_From="chatwoot-test", **captured)
    assert body_of(as_a_test) == duplicate_of(first, "delivered")
    assert [seen.delivery_id for seen in agent.seen] == [first]
    assert rows("SELECT delivery_id FROM relay.deliveries") == [first]
    await until(lambda: f"sentAs: '{others[0]}'" in relay.output)
    await relay.stop()
    lines = [line for line in relay.output.splitlines() if "Signature seen before" in line]
    counts = [int(found[1]) if (found := re.search(r"count: (\d+)", line)) else 1 for line in lines]
    assert (sum(counts), counts[0]) == (12, 1), "the first at once"
    assert len(counts) < 12, "and those that follow soon together"


async def test_the_same_body_signed_at_another_time_or_with_another_secret_is_another_webhook(
    start_relay: StartRelay, agent: AgentStandIn
) -> None:
    relay = await start_relay(chatwoot_webhook_secret=SECRETS)
    longer = BODY + b" "
    for body, headers in (
        (BODY, signed()), (BODY, signed(age_s=100)), (BODY, signed(secret=b"second-secret")), (longer, signed(longer)),
    ):  # fmt: skip
        assert "processed" in body_of(await relay.post(body, **headers))
    assert len(agent.seen) == 4


async def test_unsigned_webhooks_with_one_body_are_all_forwarded(relay: RunningRelay, agent: AgentStandIn) -> None:
    for _ in range(3):
        assert "processed" in body_of(await relay.post(BODY, **signed()))
    assert len(agent.seen) == 3


async def test_many_copies_at_once_to_two_relays_reach_the_agent_once(
    start_relay: StartRelay, agent: AgentStandIn, rows: Rows
) -> None:
    relays = [await start_relay(chatwoot_webhook_secret=SECRETS) for _ in range(2)]
    for number in range(5):
        body = BODY.replace(b"9", str(number).encode())
        captured = signed(body)
        answers = await asyncio.gather(
            *(relays[n % 2].post(body, X_Chatwoot_Delivery=str(uuid4()), **captured) for n in range(60))
        )
        said = [body_of(answer) for answer in answers]
        (processed,) = [one for one in said if not one.get("duplicate")]
        assert {one["delivery_id"] for one in said} == {processed["delivery_id"]}
    assert sorted(seen.body for seen in agent.seen) == [BODY.replace(b"9", str(n).encode()) for n in range(5)]
    assert rows("SELECT count(*) FROM relay.deliveries") == [5]


async def test_a_captured_request_never_changes_a_dead_letter(
    start_relay: StartRelay, agent: AgentStandIn, rows: Rows
) -> None:
    relay = await start_relay(chatwoot_webhook_secret=SECRETS)
    captured, other = signed(), b'{"event": "message_created", "id": 10}'
    assert "processed" in body_of(await relay.post(BODY, X_Chatwoot_Delivery="captured", **captured))
    agent.behave(Behaviour(status=422))
    assert (await relay.post(other, X_Chatwoot_Delivery="letter", **signed(other))).status_code == 500
    agent.behave()
    before = rows("SELECT * FROM relay.deliveries ORDER BY id")
    answer = await relay.post(BODY, X_Chatwoot_Delivery="letter", **captured)
    assert body_of(answer) == duplicate_of("captured", "delivered")
    assert rows("SELECT * FROM relay.deliveries ORDER BY id") == before


async def test_a_dead_letter_that_its_sender_sends_again_is_forwarded_again(
    start_relay: StartRelay, agent: AgentStandIn, rows: Rows
) -> None:
    relay, captured = await start_relay(chatwoot_webhook_secret=SECRETS), signed()
    agent.behave(Behaviour(status=422))
    for headers in (captured, captured, signed(age_s=2)):
        assert (await relay.post(BODY, X_Chatwoot_Delivery="letter", **headers)).status_code == 500
    agent.behave()
    assert body_of(await relay.post(BODY, X_Chatwoot_Delivery="letter", **captured))["delivery_id"] == "letter"
    assert rows("SELECT delivery_id, state, run FROM relay.deliveries") == [("letter", "delivered", 4)]


@pytest.mark.parametrize("changed", [
    {"X_Forwarded_From": "chatwoot-test"}, {"X_Forwarded_From": "chatwoot-test", "X_Relay_Test": "post"},
    {"Content_Type": "text/plain"}, {"Content_Encoding": "gzip"}, {"X_Chatwoot_Event": "other"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("first", [{}, {"X_Forwarded_From": "chatwoot-test"}], ids=["real", "test"])
async def test_headers_that_are_not_signed_change_nothing_in_a_dead_letter_that_is_sent_again(
    start_relay: StartRelay, agent: AgentStandIn, rows: Rows, first: dict[str, str], changed: dict[str, str]
) -> None:
    relay, captured = await start_relay(chatwoot_webhook_secret=SECRETS), signed()
    stored = """
        SELECT test, body, encoded_body, (SELECT jsonb_agg(h ORDER BY h) FROM jsonb_array_elements(headers) AS h)
          FROM relay.deliveries
    """
    agent.behave(Behaviour(status=422, times=2))
    assert (await relay.post(BODY, X_Chatwoot_Delivery="letter", **captured, **first)).status_code == 500
    letter = rows(stored)
    sent = gzip.compress(BODY) if "Content_Encoding" in changed else BODY
    for expected in (500, 200):
        again = await relay.post(sent, X_Chatwoot_Delivery="letter", **(captured | changed))
        assert again.status_code == expected
        assert rows(stored) == letter
    begun, *others = [(seen.body, {k: v for k, v in seen.headers.items() if k != "content-length"})
                      for seen in agent.seen]  # fmt: skip
    assert others == [begun, begun]


async def test_a_dead_letter_that_is_sent_again_is_forwarded_with_its_fresh_signature(
    start_relay: StartRelay, agent: AgentStandIn
) -> None:
    relay, fresh = await start_relay(chatwoot_webhook_secret=SECRETS), signed()
    agent.behave(Behaviour(status=422, times=1))
    await relay.post(BODY, X_Chatwoot_Delivery="letter", **signed(age_s=100))
    assert "processed" in body_of(await relay.post(BODY, X_Chatwoot_Delivery="letter", **fresh))
    names = ("x-chatwoot-timestamp", "x-chatwoot-signature")
    assert [agent.seen[-1].headers[name] for name in names] == list(fresh.values())


@pytest.mark.parametrize("secrets", [SECRETS, None], ids=["signed", "unsigned"])
async def test_a_webhook_that_differs_from_the_dead_letter_of_its_id_is_kept_and_forwarded_beside_it(
    start_relay: StartRelay, agent: AgentStandIn, rows: Rows, secrets: str | None
) -> None:
    relay = await start_relay(chatwoot_webhook_secret=secrets)
    agent.behave(Behaviour(status=422))
    assert (await relay.post(BODY, X_Chatwoot_Delivery="letter", **signed())).status_code == 500
    agent.behave()
    letter = rows("SELECT * FROM relay.deliveries")
    other = b'{"event": "message_created", "id": 10}'
    said = body_of(await relay.post(other, X_Chatwoot_Delivery="letter", **signed(other)))
    assert said["processed"] is True
    UUID(said["delivery_id"])
    assert rows("SELECT * FROM relay.deliveries WHERE delivery_id = 'letter'") == letter
    assert [(seen.delivery_id, seen.body) for seen in list(agent.seen)[1:]] == [(said["delivery_id"], other)]
    again = body_of(await relay.post(other, X_Chatwoot_Delivery="letter", **signed(other)))
    assert again == duplicate_of(said["delivery_id"], "delivered")
    await until(lambda: "Webhook differs from the dead letter of its id" in relay.output)


async def test_a_signature_counts_only_once_its_webhook_is_stored(start_relay: StartRelay, agent: AgentStandIn) -> None:
    relay = await start_relay(chatwoot_webhook_secret=SECRETS)
    assert "processed" in body_of(await relay.post(BODY, X_Chatwoot_Delivery="known", **signed()))
    other = b'{"event": "message_created", "id": 10}'
    captured = signed(other)
    assert body_of(await relay.post(other, X_Chatwoot_Delivery="known", **captured)) == duplicate_of(
        "known", "delivered"
    )
    assert body_of(await relay.post(other, X_Chatwoot_Delivery="another", **captured))["delivery_id"] == "another"
    assert [seen.body for seen in agent.seen] == [BODY, other]


async def test_an_ignored_webhooks_copies_are_duplicates(start_relay: StartRelay, agent: AgentStandIn) -> None:
    relay = await start_relay(chatwoot_webhook_secret=SECRETS, relay_forward_events="contact_created")
    captured = signed()
    first = body_of(await relay.post(BODY, **captured))
    assert first["ignored"] is True
    assert body_of(await relay.post(BODY, **captured)) == duplicate_of(first["delivery_id"], "ignored")
    assert not agent.seen
