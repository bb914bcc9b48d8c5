"""Database rights, tried out: each role attacks every object of the schema, and nothing may change.

The tests run statements as a login and compare what is stored before and after. Only one reads a list of grants: the
one that finds functions open to PUBLIC.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest

from relay.store import overview
from tests.store.attacks import ROLES, Denied, Target, attempts, crafted_type, run, target_on
from tests.store.test_roles import connected

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def target(any_postgres: str) -> Iterator[Target]:
    """A database to attack, on each PostgreSQL."""
    with target_on(any_postgres) as made:
        yield made


_TIME = "recorded_at timestamptz DEFAULT now()"
_FAKES = {
    "a value of a crafted type": f"fact_type text, value pg_temp.crafted, metadata pg_temp.crafted, {_TIME}",
    "a kind of a crafted type": f"fact_type pg_temp.crafted, value jsonb, metadata jsonb, {_TIME}",
    "a time of a crafted type": "fact_type text, value jsonb, metadata jsonb, recorded_at pg_temp.crafted",
    "the columns of the real one": f"fact_type text, value jsonb, metadata jsonb, {_TIME}",
    "the columns of deliveries": "final_status text, last_error text, event text, state text DEFAULT 'dead'",
    "deliveries of a crafted type": "final_status pg_temp.crafted, last_error text, event text, state text",
}
_FILLED = {
    "a value of a crafted type": "('support.webhook.retry', ROW(1))",
    "a kind of a crafted type": "(ROW(1), '{}')",
    "a time of a crafted type": "('support.webhook.retry', '{}', '{}', ROW(1))",
    "the columns of the real one": "('support.webhook.retry', '{}')",
    "the columns of deliveries": "('503', 'forged', 'message_created')",
    "deliveries of a crafted type": "(ROW(1), 'forged', 'message_created', 'dead')",
}
_TRIGGER = "CREATE TRIGGER {} AFTER {} ON pg_temp.dashboard_facts {} FOR EACH STATEMENT EXECUTE FUNCTION {}({})"
_TRIGGER_FUNCTIONS = """
    SELECT oid::regproc::text FROM pg_proc
     WHERE pronamespace = 'relay'::regnamespace AND prorettype = 'trigger'::regtype ORDER BY 1
