"""Order within a conversation, as a property of the store: any interleaving of relays, waits and deaths."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.domain.delivery import Deferred, WaitReason
from relay.store import destinations, finishing, gate
from relay.store.claims import claim_abandoned, claim_backlog
from relay.store.database import connection_parameters
from relay.store.deliveries import Claimed, Finish, hand_back
from relay.store.storing import store
from tests.servers import AT_ONCE_S
from tests.store.plant import Plant
from tests.store.values import finish, finish_of, incoming, outcome

if TYPE_CHECKING:
    from relay.store.database import Connection
    from relay.store.deliveries import Incoming
    from tests.servers import Rows

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.lists(st.integers(0, 2), min_size=1, max_size=4)),
        st.tuples(st.sampled_from(["end", "end and take"]), st.sampled_from(["200", "400", "503", "wait"])),
        st.tuples(st.just("claim"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["hand back", "crash", "hold", "release", "open", "close"]), st.just(0)),
    ),
    max_size=30,
)


def message(conversation: object, number: int, *, wanted: bool = True) -> Incoming:
    """A message of a conversation of its own, numbered in the order of arrival."""
    return replace(incoming(f"{conversation}:{number}"), order_key=f"1/{conversation}", wanted=wanted)


class _Model:
    """What two relays do to the store in turns, and in which order each conversation's messages were begun."""

    def __init__(self, connection: Connection, plant: Plant) -> None:
        self.connection = connection
        self.plant = plant
        self.owner, self.other = plant.relay(), plant.relay()
        self.run = uuid4().hex
        self.stored = 0
        self.held: list[tuple[UUID, Claimed]] = []
        self.begun: dict[str, list[int]] = {}

    def begin(self, claims: list[Claimed]) -> None:
        for claimed in claims:
            conversation, _, number = claimed.delivery.delivery_id.rpartition(":")
            begun = self.begun.setdefault(conversation, [])
            if not begun or begun[-1] != int(number):
                begun.append(int(number))
            assert all(not one.delivery.delivery_id.startswith(f"{conversation}:") for _, one in self.held)
            self.held.append((self.owner, claimed))

    async def lose(self, *, handed_back: bool) -> None:
        """This relay stops: it hands back what it holds, or is killed and the other one takes that over."""
        mine = [claimed for owner, claimed in self.held if owner == self.owner]
        self.held = [(owner, claimed) for owner, claimed in self.held if owner != self.owner]
        if handed_back:
            await hand_back(self.connection, self.owner)
            return
        self.plant.rows("UPDATE relay.instances SET lease_until = '-infinity' WHERE id = %s", (self.owner,))
        self.owner, self.other = self.other, self.plant.relay()
        held = [claimed.delivery.id for _, claimed in self.held]
        taken = await claim_abandoned(self.connection, self.owner, held=held, settled=True, most=99, orphan_s=60)
        assert {one.delivery.id for one in taken} == {one.delivery.id for one in mine}
        self.begin(taken)

    async def end(self, status: str, *, takes: bool) -> None:
        """The oldest delivery in progress ends; its relay may take the next one of the conversation."""
        owner, claimed = self.held.pop(0)
        if owner != self.owner:
            self.owner, self.other = self.other, self.owner
        ended: Finish = finish_of(claimed, outcome("200" if status == "wait" else status))
        if status == "wait":
            ended = replace(ended, outcome=Deferred((), 1, WaitReason.RETRY, 0), facts=[])
        if takes:
            ended = replace(ended, next_claim=uuid4())
        (finished,) = await finishing.finish(self.connection, [ended], owner=self.owner)
        assert finished.recorded
        self.begin([] if finished.next is None else [finished.next])

    async def step(self, what: str, given: object) -> None:
        self.owner, self.other = self.other, self.owner
        if what == "store":
            batch = []
            for conversation in given:  # type: ignore[attr-defined] # a list for this step
                batch.append(message(f"{self.run}-{conversation}", self.stored, wanted=self.stored % 3 > 0))
                self.stored += 1
            self.begin([one for one in await store(self.connection, self.owner, batch) if isinstance(one, Claimed)])
        elif what == "claim":
            self.begin(await claim_backlog(self.connection, self.owner, most=int(str(given)), most_bytes=10_000))
        elif what in {"hand back", "crash"}:
            await self.lose(handed_back=what == "hand back")
        elif what == "hold":
            await gate.hold(self.connection, "maria", "a deployment")
        elif what == "release":
            await gate.release(self.connection, "maria")
        elif what == "open":
            await gate.open_the_breaker(self.connection, "it fails", pause_s=5, first_s=5)
        elif what == "close":
            await gate.close_the_breaker(self.connection)
        elif self.held:
            await self.end(str(given), takes=what == "end and take")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_a_conversation_is_begun_in_the_order_of_arrival_and_nothing_is_left_behind(
    dsn: str, rows: Rows, steps: list[tuple[str, object]]
) -> None:
    async def play() -> None:
        parameters = connection_parameters(dsn, "tests")
        async with await psycopg.AsyncConnection.connect(autocommit=True, **parameters) as connection:
            model = _Model(connection, Plant(rows))
            for what, given in steps:
                await model.step(what, given)
            await model.step("release", 0)
            await model.step("close", 0)
            for _ in range(300):  # everything ends in the end
                if not model.held:
                    await model.step("claim", 3)
                if not model.held:
                    break
                await model.step("end", "200")
            assert all(begun == sorted(begun) for begun in model.begun.values()), model.begun
            assert sum(map(len, model.begun.values())) == model.stored

    asyncio.run(play())
    assert rows("SELECT DISTINCT state FROM relay.deliveries WHERE state NOT IN ('delivered', 'dead')") == []
    assert rows("SELECT count(*) FROM relay.conversations WHERE head IS NOT NULL") == [0]
    assert rows("SELECT sum(number)::integer FROM relay.backlog_counts GROUP BY kind HAVING sum(number) <> 0") == []


