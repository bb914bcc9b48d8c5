"""The agent hangs and senders push on: what is in flight and memory stay at their limits, the rest waits."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from relay.settings import WEBHOOK_PATH
from tests.faults.ledger import Ledger
from tests.faults.test_abuse import memory_mb
from tests.servers import ANSWER_MS, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.conftest import RelayProcess, Senders, Survived
    from tests.faults.load import Load
    from tests.servers import HeldAgent, Rows

pytestmark = pytest.mark.faults
LIMIT = 20
LARGE = 4_900_000
PADDING = "x" * 200_000


async def test_beyond_the_limit_webhooks_wait_in_postgres_and_are_delivered_once_the_agent_answers(
    make_relay: Callable[..., RelayProcess],
    senders: Senders,
    agent: HeldAgent,
    load: Load,
    rows: Rows,
    survived: Survived,
) -> None:
    relay = await make_relay(relay_max_in_flight=LIMIT, agent_sdk_timeout_ms=300_000).start()
    before = memory_mb(relay)
    agent.hold()
    load.start(relay)
    await until(lambda: len(agent.seen) == LIMIT, what="the agent hangs on as many as may be")
    for _ in range(100):
        body = {"event": "message_created", "padding": PADDING}
        delivery_id = str(uuid4())
        answer = await senders.client.post(
            relay.url + WEBHOOK_PATH, json=body, headers={"X-Chatwoot-Delivery": delivery_id}
        )
        assert (answer.status_code, answer.json()["waiting"]) == (202, "capacity")
        load.ledger.statuses[delivery_id] = 202
    health = await senders.client.get(relay.url + "/health")
    assert (health.status_code, health.json()["in_flight"]) == (200, LIMIT)
    assert rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'forwarding'") == LIMIT
    assert rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'received'") > 100
    assert memory_mb(relay) < before + 60
    agent.release()
    recovery = await load.ledger.recovers(time.monotonic())
    await load.continues(100)
    counts = await load.ends_well(rows)
    assert (counts["copies"], load.ledger.refusals) == (0, [])
    survived(f"Agent hanging under {LIMIT} in flight, senders pushing", counts, recovery)


async def test_large_bodies_that_never_end_have_so_much_room_and_the_rest_is_not_read(
    make_relay: Callable[..., RelayProcess], senders: Senders, rows: Rows
) -> None:
    relay, ledger = await make_relay(chatwoot_webhook_response_deadline_ms=ANSWER_MS).start(), Ledger()
    before, connections = memory_mb(relay), []
    head = f"POST {WEBHOOK_PATH} HTTP/1.1\r\nhost: relay\r\ncontent-length: {LARGE + 1}\r\n\r\n".encode()

    async def begin() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        connections.append(writer)
        writer.write(head + b" " * LARGE)
        await reader.read(1_000)

    beginning = [asyncio.create_task(begin()) for _ in range(80)]
    await until(lambda: len(connections) == 80, what="all have begun")
    await until(lambda: memory_mb(relay) > before + 200, what="there is no room for the last of them")
    assert await senders.post(relay.url, ledger) == 200
    assert memory_mb(relay) < before + 400
    for writer in connections:
        writer.transport.abort()
    await asyncio.gather(*beginning, return_exceptions=True)

    async def is_taken() -> bool:
        body = b'{"event":"message_created"}'.ljust(LARGE)
        answer = await senders.client.post(
            relay.url + WEBHOOK_PATH, content=body, headers={"X-Chatwoot-Delivery": "large"}, timeout=60
        )
        return answer.status_code == 200

    await until(is_taken, what="there is room again")
    assert set(rows("SELECT delivery_id FROM relay.deliveries")) == {"large", *ledger.statuses}
