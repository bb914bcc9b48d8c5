"""A `dashboard_facts` that is already there is used as it is: completed where it lacks something, its rows kept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import pytest

from relay.domain.delivery import FactType
from relay.domain.facts import Fact
from relay.errors import SchemaError
from relay.store import facts, facts_shape, overview, preflight
from relay.store.database import connection_parameters
from relay.store.migrate import migrate
from tests.servers import Rows
from tests.store.test_figures import RECENT_ACTIVITY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.store.database import Connection

_REST = "fact_type text NOT NULL, scope text NOT NULL, value jsonb NOT NULL, metadata jsonb"
_TIME = "recorded_at timestamptz NOT NULL DEFAULT now()"
_ROWS = """
    INSERT INTO dashboard_facts ({columns})
    SELECT {values} FROM generate_series({first}, {first} + 2) AS n
"""
_COLUMNS = """
    SELECT attname, atttypid::regtype::text, attnotnull FROM pg_attribute
     WHERE attrelid = 'dashboard_facts'::regclass AND attnum > 0 ORDER BY attnum
"""
_DOMAINS = """
    CREATE DOMAIN word AS text; CREATE DOMAIN kind AS word; CREATE DOMAIN doc AS jsonb; CREATE DOMAIN document AS doc;
    CREATE DOMAIN instant AS timestamptz; CREATE DOMAIN moment AS instant DEFAULT now()
"""
# name: the table's columns; columns that the existing rows are given besides the usual ones, and their values
TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "integer id that the writer supplies": (f"id integer PRIMARY KEY, {_REST}, {_TIME}", {"id": "n * 10"}),
    "bigint id that the writer supplies": (f"id bigint PRIMARY KEY, {_REST}, {_TIME}", {"id": "n * 10"}),
    "serial id": (f"id serial PRIMARY KEY, {_REST}, {_TIME}", {}),
    "identity id": (f"id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {_REST}, {_TIME}", {}),
    "uuid id": (f"id uuid PRIMARY KEY, {_REST}, {_TIME}", {"id": "gen_random_uuid()"}),
    "text id": (f"id text PRIMARY KEY, {_REST}, {_TIME}", {"id": "'cuid' || n"}),
    "varchar id": (f"id varchar(40) PRIMARY KEY, {_REST}, {_TIME}", {"id": "'cuid' || n"}),
    "no id": (f"{_REST}, {_TIME}", {}),
    "json instead of jsonb": (
        f"id serial PRIMARY KEY, fact_type text, scope text, value json NOT NULL, metadata json, {_TIME}", {},
    ),
    "varchar columns": (
        f"id serial PRIMARY KEY, fact_type varchar(100), scope varchar(20), value jsonb, metadata jsonb, {_TIME}", {},
    ),
    "names": (f"id serial PRIMARY KEY, fact_type name, scope name, value jsonb, metadata jsonb, {_TIME}", {}),
    "domains of domains": (
        "id serial PRIMARY KEY, fact_type kind, scope kind, value document, metadata document, recorded_at moment", {},
    ),
    "time without a default": (f"id serial PRIMARY KEY, {_REST}, recorded_at timestamptz NOT NULL",
                               {"recorded_at": "now()"}),
    "time without a zone": (f"id serial PRIMARY KEY, {_REST}, recorded_at timestamp(3) NOT NULL DEFAULT now()", {}),
    "further columns": (
        f"id serial PRIMARY KEY, shop_domain text NOT NULL DEFAULT 'hotrodan', {_REST}, evidence_url text, {_TIME}",
        {"evidence_url": "'https://' || n"},
    ),
    "camel case beside": (
        f'id serial PRIMARY KEY, {_REST}, {_TIME}, "createdAt" timestamp(3) NOT NULL DEFAULT now(), "factType" text',
        {'"factType"': "'old'"},
    ),
}  # fmt: skip

tables = pytest.mark.parametrize("table", TABLES)


def write(rows: Rows, table: str, *, first: int) -> None:
    """Three facts as the other application writes them."""
    given = {
        "fact_type": "'support.webhook.retry'",
        "scope": "'support'",
        "value": """'{"attempts": 2, "success": true, "durationMs": 100}'""",
    } | TABLES[table][1]
    rows(_ROWS.format(columns=", ".join(given), values=", ".join(given.values()), first=first))


@pytest.fixture
def existing(empty_dsn: str, table: str) -> Rows:
    """A database in which another application keeps its facts: three of them delivered webhooks."""
    rows = Rows(empty_dsn)
    rows(_DOMAINS)
    rows(f"CREATE TABLE dashboard_facts ({TABLES[table][0]})")
    write(rows, table, first=1)
    return rows


@pytest.fixture
async def relays(empty_dsn: str) -> AsyncIterator[Connection]:
    """A relay's connection to that database."""
    parameters = connection_parameters(empty_dsn, "tests")
    async with await psycopg.AsyncConnection.connect(autocommit=True, **parameters) as connection:
        await connection.execute("SET timezone = 'UTC'")
        yield connection


