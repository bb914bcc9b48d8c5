"""`dashboard_facts` in another owner's hands: their types give them no rights, and their inserts always work."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from relay.domain.delivery import FactType
from relay.incident import state
from relay.incident.headline import headline
from relay.incident.timeline import assemble
from relay.store import alerts, outages, overview, proposals, timeline, traffic
from relay.telemetry.gauges import gauges_of
from relay.text import json_text
from tests.store.attacks import Target, crafted_type, login_of, run, target_on
from tests.store.plant import Plant
from tests.store.test_roles import connected

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIGURE = "SELECT coalesce(sum(facts), 0)::int FROM relay.minutes WHERE fact_type = 'support.webhook.retry'"
_WRITE = "INSERT INTO {} (scope, fact_type, value) VALUES ('theirs', 'support.webhook.retry', %s)"


@pytest.fixture
def target(any_postgres: str) -> Iterator[Target]:
    """A migrated database with a history, on each PostgreSQL."""
    with target_on(any_postgres) as made:
        yield made


@pytest.fixture
def owner(target: Target) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the login that owns `dashboard_facts`, and has no role."""
    dsn = target.login("no role")
    target.rows(sql.SQL("ALTER TABLE dashboard_facts OWNER TO {}").format(login_of(dsn)).as_string())
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def execute(connection: psycopg.Connection[Any], *statements: str) -> None:
    for statement in statements:
        connection.execute(statement.encode())


@pytest.mark.parametrize("column", ["value", "metadata", "fact_type", "recorded_at"])
def test_a_type_of_the_owners_own_runs_nothing_with_the_relays_rights(
    target: Target, owner: psycopg.Connection[Any], column: str
) -> None:
    owner.execute(_WRITE.format("dashboard_facts").encode(), ("{}",))  # so that plans are made before the change
    before = target.rows.one(_FIGURE)
    execute(
        owner,
        *crafted_type("public"),
        "DROP INDEX IF EXISTS dashboard_facts_type_time",
        f"ALTER TABLE dashboard_facts ALTER COLUMN {column} DROP DEFAULT",
        f"ALTER TABLE dashboard_facts ALTER COLUMN {column} TYPE public.crafted USING ROW(1)::public.crafted",
    )
    given = {"scope": "'s'", "fact_type": "'support.webhook.retry'", "value": "'{}'", column: "ROW(1)::public.crafted"}
    insert = f"INSERT INTO dashboard_facts ({', '.join(given)}) VALUES ({', '.join(given.values())})"
    execute(owner, insert, f"UPDATE dashboard_facts SET {column} = {column}", "DELETE FROM dashboard_facts")
    assert target.rows("SELECT to_regclass('relay.pwned')") == [None]
    assert target.rows.one(_FIGURE) == before


def test_an_enum_with_a_cast_of_its_own_runs_nothing_with_the_relays_rights(
    target: Target, owner: psycopg.Connection[Any]
) -> None:
    before = target.rows.one(_FIGURE)
    execute(
        owner,
        *crafted_type("public"),
        "CREATE TYPE kinds AS ENUM ('support.webhook.retry', 'support.webhook.dead_letter')",
        "CREATE FUNCTION of_kind(kinds) RETURNS text LANGUAGE sql AS 'SELECT evil()::text'",
        "CREATE CAST (kinds AS text) WITH FUNCTION of_kind(kinds) AS IMPLICIT",
        "ALTER TABLE dashboard_facts ALTER COLUMN fact_type TYPE kinds "
        "USING (CASE WHEN scope > '' THEN 'support.webhook.retry' END)::kinds",
        _WRITE.format("dashboard_facts").replace("%s", "'{}'"),
    )
    assert target.rows("SELECT to_regclass('relay.pwned')") == [None]
    assert target.rows.one(_FIGURE) == before + 1


