"""The roll-ups: however `dashboard_facts` changes, the minutes equal a recount of the facts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from relay.store.migrate import migrations
from tests.store.plant import DEAD_LETTER, HEALTH, REJECTED, REPLAY, RETRY

if TYPE_CHECKING:
    from tests.servers import Rows
    from tests.store.plant import Plant

_MINUTES = """
    SELECT minute, fact_type, test, success, attempts, final_status, slot, sum(facts)::int, sum(duration_ms)::int
      FROM relay.minutes GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING sum(facts) <> 0 OR sum(duration_ms) <> 0
"""
_HOURS = """
    SELECT hour, fact_type, test, success, attempts, final_status, slot, sum(facts)::int, sum(duration_ms)::int
      FROM relay.hours GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING sum(facts) <> 0 OR sum(duration_ms) <> 0
"""
_FACTS = """
    SELECT date_trunc('minute', recorded_at), fact_type, t.test, t.success, t.attempts, t.final_status, t.slot,
           sum(t.facts)::int, sum(t.duration_ms)::int
      FROM dashboard_facts f, relay.tally(f.fact_type, f.value, f.metadata) t
     WHERE fact_type <> 'support.health' GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
_TOTALS = "SELECT fact_type, sum(facts)::int FROM relay.minutes GROUP BY 1 HAVING sum(facts) <> 0 ORDER BY 1"


def assert_minutes_are_true(rows: Rows) -> None:
    assert sorted(rows(_MINUTES)) == sorted(rows(_FACTS))
    assert sorted(rows(_HOURS)) == sorted(rows(_FACTS.replace("'minute', recorded_at", "'hour', recorded_at, 'UTC'")))


_HISTORY = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)
    SELECT (ARRAY['support.webhook.retry', 'support.webhook.replay', 'support.webhook.dead_letter'])[1 + n % 3], 's',
           jsonb_build_object('success', n % 4 > 0, 'attempts', 1 + n % 5, 'durationMs', n * n % 7919,
                              'finalStatus', (ARRAY['200', '503', 'timeout'])[1 + n % 7 % 3]),
           jsonb_build_object('test', n % 6 = 0), now() - make_interval(secs => n * 31)
      FROM generate_series(1, 300) AS n
"""


@pytest.fixture
def history(rows: Rows, plant: Plant) -> None:
    """Three hours of everything."""
    rows(_HISTORY)
    plant.facts(REJECTED, {"reason": "invalid_signature", "count": 17}, age_s=50)


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    "change",
    [
        "SELECT",
        "DELETE FROM dashboard_facts WHERE id % 3 = 0",
        "DELETE FROM dashboard_facts",
        "TRUNCATE dashboard_facts",
        """UPDATE dashboard_facts SET value = value || '{"attempts": 7}' WHERE id % 2 = 0""",
        "UPDATE dashboard_facts SET recorded_at = recorded_at - interval '90 seconds'",
        "UPDATE dashboard_facts SET fact_type = 'support.webhook.replay' WHERE id % 2 = 0",
        """UPDATE dashboard_facts SET metadata = '{"test": true}' WHERE id % 5 = 0""",
        "UPDATE dashboard_facts SET id = id + 100000",
        """WITH gone AS (DELETE FROM dashboard_facts WHERE id % 2 = 0 RETURNING *)
           INSERT INTO dashboard_facts SELECT id + 1000, fact_type, scope, value, metadata, recorded_at FROM gone""",
    ],
)
def test_the_minutes_equal_the_facts_after_any_change(rows: Rows, change: str) -> None:
    rows(change)
    assert_minutes_are_true(rows)


_READERS = """
    SELECT role FROM unnest(ARRAY['relay_service', 'console_operator', 'console_reader']) AS role
     WHERE has_table_privilege(role, 'relay.hours', 'SELECT')