@tables
async def test_the_rows_that_were_there_are_kept_and_both_applications_write(
    existing: Rows, relays: Connection, table: str
) -> None:
    before = existing("SELECT to_jsonb(f) FROM dashboard_facts f")
    await migrate(existing.dsn)
    after = existing("SELECT to_jsonb(f) FROM dashboard_facts f")
    assert [{key: row[key] for key in old} for old, row in zip(before, after, strict=True)] == before
    hour = (await overview.read(relays)).last_1h
    assert (hour.rate.delivered, hour.average_attempts) == (3, 2)

    value = {"attempts": 1, "success": False, "durationMs": 5, "finalStatus": "503"}
    await facts.record(relays, [Fact(FactType.RETRY, value, {"test": False}) for _ in range(2)])
    assert existing.one(RECENT_ACTIVITY)[:2] == (5, 3)
    hour = (await overview.read(relays)).last_1h
    assert (hour.rate.delivered, hour.rate.failed) == (3, 2)
    assert existing("SELECT count(*) FROM dashboard_facts WHERE recorded_at IS NULL") == [0]

    write(existing, table, first=101)
    assert existing("SELECT count(*) FROM dashboard_facts") == [8]
    assert existing("SELECT sum(facts)::int FROM relay.minutes") == [8]


@pytest.mark.parametrize(
    ("columns", "added"),
    [
        ("id serial", {"fact_type", "scope", "value", "metadata", "recorded_at"}),
        ("id serial, fact_type text, value jsonb, metadata jsonb", {"scope", "recorded_at"}),
        ("id serial, fact_type text, scope text, value jsonb, recorded_at timestamptz", {"metadata"}),
        (f"id serial, {_REST}, {_TIME}", set()),
    ],
)
async def test_only_the_columns_that_it_lacks_are_added(
    empty_dsn: str, relays: Connection, columns: str, added: set[str]
) -> None:
    rows = Rows(empty_dsn)
    rows(f"CREATE TABLE dashboard_facts ({columns})")
    before = rows(_COLUMNS)
    await migrate(empty_dsn)
    after = rows(_COLUMNS)
    assert [column[:2] for column in before] == [column[:2] for column in after[: len(before)]]
    assert {name for name, *_ in after[len(before) :]} == added
    await facts.record(relays, [Fact(FactType.RETRY, {"success": True}, {})])
    assert rows.one(RECENT_ACTIVITY)[:2] == (1, 1)


@pytest.mark.parametrize(
    "column", ["shop_domain text", '"factType" text', "id smallint PRIMARY KEY", '"Ünï "" col" date'], ids=str
)
async def test_a_column_that_must_be_given_and_that_the_relay_cannot_fill_is_named(empty_dsn: str, column: str) -> None:
    rows = Rows(empty_dsn)
    rows(f"CREATE TABLE dashboard_facts ({column} NOT NULL, {_REST}, {_TIME})")
    before = rows(_COLUMNS)
    name = column.rpartition(" ")[0] if "PRIMARY" not in column else "id"
    with pytest.raises(SchemaError) as refused:
        await migrate(empty_dsn)
    assert f"ALTER TABLE dashboard_facts ALTER COLUMN {name} SET DEFAULT" in str(refused.value)
    assert rows(_COLUMNS) == before


