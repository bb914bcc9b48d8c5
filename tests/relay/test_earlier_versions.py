"""A relay starts on a database that an earlier version left in the middle of its work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest_asyncio

from relay.store.database import connect
from relay.store.migrate import migrations
from tests.schema import apply
from tests.servers import HeldAgent, Rows, RunningRelay, relay_settings, until
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_BEFORE_THE_BACKLOG = range(50)
"""The numbers of the steps before the backlog and what builds on it."""

_BODY = b'{"event": "message_created", "id": 1, "conversation": {"id": 7}}'
_BACKFILLED = (
    b'{"event": "message_created", "id": 9, "message_type": "incoming", '
    b'"account": {"id": 1}, "conversation": {"id": 7}}'
)
_STATES = "SELECT state, count(*) FROM relay.deliveries GROUP BY 1"
_WAITING = "SELECT kind FROM relay.backlog_counts GROUP BY kind HAVING sum(number) <> 0"


@pytest_asyncio.fixture
async def old_dsn(empty_dsn: str) -> AsyncIterator[str]:
    """The DSN of a database as the version before the backlog made it."""
    async with await connect(empty_dsn, "tests") as connection:
        await apply(connection, [step for step in migrations() if step.version in _BEFORE_THE_BACKLOG])
    yield empty_dsn


async def test_what_an_earlier_version_received_and_forwarded_is_delivered_and_what_died_can_be_sent_again(
    old_dsn: str, agent: HeldAgent
) -> None:
    rows = Rows(old_dsn)
    plant = Plant(rows)
    for state, owner in (("received", None), ("forwarding", uuid4()), ("dead", None), ("delivered", None)):
        plant.delivery(state, delivery_id=state, owner=owner, body=_BODY, conversation_id="7")
    rows("SELECT relay.store_backfill(ARRAY['backfill-1-9'], ARRAY['7'], ARRAY[%s::bytea])", (_BACKFILLED,))
    relay = await RunningRelay(relay_settings(agent), old_dsn).ready()
    try:
        await until(lambda: dict(rows(_STATES)) == {"delivered": 3, "dead": 2})
        again = await relay.post(_BODY, x_chatwoot_delivery="dead")
        assert (again.status_code, again.json()["attempts"]) == (200, 1)
        assert (await relay.post(_BODY, x_chatwoot_delivery="new")).status_code == 200
        assert dict(rows(_STATES)) == {"delivered": 5, "dead": 1}
        assert rows("SELECT run FROM relay.deliveries WHERE delivery_id IN ('forwarding', 'dead')") == [2, 2]
    finally:
        await relay.stop()
    assert sorted(seen.delivery_id for seen in agent.seen) == ["dead", "forwarding", "new", "received"]
    assert {json.loads(seen.body)["id"] for seen in agent.seen} == {1}
    assert rows(_WAITING) == []
    assert rows("SELECT head FROM relay.conversations") == [None]
