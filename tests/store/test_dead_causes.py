"""The failure groups' roll-up: however a delivery's state changes, its causes equal a recount of the dead letters."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from relay.domain.delivery import State
from relay.store import browse, overview
from relay.store.filters import compile_filter
from relay.store.migrate import migrations
from relay.store.retention import retire
from tests.servers import AT_ONCE_S

if TYPE_CHECKING:
    from relay.store.browse import Row
    from relay.store.database import Connection
    from tests.servers import Rows
    from tests.store.plant import Plant

DEAD = (State.DEAD,)
_CAUSES = """
    SELECT final_status, last_error, event, sum(letters)::int FROM relay.dead_causes
     GROUP BY 1, 2, 3 HAVING sum(letters) <> 0 ORDER BY 1, 2, 3
"""
_LETTERS = """
    SELECT coalesce(final_status, ''), coalesce(last_error, ''), coalesce(event, ''), count(*)::int
      FROM relay.deliveries WHERE state = 'dead' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_HISTORY = """
    INSERT INTO relay.deliveries
           (delivery_id, state, claim, test, event, conversation_id, customer, headers, body, final_status, last_error,
            finished_at)
    SELECT 'letter-' || n, (ARRAY['dead', 'dead', 'dead', 'delivered', 'discarded'])[1 + n % 5], gen_random_uuid(),
           false, (ARRAY['message_created', 'message_updated', NULL])[1 + n % 3], (n % 7)::text, false, '[]', '{}',
           (ARRAY['503', '429', 'timeout', NULL])[1 + n % 4],
           (ARRAY['Agent SDK answered 503', 'Agent SDK is rate limiting', 'No answer', NULL])[1 + n % 4],
           now() - make_interval(secs => n)
      FROM generate_series(1, 300) AS n
"""
FILTERS = (
    "", "error:503", "status:429", "status:5xx,timeout", "!status:503", "event:message_created", "!event:message",
    "error:answer event:updated", "error:nothing", "status:503 conv:3", "conv:3", "!conv:3 error:answered", "age:<1h",
    "letter-77", "status:503 letter-7",
)  # fmt: skip


def assert_causes_are_true(rows: Rows) -> None:
    assert rows(_CAUSES) == rows(_LETTERS)


@pytest.fixture
def history(rows: Rows) -> None:
    """Three hundred deliveries, most of them dead, of four causes and three events."""
    rows(_HISTORY)


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    "change",
    [
        "SELECT",
        "DELETE FROM relay.deliveries WHERE id % 3 = 0",
        "DELETE FROM relay.deliveries",
        "TRUNCATE relay.deliveries",
        "UPDATE relay.deliveries SET state = 'received' WHERE state = 'dead' AND id % 2 = 0",
        "UPDATE relay.deliveries SET state = 'dead' WHERE state = 'delivered'",
        "UPDATE relay.deliveries SET state = 'discarded'",
        "UPDATE relay.deliveries SET last_error = 'another'",
        "UPDATE relay.deliveries SET final_status = NULL, event = 'x' WHERE id % 2 = 0",
        """INSERT INTO relay.deliveries (delivery_id, state, claim, test, customer, headers, body)
           SELECT delivery_id, 'received', gen_random_uuid(), false, false, '[]', '{}' FROM relay.deliveries
           ON CONFLICT (delivery_id) DO UPDATE SET state = excluded.state""",
    ],
)
def test_the_causes_equal_the_dead_letters_after_any_change(rows: Rows, change: str) -> None:
    rows(change)
    assert_causes_are_true(rows)


@pytest.mark.usefixtures("history")
def test_a_change_that_is_undone_leaves_the_causes_as_they_were(dsn: str, rows: Rows) -> None:
    before = rows(_CAUSES)
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM relay.deliveries WHERE id % 2 = 0")
        connection.execute("TRUNCATE relay.deliveries")
        connection.rollback()
    assert rows(_CAUSES) == before


_READERS = """
    SELECT role FROM unnest(ARRAY['relay_service', 'console_operator', 'console_reader']) AS role
     WHERE has_table_privilege(role, 'relay.dead_causes', 'SELECT')
"""
_WRITERS = _READERS.replace("'SELECT'", "'INSERT, UPDATE, DELETE'")


@pytest.mark.usefixtures("history")
def test_causes_that_come_later_count_what_is_there_and_have_the_deliveries_readers(rows: Rows, dsn: str) -> None:
    (step,) = [step for step in migrations() if step.name == "0011_dead_causes"]
    rows("DROP TABLE relay.dead_causes")
    rows("DROP FUNCTION relay.count_dead, relay.forget_dead CASCADE")
    with psycopg.connect(dsn) as connection:
        connection.execute(step.sql.encode())
    assert_causes_are_true(rows)
    assert len(rows(_READERS)) == 3
    assert rows(_WRITERS) == ["relay_service"]
    rows("UPDATE relay.deliveries SET state = 'discarded' WHERE id % 2 = 0")
    assert_causes_are_true(rows)


