"""How often the console waits for Postgres: from far away each round trip is felt, whatever the machine does."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from console.data import snapshot
from console.data.log_reading import LogReading
from console.data.operator_session import OperatorSession
from console.data.readings import (
    ActivityReading,
    BreakdownReading,
    ConversationReading,
    DetailReading,
    Page,
    RowsReading,
)
from relay.domain.delivery import State
from relay.store.filters import compile_filter
from relay.store.sessions import open_session
from relay.store.sorted_rows import Order
from tests.console.test_poller import Watcher, polling
from tests.link import round_trips
from tests.servers import relay_settings, until

if TYPE_CHECKING:
    from console.data.snapshot import Reading, Snapshot
    from tests.servers import Rows

_PLANT = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, event, customer, finished_at, attempts, duration_ms,
                                  conversation_id, final_status, last_error, headers, body)
    SELECT 'dead-' || n, 'dead', gen_random_uuid(), false, 'message_created', true, now(), 3, 600, '7', '503',
           'Agent SDK answered 503', '[]', '{"content": "hello", "sender": {"name": "Ana"}}'
      FROM generate_series(1, 250) AS n
"""
CONNECT, SET_UP, READ = 1, 1, 1


class Counting(Watcher):
    """Records the round trips that there were by each snapshot."""

    def __init__(self, trips: list[int]) -> None:
        super().__init__()
        self._trips = trips
        self.by_then: list[int] = []

    def show(self, snapshot: Snapshot) -> None:
        self.by_then.append(sum(self._trips))
        super().show(snapshot)


async def test_the_first_figures_take_three_and_each_tick_one(dsn: str, rows: Rows) -> None:
    rows(_PLANT)
    async with round_trips(dsn) as (near, trips):
        watcher = Counting(trips)
        async with polling(near, watcher) as poller:
            for number in range(1, 5):
                await until(lambda number=number: len(watcher.by_then) >= number)
                poller.wake()
    assert watcher.by_then[0] == CONNECT + SET_UP + READ
    listens = 1
    assert watcher.by_then[1:4] == [watcher.by_then[0] + listens + number for number in (1, 2, 3)]
    assert watcher.round_trip_s > 0


async def test_every_view_is_read_together_with_the_overview(dsn: str, rows: Rows) -> None:
    rows(_PLANT)
    ids = rows("SELECT id FROM relay.deliveries ORDER BY id")
    dead, words = (State.DEAD,), {}
    readings: dict[str, Reading | None] = {
        "overview": None,
        "dead letters": RowsReading("", dead, marked=frozenset(ids[:3])),
        "dead letters with words": RowsReading("", dead, words=words, wordless=frozenset(ids[:2])),
        "a cause": RowsReading("status:503", dead),
        "a word": RowsReading("hello", dead),
        "a conversation's": RowsReading("conv:7", None),
        "sorted": RowsReading("", None, order=Order.STATUS),
        "deliveries": RowsReading("", None),
        "a delivery": DetailReading(ids[0]),
        "a conversation": ConversationReading("7"),
        "breakdown": BreakdownReading(timedelta(hours=1)),
        "log": LogReading(None),
        "the log's other pages": LogReading(9, before=5, missing=(7,)),
        "activity": ActivityReading(),
    }
    async with (
        round_trips(dsn) as (near, trips),
        await open_session(near, read_only=True, application="tests", timeout_ms=60_000) as connection,
    ):
        for name, reading in readings.items():
            before = sum(trips)
            seen = await snapshot.read(connection, reading, minutes_of=timedelta(hours=1), watched=1)
            assert sum(trips) - before == READ, name
            assert not isinstance(seen.view, snapshot.TooSlow), name
            if isinstance(seen.view, Page):
                assert seen.view.matching == 250, name
    assert {said.sender for said in words.values()} == {"Ana"}


async def test_a_search_that_is_cancelled_costs_one_more_and_the_rest_is_there(dsn: str, rows: Rows) -> None:
    rows(_PLANT)
    rows("CREATE OR REPLACE FUNCTION relay.payload(body bytea) RETURNS jsonb LANGUAGE plpgsql AS"
         " $$ BEGIN PERFORM pg_sleep(60); RETURN '{}'; END $$")  # fmt: skip
    async with (
        round_trips(dsn) as (near, trips),
        await open_session(near, read_only=True, application="tests", timeout_ms=2_000) as connection,
    ):
        before = sum(trips)
        seen = await snapshot.read(
            connection, RowsReading("payload.content:hello", None), minutes_of=timedelta(hours=1)
        )
        rolled_back = 1
        assert sum(trips) - before == READ + rolled_back
        assert isinstance(seen.view, snapshot.TooSlow)
        assert seen.overview.open_dead_letters == 250
        again = await snapshot.read(connection, None, minutes_of=timedelta(hours=1))
        assert again.overview.open_dead_letters == 250


async def test_a_delivery_takes_one_a_plan_two_and_its_request_one(dsn: str, rows: Rows) -> None:
    rows(_PLANT)
    ids = rows("SELECT id FROM relay.deliveries ORDER BY id")
    async with round_trips(dsn) as (near, trips):
        session = OperatorSession(relay_settings("http://127.0.0.1:9"), near, "maria", read_only=False)
        await session.open()
        assert sum(trips) == CONNECT + SET_UP
        before = sum(trips)
        assert await session.detail(ids[0]) is not None
        assert sum(trips) - before == 1
        proposal = await session.propose(compile_filter("status:503"))
        assert sum(trips) - before == 1 + 2
        assert await session.send(proposal) == 1
        assert sum(trips) - before == 1 + 2 + 1
        await session.close()
    assert len(proposal.letters) == 250
