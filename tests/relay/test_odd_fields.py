"""Whatever JSON stands in the fields that the relay reads, a webhook is stored and its sender answered."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any

import hypothesis
import hypothesis.strategies as st
import pytest

from tests.servers import Behaviour, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.servers import AgentStandIn, Rows, RunningRelay

    StartRelay = Callable[..., Awaitable[RunningRelay]]

pytestmark = pytest.mark.asyncio(loop_scope="module")

_RAW = st.sampled_from(  # JSON as no Python value writes it
    ["1" * 400, "-" + "9" * 5_000, "1e999", "-1e-999", "0.1e400", "1" * 30, "1" * 31, "-0", "-0.0", "true", "1.0",
     r'"\u0000"', r'"\ud800"', r'"a\udfffb\u0000"', r'"\ud83d\ude00"', f'"{"x" * 100_000}"', "[" * 150 + "]" * 150,
     '{"id": {"a": [null]}, "type": {"a": 1}}', '{"id": true, "type": []}', '{"id": "\\u0000", "type": "\\ud800"}',
     '{"id": 12345678901234567890123456789012345678901234567890}', '{"id": 1e400}', '""', "{}", "[]", "null"]
)  # fmt: skip
_KNOWN = st.sampled_from(
    ["message_created", "message_updated", "conversation_created", "incoming", "outgoing", "contact", 0, 1, 77, True,
     False, {"id": 77}, {"id": "77", "type": "contact"}, {"type": "user"}, [77]]
).map(json.dumps)  # fmt: skip
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("id"), inner, max_size=3),
    max_leaves=8,
).map(json.dumps)
_FIELDS = ["event", "id", "conversation", "account", "sender", "message_type", "private", "content"]
_BODIES = st.dictionaries(st.sampled_from(_FIELDS), _KNOWN | _RAW | _ANY, min_size=1).map(
    lambda fields: ("{" + ", ".join(f'"{name}": {text}' for name, text in fields.items()) + "}").encode()
)


_UNDER_WAY = "SELECT count(*) FROM relay.deliveries WHERE state NOT IN ('delivered', 'ignored')"


async def test_any_object_is_stored_whichever_settings_read_its_fields(
    start_one: StartRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    shared_agent.behave()
    relays = [
        await start_one(chatwoot_webhook_response_deadline_ms=1_000, **settings)
        for settings in ({}, {"relay_forward_events": "message_created, conversation_created"})
    ]
    bodies: list[bytes] = []

    @hypothesis.settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @hypothesis.given(_BODIES)
    def collect(body: bytes) -> None:
        bodies.append(body)

    collect()
    sent = [(relay, number, body) for relay in relays for number, body in enumerate(bodies)]
    random.Random(1).shuffle(sent)
    slots = asyncio.Semaphore(20)

    async def post(relay: RunningRelay, number: int, body: bytes) -> tuple[int, Any]:
        async with slots:
            answer = await relay.post(body, X_Chatwoot_Delivery=f"{relays.index(relay)}-{number}")
            return answer.status_code, answer.json()

    answers = await asyncio.gather(*(post(*one) for one in sent))
    odd = [(body, answer) for (_, _, body), answer in zip(sent, answers, strict=True) if answer[0] not in {200, 202}]
    assert odd == [], "202: the other relay forwards it, after an earlier one of its conversation"
    await until(lambda: shared_rows(_UNDER_WAY) == [0], what="all have ended")
    stored = dict(shared_rows("SELECT delivery_id, body FROM relay.deliveries"))
    assert stored == {f"{relays.index(relay)}-{number}": body for relay, number, body in sent}
    assert shared_rows("SELECT DISTINCT state FROM relay.deliveries ORDER BY 1") == ["delivered", "ignored"]


@pytest.mark.parametrize("event", ['{"a": 1}', "[1]", "5", "true", "null", "1e999", '""', r'"\ud800"'])
async def test_an_event_that_is_no_known_name_is_stored_and_ignored_where_events_are_named(
    start_one: StartRelay, shared_rows: Rows, event: str
) -> None:
    relay = await start_one(relay_forward_events="message_created,1,True,None")
    answer = await relay.post(b'{"event": ' + event.encode() + b', "id": 1}')
    assert (answer.status_code, answer.json().get("ignored")) == (200, True)
    stored = shared_rows(
        "SELECT event, state FROM relay.deliveries WHERE delivery_id = %s", (answer.json()["delivery_id"],)
    )
    assert stored == [("?" if "ud800" in event else None, "ignored")]


async def test_a_dead_letter_of_any_object_is_finished(
    start_one: StartRelay, shared_agent: AgentStandIn, shared_rows: Rows
) -> None:
    shared_agent.behave(Behaviour(status=422))
    relay, sent = await start_one(), []

    @hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @hypothesis.given(_BODIES)
    def collect(body: bytes) -> None:
        sent.append(body)

    collect()
    for number, body in enumerate(sent):
        answer = await relay.post(body, X_Chatwoot_Delivery=f"dead-{number}")
        assert answer.status_code in {200, 500}, (body, answer.text)
    states = shared_rows("SELECT DISTINCT state FROM relay.deliveries WHERE delivery_id LIKE 'dead-%%' ORDER BY 1")
    assert states in (["dead"], ["dead", "ignored"])
