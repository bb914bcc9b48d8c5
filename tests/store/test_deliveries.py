"""Deliveries in Postgres: stored once, forwarded again only when dead, finished by the holder of the claim."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from relay.domain.delivery import State
from relay.store.claims import claim_abandoned
from relay.store.database import connection_parameters
from relay.store.deliveries import Claimed, Duplicate, Ignored, progress
from relay.store.storing import store, store_drained
from tests.servers import AT_ONCE_S
from tests.store.values import finish, finish_of, incoming, outcome

if TYPE_CHECKING:
    from relay.domain.delivery import Delivery
    from relay.store.database import Connection
    from relay.store.deliveries import Incoming
    from tests.servers import Rows
    from tests.store.plant import Plant


@pytest.fixture
def owner(plant: Plant) -> UUID:
    return plant.relay()


async def stored(connection: Connection, owner: UUID, *args: Any, **kwargs: Any) -> Claimed:
    (claimed,) = await store(connection, owner, [incoming(*args, **kwargs)])
    assert isinstance(claimed, Claimed)
    return claimed


async def stored_as(connection: Connection, owner: UUID, item: Incoming) -> Delivery:
    """What a webhook is stored as."""
    (claimed,) = await store(connection, owner, [item])
    assert isinstance(claimed, Claimed)
    return claimed.delivery


async def ended(connection: Connection, owner: UUID, state: State, delivery_id: str = "") -> Claimed:
    """A delivery that was stored and whose run ended as `delivered` or `dead`."""
    claimed = await stored(connection, owner, delivery_id)
    assert await finish(connection, [finish_of(claimed, outcome("200" if state is State.DELIVERED else "400"))]) == [
        True
    ]
    return claimed


async def test_a_stored_delivery_keeps_the_body_and_the_headers_whole(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    body = '{"event":  "message_created",\n "content": "é \\u0000 \\ud800 1e999999"}'.encode()
    claimed = await stored(connection, owner, "one", body=body)
    kept, headers, state, run = rows.one("SELECT body, headers, state, run FROM relay.deliveries")
    assert kept == body == claimed.delivery.body
    assert headers == [["content-type", "application/json"], ["x-chatwoot-event", "é"]]
    assert (state, run) == ("forwarding", 1)


async def test_only_what_is_long_is_stored_out_of_the_row(connection: Connection, owner: UUID, rows: Rows) -> None:
    rows("UPDATE relay.instances SET agent = 'http://agent.example:8787/webhooks/chatwoot'")
    body = rows.one("SELECT convert_to(string_agg(md5(n::text), ''), 'UTF8') FROM generate_series(1, 100) AS n")
    claimed = await stored_as(connection, owner, replace(incoming(str(uuid4()), body=body), order_key="1/1000000"))
    assert claimed.body == body
    table = rows.one("SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'relay.deliveries'::regclass")
    assert rows(f"SELECT sum(length(chunk_data)) > 1000 FROM {table} GROUP BY chunk_id") == [True]


async def test_a_claim_has_its_own_time_not_that_of_a_transaction_that_waited(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    async with connection.transaction():
        await connection.execute("SELECT")
        await stored(connection, owner, "one")
        late = "SELECT claimed_at > now() FROM relay.deliveries"
        assert await (await connection.execute(late)).fetchall() == [(True,)]
    rows("UPDATE relay.deliveries SET claimed_at = claimed_at - interval '1 hour'")
    async with connection.transaction():
        await connection.execute("SELECT")
        given = {"held": [], "settled": False, "most": 2, "orphan_s": 12}
        assert len(await claim_abandoned(connection, owner, **given)) == 1
        assert await (await connection.execute(late)).fetchall() == [(True,)]


async def test_a_batch_answers_in_the_order_it_was_given(connection: Connection, owner: UUID, rows: Rows) -> None:
    batch = [incoming(delivery_id) for delivery_id in ("b", "c", "a")]
    results = await store(connection, owner, batch)
    assert [result.delivery.delivery_id for result in results if isinstance(result, Claimed)] == ["b", "c", "a"]
    assert [result.claim for result in results if isinstance(result, Claimed)] == [item.claim for item in batch]
    assert dict(rows("SELECT delivery_id, claim FROM relay.deliveries")) == {
        item.receipt.delivery_id: item.claim for item in batch
    }


@pytest.mark.parametrize("state", [State.RECEIVED, State.FORWARDING, State.DELIVERED, State.DISCARDED])
async def test_a_delivery_that_comes_again_is_a_duplicate_and_changes_nothing(
    connection: Connection, owner: UUID, plant: Plant, rows: Rows, state: State
) -> None:
    plant.delivery(state, delivery_id="known", owner=owner if state is State.FORWARDING else None)
    before = rows("SELECT * FROM relay.deliveries")
    assert await store(connection, uuid4(), [incoming("known", body=b"{}")]) == [Duplicate("known", state)]
    assert rows("SELECT * FROM relay.deliveries") == before


async def test_a_dead_delivery_that_comes_again_is_forwarded_again_with_its_new_signature_and_nothing_else_new(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    first = await ended(connection, owner, State.DEAD, "known")
    kept = [[name, value] for name, value in first.delivery.headers]
    signed = [["x-chatwoot-timestamp", "2"], ["x-chatwoot-signature", "new"]]
    headers = (("content-encoding", "gzip"), *((name, value) for name, value in signed))
    again = incoming("known", encoded_body=b"compressed")
    again = replace(again, receipt=replace(again.receipt, headers=headers, test=True))
    (second,) = await store(connection, owner, [again])
    assert isinstance(second, Claimed)
    assert (second.delivery.id, second.delivery.run) == (first.delivery.id, 2)
    assert [list(header) for header in second.delivery.headers] == kept + signed
    assert (second.delivery.sent_body, second.delivery.test) == (first.delivery.body, False)
    assert rows("SELECT state, run, test, body, encoded_body, headers, finished_at FROM relay.deliveries") == [
        ("forwarding", 2, False, first.delivery.body, None, kept + signed, None)
    ]


async def test_a_webhook_that_differs_from_the_dead_letter_of_its_id_is_a_delivery_of_its_own(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    await ended(connection, owner, State.DEAD, "known")
    letter = "SELECT * FROM relay.deliveries WHERE delivery_id = 'known'"
    before = rows(letter)
    item = incoming("known", body=b'{"second": true}')
    own = await stored_as(connection, owner, item)
    assert rows(letter) == before
    assert own.delivery_id != "known"
    assert str(UUID(own.delivery_id)) == own.delivery_id
    assert rows("SELECT body FROM relay.deliveries WHERE delivery_id = %s", (own.delivery_id,)) == [b'{"second": true}']
    assert (await stored_as(connection, owner, item)).id == own.id  # its commit's end was not seen
    again = incoming("known", body=b'{"second": true}')
    assert await store(connection, owner, [again]) == [Duplicate(own.delivery_id, State.FORWARDING)]
    another = await stored_as(connection, owner, incoming("known", body=b'{"third": true}'))
    assert another.delivery_id not in {own.delivery_id, "known"}
    ignored = await store(connection, owner, [incoming("known", body=b'{"fourth": true}', ignored=True)])
    assert [type(result) for result in ignored] == [Ignored]
    assert rows(letter) == before


async def test_one_batch_with_the_same_id_twice_stores_it_once(connection: Connection, owner: UUID, rows: Rows) -> None:
    first, second = await store(connection, owner, [incoming("same", body=b"{}"), incoming("same", body=b"[]")])
    assert isinstance(first, Claimed)
    assert second == Duplicate("same", State.FORWARDING)
    assert rows("SELECT body FROM relay.deliveries") == [b"{}"]


async def test_relays_that_store_the_same_ids_at_once_claim_each_of_them_once(dsn: str, plant: Plant) -> None:
    async def one_relay(order: int) -> list[Claimed | Duplicate]:
        ids = [f"{n:03}" for n in range(200)][::order]
        parameters = connection_parameters(dsn, "tests")
        async with await psycopg.AsyncConnection.connect(autocommit=True, **parameters) as connection:
            return await store(connection, plant.relay(), [incoming(delivery_id) for delivery_id in ids])

    results = await asyncio.gather(*(one_relay(order) for order in (1, -1, 1, -1)))
    claimed = [item.delivery.delivery_id for batch in results for item in batch if isinstance(item, Claimed)]
    assert sorted(claimed) == [f"{n:03}" for n in range(200)]


async def test_storing_again_after_a_commit_whose_end_was_not_seen_gives_the_same_claim(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    item = incoming("one")
    first = await store(connection, owner, [item])
    assert await store(connection, owner, [item]) == first
    assert rows("SELECT count(*) FROM relay.deliveries") == [1]


async def test_a_batch_with_a_value_that_postgres_refuses_stores_nothing(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    bad = incoming("bad")
    bad = replace(bad, receipt=replace(bad.receipt, event="\0"))
    with pytest.raises(psycopg.DataError):
        await store(connection, owner, [incoming("good"), bad])
    assert rows("SELECT count(*) FROM relay.deliveries") == [0]


async def test_finishing_commits_state_attempts_and_facts_together(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    claimed = await stored(connection, owner, "one", body=b'{"event": "message_created", "amount": 1.10}')
    assert await finish(connection, [finish_of(claimed, outcome("503", "timeout", "503"))]) == [True]
    assert rows.one("SELECT state, owner, attempts, final_status, last_error FROM relay.deliveries") == (
        "dead", None, 3, "503", "Agent SDK answered 503",
    )  # fmt: skip
    assert rows.one("SELECT finished_at >= received_at FROM relay.deliveries")
    assert rows("SELECT run, number, wait_ms, status FROM relay.attempts ORDER BY number") == [
        (1, 1, 0, "503"), (1, 2, 200, "timeout"), (1, 3, 200, "503"),
    ]  # fmt: skip
    assert [value["success"] for value, _ in rows.facts("support.webhook.retry")] == [False]
    assert rows("SELECT value ->> 'payload' FROM dashboard_facts WHERE fact_type = 'support.webhook.dead_letter'") == [
        '{"event": "message_created", "amount": 1.10}'
    ]


async def test_a_value_that_postgres_refuses_leaves_no_part_of_the_outcome(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    good, bad = await stored(connection, owner), await stored(connection, owner)
    with pytest.raises(psycopg.DataError):
        await finish(
            connection, [finish_of(good, outcome("200")), finish_of(bad, outcome("500", answer="\0 in an answer"))]
        )
    assert rows("SELECT state FROM relay.deliveries") == ["forwarding", "forwarding"]
    assert rows("SELECT count(*) FROM relay.attempts UNION ALL SELECT count(*) FROM dashboard_facts") == [0, 0]


async def test_finishing_twice_records_once_and_says_so_both_times(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    done = finish_of(await stored(connection, owner), outcome("503", "200"))
    assert await finish(connection, [done]) == [True]
    assert await finish(connection, [done]) == [True]
    assert rows("SELECT count(*) FROM relay.attempts") == [2]
    assert rows("SELECT count(*) FROM dashboard_facts") == [1]


async def test_a_finisher_whose_claim_was_taken_over_records_nothing(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    claimed = await stored(connection, owner)
    rows("UPDATE relay.deliveries SET claim = gen_random_uuid()")
    assert await finish(connection, [finish_of(claimed, outcome("200"))]) == [False]
    assert rows("SELECT state FROM relay.deliveries") == ["forwarding"]
    assert rows("SELECT count(*) FROM relay.attempts UNION ALL SELECT count(*) FROM dashboard_facts") == [0, 0]


async def test_a_late_finisher_cannot_change_what_the_taker_over_finished(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    late = await stored(connection, owner, "one")
    claim = uuid4()
    rows("UPDATE relay.deliveries SET claim = %s, run = 2", (claim,))
    taken_over = Claimed(claim, replace(late.delivery, run=2))
    assert await finish(connection, [finish_of(taken_over, outcome("200"))]) == [True]
    assert await finish(connection, [finish_of(late, outcome("503"))]) == [False]
    assert rows("SELECT state, final_status FROM relay.deliveries") == [("delivered", "200")]
    assert rows("SELECT run, status FROM relay.attempts") == [(2, "200")]


async def test_one_batch_of_outcomes_says_of_each_whether_it_was_recorded(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    first, lost, again = [await stored(connection, owner) for _ in range(3)]
    rows("UPDATE relay.deliveries SET claim = gen_random_uuid() WHERE id = %s", (lost.delivery.id,))
    await finish(connection, [finish_of(again, outcome("200"))])
    batch = [finish_of(claimed, outcome("200")) for claimed in (first, lost, again)]
    assert await finish(connection, batch) == [True, False, True]


async def test_progress_shows_the_last_run_with_its_attempts(connection: Connection, owner: UUID) -> None:
    assert await progress(connection, "known") is None
    await ended(connection, owner, State.DEAD, "known")
    again = await stored(connection, owner, "known")
    await finish(connection, [finish_of(again, outcome("503", "200"))])
    found = await progress(connection, "known")
    assert found is not None
    assert found.settled
    assert (found.state, found.run, found.final_status) == (State.DELIVERED, 2, "200")
    assert [(attempt["number"], attempt["status"]) for attempt in found.attempts] == [(1, "503"), (2, "200")]


async def test_neither_a_webhook_nor_a_spooled_receipt_waits_for_a_held_row_longer_than_it_may(
    connection: Connection, rows: Rows
) -> None:
    ordered = replace(incoming("ordered"), order_key="1/7")
    await store(connection, uuid4(), [replace(incoming(), order_key="1/7")])
    async with await psycopg.AsyncConnection.connect(rows.dsn) as other:
        await store(other, uuid4(), [incoming("held")])  # type: ignore[arg-type] # it needs nothing of the relay's
        await other.execute("SELECT FROM relay.conversations FOR UPDATE")
        for item, waits in ((incoming("held"), (1, 60_000)), (ordered, (60_000, 1))):
            for storing in (store, store_drained):
                async with asyncio.timeout(AT_ONCE_S - 1):
                    with pytest.raises(psycopg.errors.LockNotAvailable):
                        await storing(connection, uuid4(), [item], lock_ms=waits[0], conversation_ms=waits[1])
        await other.rollback()
    assert rows("SELECT count(*) FROM relay.deliveries") == [1]