_READABLE = [
    ("ALTER COLUMN value TYPE text", "not json", 0),
    ("ALTER COLUMN value TYPE text", '{"success": true}', 1),
    ("ALTER COLUMN value TYPE varchar(200)", '{"success": true}', 1),
    ("ALTER COLUMN value TYPE json USING value::text::json", '{"success": true, "a": "\\u0000"}', 0),
    ("ALTER COLUMN value TYPE json USING value::text::json", '{"success": true}', 1),
    ("ALTER COLUMN value TYPE of_json", "{}", 1),
    ("ALTER COLUMN metadata TYPE text", "{}", 1),
    ("ALTER COLUMN fact_type TYPE varchar(60)", "{}", 1),
    ("ALTER COLUMN fact_type TYPE char(60)", "{}", 1),
    ("ALTER COLUMN fact_type TYPE kinds USING fact_type::kinds", "{}", 1),
    ("ALTER COLUMN recorded_at TYPE timestamp", "{}", 1),
    ("ALTER COLUMN recorded_at TYPE date", "{}", 1),
    ("ALTER COLUMN recorded_at SET DEFAULT 'infinity'", "{}", 0),
    ("ALTER COLUMN recorded_at TYPE timestamp, ALTER COLUMN recorded_at SET DEFAULT '4714-11-24 BC'", "{}", 0),
    ("ALTER COLUMN recorded_at TYPE date, ALTER COLUMN recorded_at SET DEFAULT '5874897-12-31'", "{}", 0),
    ("DROP COLUMN recorded_at, ADD COLUMN recorded_at integer DEFAULT 1", "{}", 0),
    ("DROP COLUMN metadata", "{}", 0),
    ("RENAME COLUMN metadata TO meta", "{}", 0),
    ("RENAME TO old_facts", "{}", 1),
    ("SET SCHEMA theirs", "{}", 1),
]


@pytest.mark.parametrize(("change", "value", "counted"), _READABLE, ids=[f"{row[0]}, {row[1]}" for row in _READABLE])
def test_the_owner_can_always_write_and_counts_where_that_is_possible(
    target: Target, owner: psycopg.Connection[Any], change: str, value: str, counted: int
) -> None:
    target.rows("CREATE SCHEMA theirs; GRANT ALL ON SCHEMA theirs TO PUBLIC")
    execute(
        owner,
        "CREATE TYPE kinds AS ENUM ('support.webhook.retry', 'support.webhook.dead_letter')",
        "CREATE DOMAIN of_json AS jsonb CHECK (value IS NOT NULL)",
        f"ALTER TABLE dashboard_facts {change}",
    )
    before = target.rows.one(_FIGURE)
    table = {"RENAME TO old_facts": "old_facts", "SET SCHEMA theirs": "theirs.dashboard_facts"}.get(
        change, "dashboard_facts"
    )
    owner.execute(_WRITE.format(table).encode(), (value,))
    assert target.rows.one(_FIGURE) == before + counted
    execute(owner, f"DELETE FROM {table} WHERE scope = 'theirs'")
    assert target.rows.one(_FIGURE) == before


def test_an_application_that_may_only_insert_counts_by_insert_and_by_copy(target: Target) -> None:
    dsn = target.login("no role")
    target.rows(sql.SQL("GRANT INSERT ON dashboard_facts TO {}").format(login_of(dsn)).as_string())
    before = target.rows.one(_FIGURE)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_WRITE.format("dashboard_facts").encode(), ("{}",))
        statement = "COPY dashboard_facts (scope, fact_type, value) FROM STDIN"
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write_row(("s", "support.webhook.retry", "{}"))
            copy.write_row(("s", "support.webhook.retry", "{}"))
    assert target.rows.one(_FIGURE) == before + 3