async def test_relays_that_store_and_finish_one_conversation_at_once_leave_nothing_behind(dsn: str, rows: Rows) -> None:
    async def one_relay(place: int) -> None:
        owner, parameters = uuid4(), connection_parameters(dsn, "tests")
        async with await psycopg.AsyncConnection.connect(autocommit=True, **parameters) as connection:
            for number in range(15):
                stored = await store(connection, owner, [message("a", place * 100 + number), message("b", place)])
                claims = [one for one in stored if isinstance(one, Claimed)]
                for claimed in claims + await claim_backlog(connection, owner, most=2, most_bytes=10_000):
                    assert await finish(connection, [finish_of(claimed, outcome("200"))]) == [True]

    await asyncio.gather(*(one_relay(place) for place in range(4)))
    owner = uuid4()
    async with await psycopg.AsyncConnection.connect(autocommit=True, **connection_parameters(dsn, "tests")) as last:
        while claims := await claim_backlog(last, owner, most=5, most_bytes=10_000):
            assert await finish(last, [finish_of(one, outcome("200")) for one in claims]) == [True] * len(claims)
    assert rows("SELECT state, count(*) FROM relay.deliveries GROUP BY 1") == [("delivered", 64)]
    assert rows("SELECT DISTINCT head FROM relay.conversations") == [None]


@pytest.mark.parametrize("wanted", [True, False])
async def test_storing_a_batch_again_issues_no_second_position(
    connection: Connection, rows: Rows, *, wanted: bool
) -> None:
    owner = UUID(int=1)
    batch = [message("a", number, wanted=wanted) for number in range(3)]
    first = await store(connection, owner, batch)
    assert await store(connection, owner, batch) == first
    assert rows("SELECT position, blocked FROM relay.deliveries ORDER BY position") == [
        (1, False), (2, True), (3, True),
    ]  # fmt: skip
    assert rows("SELECT issued, head FROM relay.conversations") == [(3, 1)]


async def deferred(connection: Connection, claimed: Claimed, pause_s: float) -> None:
    """The run of `claimed` waits for its next attempt for `pause_s` seconds."""
    waits = Deferred((), 1, WaitReason.RETRY, pause_s * 1000)
    assert await finish(connection, [replace(finish_of(claimed, outcome("200")), outcome=waits, facts=[])]) == [True]


