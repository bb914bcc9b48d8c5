"""Headers that an earlier version stored: removed in small batches, and never shown or sent meanwhile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg

from relay.store import delivery_detail
from relay.store.claims import claim_backlog
from relay.store.scrub import BATCH, scrub_headers
from relay.text import MASK

if TYPE_CHECKING:
    from relay.store.database import Connection
    from tests.servers import Rows
    from tests.store.plant import Plant

KEPT = [["content-type", "application/json"], ["x-chatwoot-event", "é"], ["x-chatwoot-signature", "sha256=abc"]]
OLD = [["host", "relay"], KEPT[0], ["authorization", "Bearer s3cret"], KEPT[1], ["cookie", "s3cret"], KEPT[2],
       ["x-api-key", "s3cret"]]  # fmt: skip


def age_headers(rows: Rows) -> None:
    rows("UPDATE relay.deliveries SET headers = %s::jsonb", (json.dumps(OLD),))


async def test_every_stored_header_that_need_not_be_kept_is_removed(
    connection: Connection, plant: Plant, rows: Rows
) -> None:
    plant.delivery("dead", age_s=3_600)
    rows(
        "INSERT INTO relay.deliveries (delivery_id, state, claim, test, customer, headers, body, received_at)"
        " SELECT n::text, 'delivered', gen_random_uuid(), false, false, '[]', '{}', now() - interval '1 hour'"
        " FROM generate_series(1, %s) n",
        (2 * BATCH + 10,),
    )
    age_headers(rows)
    await scrub_headers(connection, stop=lambda: True)
    assert rows("SELECT count(*) FROM relay.deliveries WHERE headers::text LIKE '%%s3cret%%'") == [2 * BATCH + 11]
    await scrub_headers(connection)
    assert rows("SELECT DISTINCT headers FROM relay.deliveries") == [KEPT]
    assert rows("SELECT sum(letters)::int FROM relay.dead_causes") == [1]


async def test_a_row_that_is_locked_is_scrubbed_later(connection: Connection, plant: Plant, rows: Rows) -> None:
    ids = [plant.delivery("dead", age_s=3_600) for _ in range(3)]
    age_headers(rows)
    async with connection.transaction():
        await connection.execute("SELECT FROM relay.deliveries WHERE id = %s FOR UPDATE", (ids[1],))
        async with await psycopg.AsyncConnection.connect(rows.dsn, autocommit=True) as another:
            await scrub_headers(another)
    assert rows("SELECT id FROM relay.deliveries WHERE headers::text LIKE '%%s3cret%%'") == [ids[1]]
    await scrub_headers(connection)
    assert rows("SELECT DISTINCT headers FROM relay.deliveries") == [KEPT]


async def test_what_an_older_relay_stores_for_a_day_is_scrubbed_and_then_the_work_ends(
    connection: Connection, plant: Plant, rows: Rows
) -> None:
    plant.delivery("dead", age_s=3_600)
    await scrub_headers(connection)
    plant.delivery("dead", age_s=120)
    plant.delivery("dead", age_s=0)  # too young: a transaction with a lower id may not have ended
    age_headers(rows)
    await scrub_headers(connection)
    assert rows("SELECT headers = %s::jsonb FROM relay.deliveries ORDER BY id", (json.dumps(OLD),)) == [
        True, False, True,
    ]  # fmt: skip
    assert rows("SELECT count(*) FROM relay.header_scrub") == [1]
    rows("UPDATE relay.header_scrub SET ends_at = now() - interval '1 hour'")
    await scrub_headers(connection)
    assert rows("SELECT count(*) FROM relay.header_scrub") == [0]
    await scrub_headers(connection)


async def test_old_headers_neither_leave_the_store_for_a_screen_nor_for_an_attempt(
    connection: Connection, plant: Plant, rows: Rows
) -> None:
    row_id = plant.delivery("dead")
    plant.delivery("received")
    age_headers(rows)
    detail = await delivery_detail.detail(connection, row_id)
    assert detail is not None
    shown = (("content-type", "application/json"), ("x-chatwoot-event", "é"), ("x-chatwoot-signature", MASK))
    assert detail.headers == shown
    (claimed,) = await claim_backlog(connection, plant.relay(), most=9, most_bytes=9_000)
    assert [list(header) for header in claimed.delivery.headers] == KEPT