"""


def _attack(fake: str, function: str, argument: str) -> list[str]:
    """Hang a trigger function on a temporary table, and use the table."""
    return [
        *crafted_type("pg_temp"),
        f"CREATE TEMP TABLE dashboard_facts ({_FAKES[fake]})",
        _TRIGGER.format("i", "INSERT", "REFERENCING NEW TABLE AS changed", function, argument),
        _TRIGGER.format("d", "DELETE", "REFERENCING OLD TABLE AS changed", function, argument),
        _TRIGGER.format("t", "TRUNCATE", "", function, argument),
        f"INSERT INTO pg_temp.dashboard_facts VALUES {_FILLED[fake]}",
        "DELETE FROM pg_temp.dashboard_facts",
        "TRUNCATE pg_temp.dashboard_facts",
    ]


@pytest.mark.parametrize("role", ROLES)
def test_no_login_can_hang_a_trigger_function_on_a_table_of_its_own(target: Target, role: str) -> None:
    dsn, before = target.login(role), target.stored()
    for fake in _FAKES:
        for function in target.rows(_TRIGGER_FUNCTIONS):
            errors = run(dsn, *_attack(fake, function, "'1'"))
            assert len([error for error in errors if isinstance(error, Denied)]) >= 3, (fake, function)
    assert target.stored() == before


def test_a_figures_trigger_on_another_table_does_nothing(target: Target) -> None:
    before = target.stored()
    for fake in _FAKES:
        for function in ("relay.roll_up", "relay.forget_minutes", "relay.count_dead", "relay.forget_dead"):
            for argument in ("'1'", "'-1'", "'nonsense'", ""):
                assert run(target.dsn, *_attack(fake, function, argument)) == [], (fake, function)
    assert target.stored() == before


def test_no_function_is_open_to_public(target: Target) -> None:
    assert target.rows(
        "SELECT p.oid::regprocedure::text FROM pg_proc p, "
        "aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a "
        "WHERE p.pronamespace = 'relay'::regnamespace AND a.grantee = 0"
    ) == []  # fmt: skip


_ODD = {
    "text": ["NULL", "'retry'", "''", "repeat('9', 100000)", "E'\\x1b]52;c;x\\x07'", "'replay.stop'", "'discard'"],
    "bigint": ["NULL", "1", "-1", "0", "9223372036854775807"],
    "integer": ["NULL", "1", "-1", "0", "2147483647"],
    "oid": ["NULL", "1", "'dashboard_facts'::regclass"],
    "double precision": ["NULL", "1", "'NaN'", "'-Infinity'", "'Infinity'", "-1", "0", "1e-320", "1.7e308"],
    "jsonb": ["NULL", "'{}'", "'null'", "'[]'", """'{"attempts": 1e300}'"""],
    "jsonb[]": ["NULL", "ARRAY[]::jsonb[]", "ARRAY[NULL]::jsonb[]",
                """ARRAY['{"fact_type": "support.health", "value": 1}']::jsonb[]"""],
    "boolean": ["NULL", "true", "false"],
    "json": ["NULL", "'{}'", "'null'", """'{"a": "\\u0000"}'"""],
    "bytea": ["NULL", "''", "'\\xff'", "convert_to(repeat('[', 100000), 'UTF8')"],
    "uuid": ["NULL", "gen_random_uuid()", "'00000000-0000-0000-0000-000000000000'"],
    "timestamp with time zone": ["NULL", "now()", "'-infinity'", "'infinity'", "'4714-11-24 BC'"],
    "bigint[]": ["NULL", "'{}'", "'{1}'", "'{NULL}'", "'{-1}'", "'{{1,2},{3,4}}'", "'{1,1}'",
                 "array(SELECT n FROM generate_series(1, 1000001) AS n)"],
    "text[]": ["NULL", "'{}'", "'{x}'", "'{NULL}'", "'{x,x}'", "'{{a,b},{c,d}}'", "ARRAY[repeat('9', 100000)]"],
    "uuid[]": ["NULL", "'{}'", "'{NULL}'", "ARRAY[gen_random_uuid()]"],
    "bytea[]": ["NULL", "'{}'", "ARRAY['\\xff'::bytea]", "ARRAY[NULL]::bytea[]"],
    "interval": ["NULL", "'1 minute'", "'-1 year'", "'100 years'"],
    "integer[]": ["NULL", "'{}'", "'{1}'", "'{NULL}'", "'{-1}'", "'{{1,2},{3,4}}'"],
}  # fmt: skip
_FUNCTIONS = """
    SELECT p.oid::regproc::text, array(SELECT format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) AS t)
      FROM pg_proc p
     WHERE pronamespace = 'relay'::regnamespace AND prorettype <> 'trigger'::regtype ORDER BY 1
