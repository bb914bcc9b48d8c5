"""Destinations: who claims what, what becomes of deliveries without a relay for theirs, and redirects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest

from relay.domain.delivery import Deferred, WaitReason
from relay.errors import Refused
from relay.store import backlog, destinations, gate, instances
from relay.store.claims import claim_abandoned, claim_backlog, claim_probe
from relay.store.deliveries import Claimed, Waiting, hand_back
from relay.store.storing import store, store_drained
from tests.store.values import finish, finish_of, incoming, outcome

if TYPE_CHECKING:
    from relay.store.database import Connection
    from relay.store.deliveries import Incoming
    from tests.servers import Rows

BLUE, GREEN = "http://blue/webhooks/chatwoot", "http://green/webhooks/chatwoot"


async def relay_of(connection: Connection, agent: str) -> UUID:
    """A live relay that forwards to `agent`."""
    relay = uuid4()
    one = instances.Instance(relay, str(relay), uuid4(), 0, 1, "1", signed=True, agent=agent)
    await instances.register(connection, one, 30)
    return relay


def message(number: int, conversation: str = "1/7") -> Incoming:
    return replace(incoming(f"{conversation}:{number}"), order_key=conversation)


async def claimed_by(connection: Connection, relay: UUID) -> list[str]:
    """What `relay` claims: what is abandoned, then what waits."""
    taken = await claim_abandoned(connection, relay, held=[], settled=True, most=9, orphan_s=60)
    taken += await claim_backlog(connection, relay, most=9, most_bytes=10_000)
    return [one.delivery.delivery_id for one in taken]


def leave(rows: Rows, agent: str) -> None:
    """The relays of `agent` were killed a while ago."""
    rows(
        "UPDATE relay.instances SET heartbeat_at = now() - interval '1 hour', lease_until = now() - interval '1 hour' "
        "WHERE agent = %s",
        (agent,),
    )
    # A heartbeat from shortly before the start of Postgres counts until a minute after it.
    rows("UPDATE relay.instances SET stopped_at = heartbeat_at WHERE agent = %s", (agent,))


async def test_a_relay_claims_only_what_was_accepted_for_its_own_agent_and_what_has_no_destination(
    connection: Connection, rows: Rows
) -> None:
    blue, green = await relay_of(connection, BLUE), await relay_of(connection, GREEN)
    waits = [replace(incoming(name), wanted=False) for name in ("first", "old")]
    await store(connection, blue, waits)
    rows("UPDATE relay.deliveries SET destination = NULL WHERE delivery_id = 'old'")
    assert await claimed_by(connection, green) == ["old"]
    assert rows("SELECT delivery_id, destination FROM relay.deliveries ORDER BY 1") == [("first", BLUE), ("old", GREEN)]
    assert await claim_probe(connection, green, None) is None
    assert await claimed_by(connection, blue) == ["first"]
    rows("UPDATE relay.instances SET lease_until = now() WHERE id = %s", (blue,))
    assert await claimed_by(connection, green) == []  # not as abandoned either
    assert await claimed_by(connection, await relay_of(connection, BLUE)) == ["first"]


async def test_a_redelivery_of_a_dead_letter_and_a_drained_receipt_have_their_own_destination(
    connection: Connection, rows: Rows
) -> None:
    blue, green = await relay_of(connection, BLUE), await relay_of(connection, GREEN)
    (first,) = await store(connection, blue, [incoming("one")])
    assert isinstance(first, Claimed)
    await finish(connection, [finish_of(first, outcome("400"))])
    await store(connection, green, [incoming("one")])
    assert rows.one("SELECT state, destination FROM relay.deliveries") == ("forwarding", GREEN)
    spooled = incoming("two")
    spooled = replace(spooled, receipt=replace(spooled.receipt, destination=BLUE, test=True))
    (drained,) = await store_drained(connection, green, [spooled])
    assert isinstance(drained, Waiting)
    assert drained.reason is WaitReason.CAPACITY
    assert await claimed_by(connection, blue) == ["two"]


async def test_a_destination_without_a_relay_blocks_no_other_and_shows_as_the_reason(
    connection: Connection, rows: Rows
) -> None:
    blue, green = await relay_of(connection, BLUE), await relay_of(connection, GREEN)
    await store(connection, blue, [message(1)])
    await store(connection, green, [message(2)])
    await store(connection, blue, [message(3), message(4)])
    await store(connection, green, [message(5)])
    rows("UPDATE relay.deliveries SET owner = %s WHERE state = 'forwarding'", (blue,))
    await destinations.refresh(connection)
    assert await claimed_by(connection, green) == []  # a minute has not passed
    leave(rows, BLUE)
    await destinations.refresh(connection)
    state = await backlog.read(connection)
    assert state.by_reason == {WaitReason.DESTINATION: 3, WaitReason.CAPACITY: 1, WaitReason.ORDER: 1}
    assert [one.destination for one in state.gone] == [BLUE]
    await gate.hold(connection, "maria", "a deploy")
    held = await backlog.read(connection)
    assert held.overdue_s is not None  # it waits for another reason than the hold
    assert held.by_reason[WaitReason.DESTINATION] == 3
    await gate.release(connection, "maria")
    (held_claim,) = await claim_backlog(connection, green, most=9, most_bytes=10_000)
    assert held_claim.delivery.delivery_id == "1/7:2"
    again = await relay_of(connection, BLUE)
    await destinations.refresh(connection)
    # Once it has one, they have their places in the conversation again, behind what is forwarded already.
    assert (await backlog.read(connection)).by_reason == {WaitReason.ORDER: 4}
    assert await claimed_by(connection, again) == []
    await end(connection, held_claim)
    assert await begun_by(connection, again, green) == ["1/7:1", "1/7:3", "1/7:4", "1/7:5"]
    assert rows("SELECT key, head FROM relay.conversations ORDER BY key") == [("1/7", None), (f"1/7 {BLUE}", None)]


async def end(connection: Connection, *claims: Claimed) -> None:
    """These were delivered."""
    await finish(connection, [finish_of(one, outcome("200")) for one in claims])


async def begun_by(connection: Connection, *relays: UUID) -> list[str]:
    """What relays forward in turns, one delivery at a time in each conversation, until nothing is left to claim."""
    begun: list[str] = []
    while True:
        for relay in relays:
            if taken := await claim_backlog(connection, relay, most=9, most_bytes=10_000):
                begun += [one.delivery.delivery_id for one in taken]
                await end(connection, *taken)
                break
        else:
            return begun


async def test_an_attempt_in_progress_continues_when_its_destination_is_back(
    connection: Connection, rows: Rows
) -> None:
    blue, green = await relay_of(connection, BLUE), await relay_of(connection, GREEN)
    await store(connection, blue, [message(1), message(2), message(3)])
    await store(connection, green, [message(4)])
    await hand_back(connection, blue)
    leave(rows, BLUE)
    await destinations.refresh(connection, green)
    again = await relay_of(connection, BLUE)
    (first,) = await claim_backlog(connection, again, most=9, most_bytes=10_000)  # it comes before the refresh
    await destinations.refresh(connection, green)
    assert await claim_backlog(connection, green, most=9, most_bytes=10_000) == []  # 4 has not begun: it waits again
    await end(connection, first)
    assert [first.delivery.delivery_id, *await begun_by(connection, again, green)] == [
        f"1/7:{number}" for number in range(1, 5)
    ]


async def test_what_comes_back_comes_before_a_later_message_whose_retry_is_due(
    connection: Connection, rows: Rows
) -> None:
    blue, green = await relay_of(connection, BLUE), await relay_of(connection, GREEN)
    await store(connection, blue, [message(1)])
    await hand_back(connection, blue)
    leave(rows, BLUE)
    await destinations.refresh(connection, green)
    (second,) = await store(connection, green, [message(2)])
    assert isinstance(second, Claimed)
    waits = replace(finish_of(second, outcome("503")), outcome=Deferred((), 1, WaitReason.RETRY, 0), facts=[])
    assert await finish(connection, [waits]) == [True]
    again = await relay_of(connection, BLUE)
    await destinations.refresh(connection, green)
    assert await claim_backlog(connection, green, most=9, most_bytes=10_000) == []  # it is due, and blocked
    assert await begun_by(connection, again, green) == ["1/7:1", "1/7:2"]
    assert rows("SELECT DISTINCT head FROM relay.conversations") == [None]


async def test_a_relay_that_was_without_postgres_for_long_does_not_release_its_own_destination(
    connection: Connection, rows: Rows
) -> None:
    blue, green = await relay_of(connection, BLUE), await relay_of(connection, GREEN)
    await store(connection, blue, [message(1)])
    await store(connection, green, [message(2)])
    for agent in (BLUE, GREEN):
        leave(rows, agent)
    marks = "SELECT destination FROM relay.deliveries WHERE waits = 'destination'"
    await destinations.refresh(connection, blue, releases=False)  # nor any other, before its relays could say so
    assert rows(marks) == []
    await destinations.refresh(connection, blue)
    assert rows(marks) == [GREEN]
    assert await claimed_by(connection, blue) == ["1/7:1"]


async def test_a_release_s_rate_ends_although_a_destination_without_a_relay_waits(
    connection: Connection, rows: Rows
) -> None:
    blue, green = await relay_of(connection, BLUE), await relay_of(connection, GREEN)
    await store(connection, blue, [replace(incoming(), wanted=False)])
    leave(rows, BLUE)
    await destinations.refresh(connection)
    await gate.hold(connection, "maria", "a deploy")
    await gate.release(connection, "maria", 5)
    await gate.end_holds(connection)
    assert (await gate.read(connection, green)).rate is None


async def test_a_redirect_moves_what_waits_and_is_in_the_audit(connection: Connection, rows: Rows) -> None:
    blue, green = await relay_of(connection, BLUE), await relay_of(connection, GREEN)
    await store(connection, blue, [message(1), message(2), incoming("other")])
    await hand_back(connection, blue)
    leave(rows, BLUE)
    await destinations.refresh(connection)
    assert await destinations.waiting(connection, BLUE) == 3
    assert (await destinations.is_live(connection, BLUE), await destinations.is_live(connection, GREEN)) == (
        False,
        True,
    )
    assert await destinations.redirect(connection, "maria", "blue is gone", BLUE, GREEN) == 3
    (action,) = rows("SELECT operator, action, reason, details FROM relay.operator_actions")
    assert action == ("maria", "redirect", "blue is gone", {"from": BLUE, "to": GREEN, "deliveries": 3})
    state = await backlog.read(connection)
    assert (state.by_reason, state.gone) == ({WaitReason.CAPACITY: 2, WaitReason.ORDER: 1}, [])
    assert sorted(await claimed_by(connection, green)) == ["1/7:1", "other"]


async def test_a_redirect_to_what_is_no_address_is_refused(connection: Connection, rows: Rows) -> None:
    for target in ("", BLUE, "http://x\x1b]52;c;x\x07", "http://\u202e", "x" * 2_001):
        with pytest.raises(Refused, match=r"two different destinations|an address of 2,000 characters"):
            await destinations.redirect(connection, "maria", "why", BLUE, target)
    assert rows("SELECT * FROM relay.operator_actions") == []


async def test_a_redirect_moves_only_what_waited_when_it_was_asked_for_and_cannot_be_used_again(
    connection: Connection, rows: Rows
) -> None:
    blue, _ = await relay_of(connection, BLUE), await relay_of(connection, GREEN)
    await store(connection, blue, [replace(incoming("early"), wanted=False)])
    ask = "SELECT relay.ask_redirect('maria', 'blue is gone', %s, %s)"
    action = rows.one(ask, (BLUE, GREEN))
    await store(connection, blue, [replace(incoming("late"), wanted=False)])
    move = "SELECT relay.redirect(%s, 10)"
    assert [rows.one(move, (action,)) for _ in range(2)] == [1, 0]
    for used in (action, rows.one(ask, (BLUE, GREEN))):
        rows("UPDATE relay.redirects SET at = at - interval '2 hours'")
        with pytest.raises(psycopg.Error, match="no such redirect, or it has ended"):
            rows(move, (used,))
    assert dict(rows("SELECT delivery_id, destination FROM relay.deliveries")) == {"early": GREEN, "late": BLUE}


async def test_another_destination_s_backlog_costs_nothing(connection: Connection, rows: Rows) -> None:
    green = await relay_of(connection, GREEN)
    rows(
        "INSERT INTO relay.deliveries (delivery_id, claim, headers, body, test, customer, state, destination, waits) "
        "SELECT 'd' || n, gen_random_uuid(), '[]', '', false, false, 'received', %s, 'destination' "
        "FROM generate_series(1, 5000) AS n",
        (BLUE,),
    )
    rows("ANALYZE relay.deliveries")
    async with connection.transaction():
        assert await claim_backlog(connection, green, most=9, most_bytes=10_000) == []
        await destinations.refresh(connection)
        assert [one.destination for one in await destinations.gone(connection)] == [BLUE]
        read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = %s::regclass"
        row = await (await connection.execute(read, ("relay.deliveries",))).fetchone()
    assert row is not None
    assert row[0] < 100
