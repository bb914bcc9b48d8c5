"""Signatures in Postgres: each belongs to the one delivery that was stored with it, for as long as it is valid."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from relay.domain.delivery import Signature, State
from relay.store import signatures
from relay.store.database import connection_parameters
from relay.store.deliveries import Claimed, Duplicate, Ignored
from relay.store.migrate import migrate
from relay.store.storing import store, store_drained
from tests.servers import Rows
from tests.store.plant import Plant
from tests.store.values import finish, finish_of, incoming, outcome

if TYPE_CHECKING:
    from relay.store.database import Connection
    from relay.store.deliveries import Incoming, Stored

SIGNATURE, ANOTHER = uuid4(), uuid4()


@pytest.fixture
def owner(plant: Plant) -> UUID:
    return plant.relay()


async def stored(connection: Connection, owner: UUID, *args: Any, **kwargs: Any) -> Stored:
    (result,) = await store(connection, owner, [incoming(*args, **kwargs)])
    return result


async def dead(connection: Connection, owner: UUID, delivery_id: str, **kwargs: Any) -> Claimed:
    claimed = await stored(connection, owner, delivery_id, **kwargs)
    assert isinstance(claimed, Claimed)
    assert await finish(connection, [finish_of(claimed, outcome("400"))]) == [True]
    return claimed


async def test_a_signature_under_another_id_is_a_duplicate_that_names_the_first(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    await dead(connection, owner, "first", signature=SIGNATURE)
    for delivery_id in ("second", "third"):
        assert await stored(connection, owner, delivery_id, signature=SIGNATURE) == Duplicate("first", State.DEAD)
    assert rows("SELECT delivery_id FROM relay.deliveries") == ["first"]
    assert rows("SELECT delivery_id FROM relay.signatures") == ["first"]


async def test_a_signature_seen_before_changes_no_dead_letter_whose_id_it_is_sent_with(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    await stored(connection, owner, "first", signature=SIGNATURE, body=b'{"n": 1}')
    for body in (b'{"n": 1}', b'{"n": 2}'):
        await dead(connection, owner, f"letter {body.decode()}", body=body)
    before = rows("SELECT * FROM relay.deliveries ORDER BY id")
    for body in (b'{"n": 1}', b'{"n": 2}'):
        again = await stored(connection, owner, f"letter {body.decode()}", signature=SIGNATURE, body=b'{"n": 1}')
        assert again == Duplicate("first", State.FORWARDING)
    assert rows("SELECT * FROM relay.deliveries ORDER BY id") == before


async def test_a_dead_letter_that_comes_again_with_its_own_signature_is_forwarded_again(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    await dead(connection, owner, "first", signature=SIGNATURE)
    again = await dead(connection, owner, "first", signature=SIGNATURE)
    assert again.delivery.run == 2
    again = await dead(connection, owner, "first", signature=ANOTHER)
    assert again.delivery.run == 3
    assert rows("SELECT delivery_id FROM relay.signatures") == ["first"] * 2
    assert await stored(connection, owner, "second", signature=ANOTHER) == Duplicate("first", State.DEAD)


async def test_a_signature_whose_receipt_was_not_stored_does_not_count(connection: Connection, owner: UUID) -> None:
    await stored(connection, owner, "known", signature=SIGNATURE)
    not_stored = await stored(connection, owner, "known", signature=ANOTHER, body=b'{"other": true}')
    assert not_stored == Duplicate("known", State.FORWARDING)
    assert isinstance(await stored(connection, owner, "new", signature=ANOTHER, body=b'{"other": true}'), Claimed)


async def test_an_ignored_webhooks_signature_counts(connection: Connection, owner: UUID) -> None:
    assert await stored(connection, owner, "first", signature=SIGNATURE, ignored=True) == Ignored("first")
    assert await stored(connection, owner, "second", signature=SIGNATURE) == Duplicate("first", State.IGNORED)


async def test_a_differing_redelivery_and_its_copies_are_one_delivery(connection: Connection, owner: UUID) -> None:
    await dead(connection, owner, "letter")
    own = await stored(connection, owner, "letter", signature=SIGNATURE, body=b'{"n": 2}')
    assert isinstance(own, Claimed)
    for delivery_id in ("letter", "another"):
        copy = await stored(connection, owner, delivery_id, signature=SIGNATURE, body=b'{"n": 2}')
        assert copy == Duplicate(own.delivery.delivery_id, State.FORWARDING)


async def test_storing_a_signed_webhook_again_after_a_commit_whose_end_was_not_seen_gives_the_same_claim(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    await dead(connection, owner, "letter")
    for item in (incoming("one", signature=SIGNATURE), incoming("letter", signature=ANOTHER, body=b'{"n": 2}')):
        first = await store(connection, owner, [item])
        assert isinstance(first[0], Claimed)
        assert await store(connection, owner, [item]) == first
    assert rows("SELECT count(*) FROM relay.deliveries") == [3]


async def test_one_batch_decides_for_each_of_its_webhooks(connection: Connection, owner: UUID, rows: Rows) -> None:
    await stored(connection, owner, "known", signature=SIGNATURE)
    copied, s, t = incoming("z", signature=ANOTHER, body=b'{"n": 0}'), uuid4(), uuid4()
    batch = [
        copied,
        replace(copied, claim=uuid4(), receipt=replace(copied.receipt, delivery_id="a")),  # a copy in the same batch
        incoming("b", signature=SIGNATURE),  # seen before: "b" was not stored
        incoming("b", signature=s, body=b'{"n": 1}'),  # so this one is
        incoming("known", signature=t, body=b'{"n": 2}'),  # not stored, so its signature does not count
        incoming("c", signature=t, body=b'{"n": 2}'),
        incoming("d"),
        incoming("d", body=b'{"n": 3}'),
    ]
    results = await store(connection, owner, batch)
    assert [
        (type(result), result.delivery.delivery_id if isinstance(result, Claimed) else result.delivery_id)
        for result in results
    ] == [
        (Claimed, "z"), (Duplicate, "z"), (Duplicate, "known"), (Claimed, "b"), (Duplicate, "known"), (Claimed, "c"),
        (Claimed, "d"), (Duplicate, "d"),
    ]  # fmt: skip
    assert sorted(rows("SELECT delivery_id FROM relay.signatures")) == ["b", "c", "known", "z"]
    claims = [result.claim for result in results if isinstance(result, Claimed)]
    again = await store(connection, owner, batch)  # the commits' ends were not seen
    assert [result.claim for result in again if isinstance(result, Claimed)] == claims


async def test_of_copies_that_relays_store_at_once_one_is_claimed_and_nothing_deadlocks(
    any_dsn: str,
) -> None:
    await migrate(any_dsn)
    rows, keys = Rows(any_dsn), [uuid4() for _ in range(40)]

    async def one_relay(number: int) -> list[tuple[UUID, Stored]]:
        chosen = random.Random(number)
        seen: list[tuple[UUID, Stored]] = []
        parameters = connection_parameters(any_dsn, "tests")
        async with await psycopg.AsyncConnection.connect(autocommit=True, **parameters) as connection:
            relay = Plant(rows).relay()
            for _ in range(5):  # the same ids and signatures, in any combination and order
                order = chosen.sample(keys, len(keys))
                batch = [incoming(f"{chosen.randrange(60)}", signature=key, body=f'"{key}"'.encode()) for key in order]
                seen += zip(order, await store(connection, relay, batch), strict=True)
        return seen

    results = [result for relay in await asyncio.gather(*(one_relay(n) for n in range(6))) for result in relay]
    claimed = [item.delivery for _, item in results if isinstance(item, Claimed)]
    assert len({delivery.body for delivery in claimed}) == len(claimed)  # none was claimed twice
    kept = dict(rows("SELECT signature, delivery_id FROM relay.signatures"))
    assert kept == {UUID(delivery.body.decode().strip('"')): delivery.delivery_id for delivery in claimed}
    stored_ids = rows("SELECT delivery_id FROM relay.deliveries")
    assert sorted(kept.values()) == sorted(stored_ids)
    named = [result.delivery_id for key, result in results if isinstance(result, Duplicate) and key in kept]
    assert [one for one in named if stored_ids.count(one) != 1] == []


async def test_signatures_go_in_batches_once_no_relays_clock_can_find_them_valid(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    rows(
        "INSERT INTO relay.signatures SELECT gen_random_uuid(), 'x', now() - make_interval(secs => age)"
        " FROM unnest(ARRAY[-300, 0, 290]) AS age"
    )
    rows(
        "INSERT INTO relay.signatures SELECT gen_random_uuid(), 'old', now() - interval '11 minutes'"
        " FROM generate_series(1, %s)",
        (signatures.BATCH * 2 + 5,),
    )
    assert await signatures.remove_expired(connection, stop=lambda: True) == 0
    assert await signatures.remove_expired(connection) == signatures.BATCH * 2 + 5
    assert rows("SELECT delivery_id FROM relay.signatures") == ["x"] * 3


async def test_a_signature_that_expired_is_free_for_another_delivery_once_it_is_removed(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    await stored(connection, owner, "first", signature=SIGNATURE)
    rows("UPDATE relay.signatures SET expires_at = now() - interval '1 hour'")
    await signatures.remove_expired(connection)
    assert isinstance(await stored(connection, owner, "second", signature=SIGNATURE), Claimed)


async def test_a_copy_that_was_spooled_longer_than_its_signature_was_valid_is_a_duplicate(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    header = (("x-chatwoot-signature", "sha256=abc"),)

    def spooled(delivery_id: str, key: UUID = SIGNATURE) -> Incoming:
        item = incoming(delivery_id)
        signature = Signature(key, int(time.time()) - 3_000)
        at = datetime.now(UTC) - timedelta(seconds=3_300)
        receipt = replace(item.receipt, headers=header if key == SIGNATURE else (), signature=signature)
        return replace(item, receipt=receipt, received_at=at)

    async def drained(*batch: Incoming) -> list[Stored]:
        await signatures.remove_expired(connection)
        return await store_drained(connection, owner, batch)

    (first,) = await drained(spooled("first"))
    assert isinstance(first, Claimed)
    again, copy, another = await drained(spooled("first"), spooled("copy"), spooled("another", ANOTHER))
    assert again == copy == Duplicate("first", State.FORWARDING)
    assert isinstance(another, Claimed)
    assert rows("SELECT delivery_id FROM relay.deliveries ORDER BY id") == ["first", "another"]


async def test_a_signature_outlives_a_delivery_that_retention_removed(
    connection: Connection, owner: UUID, rows: Rows
) -> None:
    await stored(connection, owner, "first", signature=SIGNATURE)
    rows("DELETE FROM relay.deliveries")
    assert await stored(connection, owner, "second", signature=SIGNATURE) == Duplicate("first", State.DELIVERED)