@pytest.mark.usefixtures("history")
async def test_writers_at_once_lose_no_letter_and_do_not_wait_for_each_other(dsn: str, rows: Rows) -> None:
    async def move(share: int) -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            for state in ("received", "dead", "received", "dead"):
                statement = f"UPDATE relay.deliveries SET state = '{state}' WHERE id % 4 = {share}"
                await connection.execute(statement.encode())

    async with await psycopg.AsyncConnection.connect(dsn) as undecided:
        await undecided.execute("UPDATE relay.deliveries SET state = 'received' WHERE id % 4 = 3")
        async with asyncio.timeout(AT_ONCE_S):
            await asyncio.gather(*(move(share) for share in range(3)))
        await undecided.commit()
    assert_causes_are_true(rows)


@pytest.mark.usefixtures("history")
async def test_what_sessions_that_have_ended_counted_is_folded_into_one_row_a_cause(
    connection: Connection, rows: Rows, dsn: str
) -> None:
    for _ in range(3):
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute("UPDATE relay.deliveries SET state = 'received' WHERE state = 'dead' AND id % 11 = 0")
            session.execute("UPDATE relay.deliveries SET state = 'dead' WHERE state = 'received'")
    before = rows(_CAUSES)
    rows.close()
    await retire(connection, timedelta(days=30))
    assert rows(_CAUSES) == before
    assert_causes_are_true(rows)
    assert rows("SELECT count(*) FROM relay.dead_causes WHERE writer = 0") == [len(before)]
    rows("UPDATE relay.deliveries SET state = 'discarded'")
    assert_causes_are_true(rows)
    rows.close()
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("SELECT 1")
    await retire(connection, timedelta(days=30))
    assert rows(_CAUSES) == []


@pytest.mark.usefixtures("history")
async def test_groups_and_the_number_of_open_dead_letters_are_those_of_the_letters(
    connection: Connection, rows: Rows
) -> None:
    found = await browse.groups(connection)
    wanted = rows("""
        SELECT coalesce(final_status, ''), coalesce(last_error, ''), count(*)::int, min(finished_at), max(finished_at)
          FROM relay.deliveries WHERE state = 'dead' GROUP BY 1, 2
    """)
    assert sorted((g.final_status, g.last_error, g.count, g.first, g.last) for g in found) == sorted(wanted)
    assert [group.count for group in found] == sorted((group.count for group in found), reverse=True)
    assert all(set(group.events) == {"message_created", "message_updated"} for group in found)
    assert (await overview.read(connection)).open_dead_letters == sum(group.count for group in found) == 180


async def test_a_groups_rate_is_that_of_the_last_minute(connection: Connection, plant: Plant) -> None:
    for age_s in (1, 20, 50, 70, 4000):
        plant.delivery(age_s=age_s)
    (group,) = await browse.groups(connection)
    assert (group.count, group.per_minute) == (5, 3)
    assert group.growth(group.last) == 3
    assert group.growth(group.last + timedelta(seconds=61)) == 0


async def test_a_group_of_tests_alone_is_known_as_one(connection: Connection, plant: Plant) -> None:
    for _ in range(3):
        plant.delivery(test=True, final_status="503", last_error="Agent SDK answered 503")
        plant.delivery(test=True, final_status="422", last_error="Agent SDK refused the payload (422)")
    plant.delivery(final_status="422", last_error="Agent SDK refused the payload (422)")
    assert {group.final_status: group.only_tests for group in await browse.groups(connection)} == {
        "503": True, "422": False,
    }  # fmt: skip


async def all_pages(connection: Connection, text: str, limit: int) -> list[Row]:
    """Every dead letter that the filter finds, read page by page from the newest to the oldest."""
    found: list[Row] = []
    anchor = None
    while True:
        page = await browse.window(connection, compile_filter(text), states=DEAD, anchor=anchor, limit=limit)
        fresh = [row for row in page if row.id not in {known.id for known in found}]
        found += fresh
        if not fresh or len(page) < limit:
            return found
        anchor = page[-1].dead_key


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("text", FILTERS)
async def test_a_filter_finds_and_counts_the_same_letters_by_pages_as_in_one_query(
    connection: Connection, rows: Rows, text: str
) -> None:
    condition = compile_filter(text)
    cursor = await connection.execute(
        f"SELECT d.id FROM relay.deliveries d WHERE d.state = 'dead' AND {condition.sql.as_string()} "
        "ORDER BY d.finished_at DESC, d.id DESC".encode(),
        condition.parameters,
    )
    wanted = [row[0] for row in await cursor.fetchall()]
    assert [row.id for row in await all_pages(connection, text, 20)] == wanted
    assert await browse.count(connection, condition, DEAD) == len(wanted)
    if wanted:
        oldest = await browse.window(connection, condition, states=DEAD, limit=len(wanted))
        upwards = await browse.window(
            connection, condition, states=DEAD, anchor=oldest[-1].dead_key, newer=True, limit=5
        )
        assert [row.id for row in upwards] == wanted[-5:]


@pytest.mark.usefixtures("history")
async def test_what_has_to_be_counted_one_by_one_is_counted_up_to_a_number(connection: Connection) -> None:
    assert await browse.count(connection, compile_filter("age:<1h"), DEAD, cap=179) is None
    assert await browse.count(connection, compile_filter("age:<1h"), DEAD, cap=180) == 180
    assert await browse.count(connection, compile_filter(""), None, cap=299) is None