@pytest.mark.parametrize("role", ["no role", "console_reader"])
def test_a_trigger_from_before_the_functions_were_closed_runs_nothing(target: Target, role: str) -> None:
    dsn = target.login(role)
    target.rows("GRANT USAGE ON SCHEMA relay TO PUBLIC; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA relay TO PUBLIC")
    target.rows(sql.SQL("ALTER TABLE dashboard_facts OWNER TO {}").format(login_of(dsn)).as_string())
    old = "CREATE TRIGGER {} AFTER {} ON dashboard_facts FOR EACH {} EXECUTE FUNCTION relay.{}('1')"
    assert run(
        dsn,
        old.format("old", "INSERT", "STATEMENT", "roll_up"),
        old.format("old_of_rows", "INSERT", "ROW", "roll_up"),
        old.format("old_of_all", "INSERT", "STATEMENT", "forget_minutes"),
        old.format("old_of_dead", "INSERT", "STATEMENT", "forget_dead"),
    ) == []  # fmt: skip
    before = target.rows.one(_FIGURE), target.rows("TABLE relay.dead_causes")
    assert run(
        dsn,
        *crafted_type("pg_temp"),
        "CREATE TEMP TABLE changed (fact_type text, value pg_temp.crafted, metadata jsonb, recorded_at timestamptz)",
        "INSERT INTO pg_temp.changed VALUES ('support.webhook.retry', ROW(1), NULL, now())",
        "INSERT INTO public.dashboard_facts (fact_type, scope, value) VALUES ('support.webhook.retry', 's', '{}')",
    ) == []  # fmt: skip
    assert target.rows("SELECT to_regclass('relay.pwned')") == [None]
    assert (target.rows.one(_FIGURE), target.rows("TABLE relay.dead_causes")) == (before[0] + 1, before[1])


@pytest.mark.parametrize("age_s", [0, 600, 3600])
async def test_json_that_jsonb_refuses_does_not_stop_the_overview(target: Target, age_s: int) -> None:
    target.rows("ALTER TABLE dashboard_facts ALTER COLUMN value TYPE json USING value::text::json")
    before = await _last_day(target)
    for offset_s in range(-60, 61, 5):
        target.rows(
            "INSERT INTO dashboard_facts (fact_type, scope, value, recorded_at) "
            "SELECT 'support.webhook.retry', 's', %s, now() - make_interval(secs => %s)",
            ('{"success": false, "finalStatus": "\\u0000"}', age_s + offset_s),
        )
    assert await _last_day(target) == before


_ODD_FACTS = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)
    SELECT kind, 's', jsonb_build_object('target', 'agent', 'ok', %(ok)s, 'success', %(ok)s, 'finalStatus', %(status)s::text,
                                         'reason', 'x', 'rule', 'dlq-p2', 'severity', 'P2', 'state', 'raised'),
           jsonb_build_object('timestamp', '0001-01-01T00:00:00+14:00'), moment::timestamptz
      FROM unnest(%(kinds)s::text[]) AS kind, unnest(%(times)s::text[]) AS moment
"""  # noqa: E501
_ODD = {"kinds": list(FactType), "status": "\N{SUPERSCRIPT TWO}"}
_ODD_TIMES = ["infinity", "-infinity", "0044-03-15 BC", "20000-01-01", "2999-01-01"]


async def test_no_moment_and_no_status_in_a_fact_stops_what_is_read_or_hides_an_outage(target: Target) -> None:
    target.rows("DELETE FROM relay.deliveries")  # then the newest fact stands for the last webhook
    Plant(target.rows).probe(ok=False, age_s=600)
    target.rows(_ODD_FACTS, _ODD | {"ok": True, "times": _ODD_TIMES})
    async with connected(target.dsn) as connection:
        await traffic.learn_usual_gaps(connection)
        assert [(one.target, one.ok) for one in (await overview.read(connection)).health] == [("agent", False)]
        assert await outages.last(connection) is not None
        target.rows(_ODD_FACTS, _ODD | {"ok": False, "times": ["now"]})
        seen, whole = await state.read(connection)
        assert headline(whole).sentence
        assert list(gauges_of(seen))
        assert seen.last_failure_at is not None
        assert seen.last_failure_at <= seen.at
        assert (await proposals.last_outcomes(connection)).total > 0
        entries = assemble(await timeline.read(connection, _LONG_AGO))
        assert json_text([asdict(one) for one in entries])
        assert {one.at <= seen.at for one in (*entries, *await alerts.raised_since(connection, _LONG_AGO))} == {True}


_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def _last_day(target: Target) -> tuple[int, int]:
    async with connected(target.dsn) as connection:
        rate = (await overview.read(connection)).last_24h.rate
    return rate.delivered, rate.failed