async def test_a_missing_time_means_the_moment_of_the_migration(empty_dsn: str, relays: Connection) -> None:
    rows = Rows(empty_dsn)
    rows("CREATE TABLE dashboard_facts (id serial, fact_type text, value jsonb)")
    rows("""INSERT INTO dashboard_facts (fact_type, value) VALUES ('support.webhook.retry', '{"success": true}')""")
    await migrate(empty_dsn)
    assert (await overview.read(relays)).last_10min.rate.delivered == 1


async def test_rows_without_a_time_or_a_value_break_nothing(empty_dsn: str, relays: Connection) -> None:
    rows = Rows(empty_dsn)
    rows("CREATE TABLE dashboard_facts (id serial, fact_type text, value jsonb, recorded_at timestamptz)")
    odd = "INSERT INTO dashboard_facts (fact_type, value, recorded_at) VALUES {}"
    every = "('support.webhook.retry', NULL, now()), ('support.webhook.retry', '{}', NULL), (NULL, '{}', now())"
    rows(odd.format(every))
    await migrate(empty_dsn)
    rows(odd.format(every))
    rows("UPDATE dashboard_facts SET recorded_at = now()")
    rows("DELETE FROM dashboard_facts")
    assert (await overview.read(relays)).last_1h.rate.failed == 0


async def test_only_the_last_day_of_an_old_table_is_rolled_up(empty_dsn: str) -> None:
    rows = Rows(empty_dsn)
    rows(f"CREATE TABLE dashboard_facts (id serial, {_REST}, {_TIME})")
    rows(
        "INSERT INTO dashboard_facts (fact_type, scope, value, recorded_at) "
        "SELECT 'support.webhook.retry', 's', '{}', now() - make_interval(hours => n) FROM generate_series(1, 48) n"
    )
    await migrate(empty_dsn)
    assert rows("SELECT sum(facts)::int FROM relay.minutes") == [25]


async def test_a_table_in_a_schema_of_its_own_is_found_by_the_search_path(empty_dsn: str) -> None:
    dsn = psycopg.conninfo.make_conninfo(empty_dsn, options="-c search_path=hotdash")
    rows = Rows(dsn)
    rows("CREATE SCHEMA hotdash")
    rows(f"CREATE TABLE dashboard_facts (id uuid PRIMARY KEY, {_REST}, {_TIME})")
    await migrate(dsn)
    rows("INSERT INTO dashboard_facts (fact_type, scope, value) VALUES ('support.webhook.retry', 's', '{}')")
    assert rows("SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'dashboard_facts'") == [
        "hotdash"
    ]
    assert rows("SELECT sum(facts)::int FROM relay.minutes") == [1]


@pytest.mark.parametrize("by", ["RANGE (recorded_at)", "LIST (fact_type)"])
async def test_a_partitioned_table_is_used_like_any_other(empty_dsn: str, relays: Connection, by: str) -> None:
    rows = Rows(empty_dsn)
    rows(f"CREATE TABLE dashboard_facts (id bigserial, {_REST}, {_TIME}) PARTITION BY {by}")
    rows("CREATE TABLE other_facts PARTITION OF dashboard_facts DEFAULT")
    write(rows, "serial id", first=1)
    await migrate(empty_dsn)
    await facts.record(relays, [Fact(FactType.RETRY, {"attempts": 1, "success": False}, {"test": False})])
    assert rows.one(RECENT_ACTIVITY)[:2] == (4, 3)
    hour = (await overview.read(relays)).last_1h
    assert (hour.rate.delivered, hour.rate.failed) == (3, 1)
    invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
    assert rows(invalid) == []
    assert rows("SELECT count(*) FROM pg_inherits JOIN pg_index ON indexrelid = inhrelid") != [0]