"""


def _calls(target: Target) -> list[str]:
    """Every function with odd arguments: in each call one is odd and the others are harmless."""
    calls = []
    for name, kinds in target.rows(_FUNCTIONS):
        plain = [f"({_ODD[kind][1]})::{kind}" for kind in kinds]
        for place, kind in enumerate(kinds):
            for odd in _ODD[kind]:
                given = [*plain[:place], f"({odd})::{kind}", *plain[place + 1 :]]
                calls.append(f"SELECT {name}({', '.join(given)})")
    return calls


@pytest.mark.parametrize("role", ["console_reader", "no role"])
def test_no_function_lets_a_reader_or_a_stranger_change_anything(target: Target, role: str) -> None:
    dsn, before = target.login(role), target.stored()
    run(dsn, *_calls(target))
    assert target.stored() == before


_ADDED_TO = {"relay.operator_actions", "relay.replay_plans", "relay.replay_items", "relay.discards", "relay.holds",
             "relay.acknowledgements", "relay.redirects"}  # fmt: skip


@pytest.mark.parametrize("role", ["console_operator", "relay_service"])
def test_odd_arguments_only_add_rows_that_are_signed_and_never_break_a_function(target: Target, role: str) -> None:
    dsn, before = target.login(role), target.stored()
    errors = run(dsn, *_calls(target))
    after = target.stored()
    assert [name for name in before if name not in _ADDED_TO and after[name] != before[name]] == []
    for table in _ADDED_TO:
        assert set(before[table]) <= set(after[table]), table  # type: ignore[call-overload] # lists of rows
    assert {error.sqlstate for error in errors} <= {
        "42501",
        "RL001",
        "RL002",
        "2201W",
        "22023",
    }  # rights, checks, negative counts
    login = psycopg.conninfo.conninfo_to_dict(dsn)["user"]
    assert set(target.rows("SELECT login FROM relay.operator_actions")) == {"postgres", login}


_CHANGES = (
    "INSERT INTO {} DEFAULT VALUES",
    "UPDATE {} SET {column} = {column} WHERE false",
    "DELETE FROM {} WHERE false",
    "SELECT 1 FROM {} FOR UPDATE",
    "COPY {} FROM STDIN",
    "LOCK TABLE {} IN SHARE MODE",
    "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
    "TRUNCATE {} CASCADE",
    "COPY {} FROM PROGRAM 'true'",
    "COPY {} TO PROGRAM 'true'",
    "ALTER TABLE {} ADD COLUMN pwned text",
    "ALTER TABLE {} DISABLE TRIGGER ALL",
    "ALTER TABLE {} OWNER TO CURRENT_USER",
    "CREATE TRIGGER pwned AFTER INSERT ON {} FOR EACH STATEMENT EXECUTE FUNCTION tsvector_update_trigger()",
    "CREATE RULE pwned AS ON INSERT TO {} DO INSTEAD NOTHING",
    "CREATE POLICY pwned ON {}",
    "CREATE TABLE public.pwned () INHERITS ({})",
    "CREATE TABLE public.pwned ({column} int REFERENCES {})",
    "CREATE INDEX pwned ON {} ({column})",
    "DROP TABLE {} CASCADE",
)
_ROWS = frozenset(_CHANGES[:7])
_INSERT, _UPDATE, _DELETE, _LOCKED, _COPY, _SHARE, _EXCLUSIVE = _CHANGES[:7]
_HOLD = {_SHARE, _EXCLUSIVE}  # what a right to update or delete includes
# Of the rows of these tables a relay may change less than of its others.
_SERVICE_MAY = {
    "relay.schema_migrations": set(),
    "relay.fact_tables": set(),
    "relay.operator_actions": set(),
    "relay.replay_plans": {_DELETE, _LOCKED, *_HOLD},
    "relay.replay_items": {_LOCKED},
    "relay.discards": {_UPDATE, _LOCKED, *_HOLD},
    "public.dashboard_facts": {_INSERT, _DELETE, _COPY, *_HOLD},
}


@pytest.mark.parametrize("role", ROLES)
def test_no_table_can_be_changed_beyond_what_a_role_is_for(target: Target, role: str) -> None:
    passed = []
    with attempts(target.login(role)) as attempt:
        for table in target.tables:
            column = target.rows(
                "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
                "AND NOT attisdropped AND attidentity = '' ORDER BY attnum LIMIT 1", (table,),
            )[0]  # fmt: skip
            may = _SERVICE_MAY.get(table, _ROWS) if role == "relay_service" else set()
            for change in (change for change in _CHANGES if change not in may):
                error = attempt(change.format(table, column=column))
                if not isinstance(error, Denied):
                    passed.append((table, change, error))
    assert passed == []


_ELSEWHERE = (
    "CREATE TABLE relay.pwned (n int)",
    "CREATE VIEW relay.pwned AS SELECT 1",
    "CREATE FUNCTION relay.pwned() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TYPE relay.pwned AS (n int)",
    "CREATE SCHEMA pwned",
    "DROP SCHEMA relay CASCADE",
    "ALTER SCHEMA relay OWNER TO CURRENT_USER",
    "CREATE LANGUAGE pwned HANDLER plpgsql_call_handler",
    "CREATE EVENT TRIGGER pwned ON ddl_command_end EXECUTE FUNCTION relay.keep_audit()",
    "ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA relay GRANT ALL ON TABLES TO PUBLIC",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "SET session_replication_role = replica",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_read_file('PG_VERSION')",
)


@pytest.mark.parametrize("role", ROLES)
def test_nothing_can_be_made_in_the_schema_and_no_sequence_can_be_moved(target: Target, role: str) -> None:
    dsn = target.login(role)
    statements = [*_ELSEWHERE, *(f"SET ROLE {other}" for other in ROLES[:3] if other != role)]
    for sequence in target.rows("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'S'"):
        statements += [f"SELECT setval('{sequence}', 1)", f"ALTER SEQUENCE {sequence} RESTART"]
        if not (role == "relay_service" and sequence.startswith("dashboard_facts")):
            statements.append(f"SELECT nextval('{sequence}')")
    with attempts(dsn) as attempt:
        passed = [(one, error) for one in statements if not isinstance(error := attempt(one), Denied)]
    assert passed == []


def test_a_login_without_a_role_reads_nothing(target: Target) -> None:
    with attempts(target.login("no role")) as attempt:
        assert [table for table in target.tables if not isinstance(attempt(f"TABLE {table}"), Denied)] == []


@pytest.mark.parametrize("role", ROLES[:3])
async def test_what_a_role_may_read_it_can_read(target: Target, role: str) -> None:
    dsn = target.login(role)
    statements = [f"TABLE {table}" for table in target.tables]
    statements.append("SELECT relay.payload(body) #>> '{event}' FROM relay.deliveries")
    with attempts(dsn) as attempt:
        assert [(statement, error) for statement in statements if (error := attempt(statement))] == []
    async with connected(dsn) as connection:
        assert (await overview.read(connection)).open_dead_letters == 1


_HIJACK = """
    CREATE FUNCTION public.hijack(a {left}, b {right}) RETURNS {result} LANGUAGE plpgsql AS $$
    BEGIN
        CREATE TABLE IF NOT EXISTS relay.pwned (n int);
        RETURN NULL;
    END $$