_AGE = "UPDATE relay.deliveries SET since = since - %(age)s, next_attempt_at = next_attempt_at - %(age)s"


async def test_only_the_wait_for_a_retry_counts_for_the_release_of_the_order(
    connection: Connection, rows: Rows
) -> None:
    await gate.hold(connection, "maria", "a deployment")  # what is due waits for its end
    waits = {"long": (300, 61), "not long yet": (300, 59), "due since long": (30, 600)}
    for conversation, (pause_s, age_s) in waits.items():
        await store(connection, uuid4(), [message(conversation, number) for number in range(2)])
        (first,) = rows("SELECT id FROM relay.deliveries WHERE delivery_id = %s", (f"{conversation}:0",))
        rows(
            "UPDATE relay.deliveries SET state = 'waiting', waits = 'retry', since = now() - %s, "
            "next_attempt_at = now() + %s WHERE id = %s",
            (timedelta(seconds=age_s), timedelta(seconds=pause_s - age_s), first),
        )
    await gate.release_order(connection, 60)
    assert rows("SELECT delivery_id FROM relay.deliveries WHERE blocked ORDER BY 1") == [
        "due since long:1", "not long yet:1",
    ]  # fmt: skip


async def test_what_relays_do_every_second_waits_for_no_row_that_another_session_holds(
    connection: Connection, rows: Rows
) -> None:
    firsts = await store(connection, uuid4(), [message(c, 1) for c in "abcd"])
    await store(connection, uuid4(), [message(c, 2) for c in "abcd"])
    for first in firsts:
        assert isinstance(first, Claimed)
        await deferred(connection, first, 300)
    rows(_AGE, {"age": timedelta(seconds=61)})
    blocked = "SELECT delivery_id FROM relay.deliveries WHERE blocked ORDER BY 1"
    async with await psycopg.AsyncConnection.connect(rows.dsn) as other:
        for held in (
            "SELECT FROM relay.conversations WHERE key = '1/a' FOR UPDATE",
            "SELECT FROM relay.deliveries WHERE delivery_id = 'b:1' FOR UPDATE",
            "SELECT FROM relay.deliveries WHERE delivery_id = 'c:2' FOR UPDATE",
        ):
            await other.execute(held)
        async with asyncio.timeout(AT_ONCE_S):
            await gate.release_order(connection, 60)
        assert rows(blocked) == ["a:2", "b:2", "c:2"]
        async with asyncio.timeout(AT_ONCE_S):
            await destinations.refresh(connection)
            assert await gate.heal_order(connection, "", 100) == ""
    await gate.release_order(connection, 60)
    assert rows(blocked) == ["c:2"]  # its head was released while its own row was held
    await gate.heal_order(connection, "", 100)
    assert rows(blocked) == []


_HEADLESS = {
    "a": "UPDATE relay.deliveries SET state = 'dead', owner = NULL, finished_at = now() WHERE delivery_id = 'a:0'",
    "b": "DELETE FROM relay.deliveries WHERE delivery_id = 'b:0'",
    "c": "UPDATE relay.deliveries SET conversation_key = NULL WHERE delivery_id = 'c:0'",
    "d": "UPDATE relay.conversations SET head = NULL WHERE key = '1/d'",
    "e": "DELETE FROM relay.conversations WHERE key = '1/e'",
    "f": "UPDATE relay.conversations SET head = 7 WHERE key = '1/f'",
}


async def test_a_conversation_that_waits_for_a_head_that_is_over_or_gone_is_released(
    connection: Connection, rows: Rows
) -> None:
    for conversation in (*_HEADLESS, "right"):
        await store(connection, uuid4(), [message(conversation, number) for number in range(3)])
    for fault in _HEADLESS.values():
        rows(fault)
    assert await gate.heal_order(connection, "", 2) == "1/b"
    assert await gate.heal_order(connection, "1/b", 99) == ""
    assert rows("SELECT delivery_id FROM relay.deliveries WHERE blocked ORDER BY 1") == [
        *(f"{conversation}:2" for conversation in _HEADLESS), "right:1", "right:2",
    ]  # fmt: skip
    assert rows("SELECT DISTINCT head FROM relay.conversations WHERE key <> '1/right'") == [2]