"""


@pytest.mark.usefixtures("history")
def test_hours_that_come_later_hold_what_the_minutes_hold_and_are_their_readers(rows: Rows, dsn: str) -> None:
    (step,) = [step for step in migrations() if step.name == "0010_hours"]
    rows("DROP TABLE relay.hours")
    with psycopg.connect(dsn) as connection:
        connection.execute(step.sql.encode())
    assert_minutes_are_true(rows)
    assert len(rows(_READERS)) == 3
    rows("DELETE FROM dashboard_facts WHERE id % 2 = 0")
    assert_minutes_are_true(rows)


@pytest.mark.usefixtures("history")
def test_a_change_that_is_undone_leaves_the_minutes_as_they_were(dsn: str, rows: Rows) -> None:
    before = sorted(rows(_MINUTES))
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM dashboard_facts WHERE id % 2 = 0")
        connection.execute("TRUNCATE dashboard_facts")
        connection.rollback()
    assert sorted(rows(_MINUTES)) == before


def test_facts_that_arrive_by_copy_count(dsn: str, rows: Rows) -> None:
    statement = "COPY dashboard_facts (fact_type, scope, value) FROM STDIN"
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor, cursor.copy(statement) as copy:
        for _ in range(10):
            copy.write_row((RETRY, "support", '{"success": true, "attempts": 1, "durationMs": 5}'))
    assert rows(_TOTALS) == [(RETRY, 10)]
    assert_minutes_are_true(rows)


_WRITE = """
    INSERT INTO dashboard_facts (fact_type, scope, value)
    SELECT 'support.webhook.retry', 's', jsonb_build_object('attempts', n) FROM unnest(%s::int[]) AS n
"""
_DELETE_ONE = "DELETE FROM dashboard_facts WHERE id = (SELECT max(id) FROM dashboard_facts)"


async def test_writers_at_once_lose_no_count_and_do_not_deadlock(dsn: str, rows: Rows) -> None:
    async def write(order: int) -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            for n in range(25):
                await connection.execute(_WRITE, ([1, 2, 3][::order],))
                if n % 5 == 0:
                    await connection.execute(_DELETE_ONE)

    await asyncio.gather(*(write(order) for order in (1, -1, 1, -1)))
    assert_minutes_are_true(rows)
    assert rows(_TOTALS) == rows("SELECT fact_type, count(*)::int FROM dashboard_facts GROUP BY 1")


def test_facts_of_other_kinds_are_not_rolled_up(plant: Plant, rows: Rows) -> None:
    plant.probe(ok=True, age_s=1)
    plant.facts("sales.revenue", {"success": True})
    plant.facts("support.webhook.of_another_program" * 200, {"success": True})
    assert rows(_TOTALS) == []


ODD: list[Any] = [
    None, True, "", "word", [], [1, 2], {}, {"attempts": "three"}, {"attempts": -1}, {"attempts": 1e300},
    {"attempts": 2.5, "durationMs": 17.5}, {"durationMs": "1e5"}, {"durationMs": 10**30}, {"durationMs": []},
    {"success": "yes"}, {"success": 1}, {"finalStatus": {"a": 1}}, {"finalStatus": "x" * 5_000}, {"finalStatus": None},
    {"count": "many", "reason": ["a"]}, {"count": -4, "reason": "r"}, {"attempts": "000000000001"},
    {"finalStatus": "€" * 200},
]  # fmt: skip


_WRITE_ODD = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata)
    SELECT fact_type, 's', value, metadata
      FROM unnest(%s::text[]) AS t(fact_type), jsonb_array_elements(%s) AS v(value),
           jsonb_array_elements(%s) AS m(metadata)
"""


def test_facts_with_odd_values_can_be_written_changed_and_deleted(rows: Rows) -> None:
    rows(_WRITE_ODD, ([RETRY, DEAD_LETTER, REPLAY, REJECTED, HEALTH], Jsonb(ODD), Jsonb(ODD[::3])))
    assert_minutes_are_true(rows)
    rows("UPDATE dashboard_facts SET recorded_at = recorded_at + interval '1 minute'")
    assert_minutes_are_true(rows)
    rows("DELETE FROM dashboard_facts")
    assert rows(_MINUTES) == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
_KEYS = ("attempts", "success", "durationMs", "finalStatus", "reason", "count", "test")


@given(st.dictionaries(st.sampled_from(_KEYS), _JSON), st.dictionaries(st.sampled_from(_KEYS), _JSON))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_fact_of_anybody_breaks_the_roll_ups(plant: Plant, rows: Rows, value: Any, metadata: Any) -> None:
    for fact_type in (RETRY, REJECTED):
        plant.facts(fact_type, value, metadata)
    assert_minutes_are_true(rows)