"""


def test_functions_and_operators_made_in_public_are_not_used(target: Target) -> None:
    dsn, before = target.login("console_reader"), target.stored()
    types = ("integer", "bigint", "numeric", "float8", "text", "varchar", "oid", "regclass", "name", "jsonb", "bytea")
    operators = (("=", "boolean"), ("<>", "boolean"), ("*", "float8"), ("/", "float8"), ("+", "bigint"),
                 ("->>", "text"), ("~", "boolean"))  # fmt: skip
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION public.convert_from(bytea, text) RETURNS text LANGUAGE plpgsql AS "
            "'BEGIN CREATE TABLE relay.pwned (n int); RETURN NULL; END'"
        )
        for left in types:
            for right in types:
                for operator, result in operators:
                    with contextlib.suppress(
                        psycopg.errors.DuplicateFunction, psycopg.errors.InvalidFunctionDefinition
                    ):
                        connection.execute(_HIJACK.format(left=left, right=right, result=result).encode())
                    with contextlib.suppress(psycopg.Error):
                        connection.execute(
                            f"CREATE OPERATOR public.{operator} (FUNCTION = public.hijack, LEFTARG = {left}, "
                            f"RIGHTARG = {right})".encode()
                        )
    target.rows("INSERT INTO dashboard_facts (fact_type, scope, value) VALUES ('support.webhook.retry', 's', '{}')")
    target.rows("UPDATE relay.deliveries SET final_status = '504' WHERE state = 'dead'")
    target.rows("SELECT relay.ask_discard(ARRAY[1], 'maria', 'spam')")
    target.rows("SELECT t.* FROM dashboard_facts f, relay.tally(f.fact_type, f.value, f.metadata) t")
    assert None not in target.rows("SELECT relay.payload(body) FROM relay.deliveries")
    after = target.stored()
    assert after["relations"] == before["relations"]