_KIND = "CREATE TABLE facts (id serial, fact_type text); CREATE {} dashboard_facts AS SELECT * FROM facts"
REFUSED = {
    "public.dashboard_facts is a view, and the relay needs a table": _KIND.format("VIEW"),
    "public.dashboard_facts is a materialized view": _KIND.format("MATERIALIZED VIEW"),
    "public.dashboard_facts is a sequence, and": "CREATE SEQUENCE dashboard_facts",
    "public.dashboard_facts is a partition of another table, and": (
        f"CREATE TABLE facts (id bigint, {_REST}, {_TIME}) PARTITION BY LIST (scope); "
        "CREATE TABLE dashboard_facts PARTITION OF facts DEFAULT"
    ),
    "is a table of a type, to which no column can be added": (
        "CREATE TYPE fact AS (id int, fact_type text); CREATE TABLE dashboard_facts OF fact"
    ),
    "ALTER COLUMN fact_type TYPE text USING fact_type::text": (
        "CREATE TYPE kind AS ENUM ('growth'); CREATE TABLE dashboard_facts (id serial, fact_type kind)"
    ),
    "ALTER COLUMN value TYPE jsonb USING value::text::jsonb": "CREATE TABLE dashboard_facts (id serial, value text)",
    "ALTER COLUMN recorded_at TYPE timestamptz USING to_timestamp": (
        "CREATE TABLE dashboard_facts (id serial, recorded_at bigint)"
    ),
    "ALTER COLUMN recorded_at TYPE timestamptz USING recorded_at::text::timestamptz": (
        "CREATE TABLE dashboard_facts (id serial, recorded_at text)"
    ),
    "column recorded_at of type date, which the relay cannot fill": (
        "CREATE TABLE dashboard_facts (id serial, recorded_at date DEFAULT now())"
    ),
    "column recorded_at of type day": (
        "CREATE DOMAIN day AS date; CREATE TABLE dashboard_facts (id serial, recorded_at day)"
    ),
    "USING current_date + recorded_at": "CREATE TABLE dashboard_facts (id serial, recorded_at time)",
    "ALTER COLUMN value DROP DEFAULT, ALTER COLUMN value TYPE jsonb": (
        "CREATE TABLE dashboard_facts (id serial, value text DEFAULT '{}')"
    ),
    "id of type character varying(25), too short": (
        "CREATE TABLE dashboard_facts (id varchar(25) PRIMARY KEY, fact_type text)"
    ),
    "column shop of type must, which must be given and has no default": (
        "CREATE DOMAIN must AS text NOT NULL; CREATE TABLE dashboard_facts (id serial, shop must)"
    ),
    "sessions of this database are in Asia/Tokyo": (
        "CREATE TABLE dashboard_facts (id serial, recorded_at timestamp); DO $$ BEGIN EXECUTE "
        "format('ALTER DATABASE %I SET timezone = ''Asia/Tokyo''', current_database()); END $$"
    ),
    "public) is there to hold dashboard_facts: CREATE SCHEMA public, or": "DROP SCHEMA public CASCADE",
    "generated column scope, which the relay cannot fill": (
        "CREATE TABLE dashboard_facts (id serial, scope text GENERATED ALWAYS AS ('support') STORED)"
    ),
}


async def test_what_cannot_work_is_one_line_with_the_remedy_and_nothing_is_changed(
    empty_dsn: str, relays: Connection
) -> None:
    rows = Rows(empty_dsn)
    for words, statements in REFUSED.items():
        rows(statements)
        with pytest.raises(SchemaError) as refused:
            await migrate(empty_dsn)
        assert words in str(refused.value)
        assert "\n" not in str(refused.value)
        assert rows("SELECT to_regnamespace('relay')::text") == [None]
        if remedy := re.search(r"ALTER TABLE [^;]+", str(refused.value)):
            rows(remedy.group().replace("…", "'hotrodan'"))
            await facts_shape.check(relays)
        rows("DROP SCHEMA IF EXISTS public CASCADE")
        rows("CREATE SCHEMA public")


async def test_a_row_without_a_partition_is_named_as_that(empty_dsn: str) -> None:
    Rows(empty_dsn)(f"CREATE TABLE dashboard_facts (id bigserial, {_REST}, {_TIME}) PARTITION BY RANGE (recorded_at)")
    await migrate(empty_dsn)
    with pytest.raises(SchemaError, match=r"no partition of dashboard_facts takes .* DEFAULT"):
        await preflight.check(empty_dsn)
