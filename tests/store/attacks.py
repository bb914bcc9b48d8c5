"""What the tests of database rights share: a database with a history, and logins that try things in it."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
from psycopg import sql

from relay.store.migrate import migrate
from tests.servers import Rows, database_like
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROLES = ("console_reader", "console_operator", "relay_service", "no role")
Denied = psycopg.errors.InsufficientPrivilege

_TEMPLATE = "with_history"
_DEFINITIONS = {
    "relations": "SELECT oid, relname, relowner FROM pg_class "
    "WHERE relnamespace = 'relay'::regnamespace OR relname = 'pwned'",
    "functions": "SELECT oid, proname, proowner, prosrc, proacl::text FROM pg_proc "
    "WHERE pronamespace = 'relay'::regnamespace",
    "triggers": "SELECT oid, tgname, tgfoid, tgenabled FROM pg_trigger "
    "WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'relay'::regnamespace) "
    "OR tgrelid = 'public.dashboard_facts'::regclass",
    "superusers": "SELECT rolname FROM pg_roles WHERE rolsuper",
}
_TABLES = """
    SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'relay'::regnamespace AND relkind IN ('r', 'p')
    UNION ALL SELECT 'public.dashboard_facts' ORDER BY 1
"""


class Target:
    """A migrated database with facts, deliveries, a plan and an audit. `rows` works as its owner, a superuser."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.rows = Rows(dsn)
        self._logins: list[str] = []

    def login(self, role: str) -> str:
        """The DSN of a new login that is granted `role` and nothing else."""
        name = f"login_{uuid4().hex}"
        self._logins.append(name)
        self.rows(f"CREATE ROLE {name} LOGIN" + ("" if role == "no role" else f" IN ROLE {role}"))
        return psycopg.conninfo.make_conninfo(self.dsn, user=name)

    def close(self) -> None:
        """Drop the logins and what they own here."""
        for name in self._logins:
            self.rows(f"DROP OWNED BY {name} CASCADE")
            self.rows(f"DROP ROLE {name}")

    @property
    def tables(self) -> list[str]:
        """The tables of schema relay, and `dashboard_facts`."""
        found: list[str] = self.rows(_TABLES)
        return found

    def stored(self) -> dict[str, object]:
        """Every row of these tables, and the definition of every object in schema relay."""
        found: dict[str, object] = {name: sorted(map(str, self.rows(text))) for name, text in _DEFINITIONS.items()}
        for table in self.tables:
            found[table] = sorted(self.rows(f"SELECT t::text FROM {table} t"))
        return found


@contextmanager
def target_on(server: str) -> Iterator[Target]:
    """A target on the PostgreSQL whose DSN is `server`."""
    admin = Rows(server)
    if not admin("SELECT 1 FROM pg_database WHERE datname = %s", (_TEMPLATE,)):
        admin(f"CREATE DATABASE {_TEMPLATE}")
        _fill(psycopg.conninfo.make_conninfo(server, dbname=_TEMPLATE))
    with database_like(_TEMPLATE, server) as dsn:
        target = Target(dsn)
        with target.rows.connected():
            try:
                yield target
            finally:
                target.close()


def _fill(dsn: str) -> None:
    asyncio.run(migrate(dsn, roles=True))
    rows = Rows(dsn)
    plant = Plant(rows)
    plant.runs(delivered=3, failed=2)
    plant.dead_letters(2)
    dead = plant.delivery("dead", delivery_id="letter")
    plant.delivery("delivered")
    rows(
        "INSERT INTO relay.replay_plans (request_id, requested_by, state, total) "
        "VALUES (gen_random_uuid(), 'maria', 'paused', 1)"
    )
    rows(
        "INSERT INTO relay.replay_items (plan_id, position, delivery, run) SELECT id, 1, %s, 1 FROM relay.replay_plans",
        (dead,),
    )
    rows(
        "INSERT INTO relay.operator_actions (operator, action, plan_id) "
        "SELECT 'maria', 'replay', id FROM relay.replay_plans"
    )
    rows("GRANT CREATE ON SCHEMA public TO PUBLIC")  # the default before PostgreSQL 15


def run(dsn: str, *statements: str) -> list[psycopg.Error]:
    """Run each statement on one connection, whatever becomes of those before it; returns the errors."""
    errors: list[psycopg.Error] = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            try:
                connection.execute(statement.encode())
            except psycopg.Error as error:
                errors.append(error)
    return errors


@contextmanager
def attempts(dsn: str) -> Iterator[Callable[[str], psycopg.Error | None]]:
    """A function that runs a statement, undoes it, and returns its error, None if it worked; on one connection."""
    with psycopg.connect(dsn) as connection:

        def attempt(statement: str) -> psycopg.Error | None:
            try:
                connection.execute(statement.encode())
            except psycopg.Error as error:
                return error
            finally:
                connection.rollback()
            return None

        yield attempt


def tried(dsn: str, statement: str) -> psycopg.Error | None:
    """Run one statement and undo it; returns its error, None if it worked."""
    with attempts(dsn) as attempt:
        return attempt(statement)


EVIL = """
    CREATE FUNCTION {schema}.evil() RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        CREATE TABLE relay.pwned AS SELECT current_user AS who;
        RETURN '{{"success": true}}';
    EXCEPTION WHEN insufficient_privilege THEN
        RETURN '{{"success": true}}';
    END $$
"""
"""A function that leaves a table behind if it runs with the rights of the schema's owner."""


def crafted_type(schema: str) -> list[str]:
    """Statements that make a type whose casts to jsonb, text and timestamptz run `evil()`."""
    casts = {
        "jsonb": "SELECT {}.evil()",
        "text": "SELECT CASE WHEN {}.evil() IS NULL THEN '''' ELSE ''support.webhook.retry'' END",
        "timestamptz": "SELECT CASE WHEN {}.evil() IS NOT NULL THEN now() END",
    }
    statements = [EVIL.format(schema=schema), f"CREATE TYPE {schema}.crafted AS (n int)"]
    for kind, body in casts.items():
        function = f"{schema}.to_{kind}({schema}.crafted)"
        statements += [
            f"CREATE FUNCTION {function} RETURNS {kind} LANGUAGE sql AS '{body.format(schema)}'",
            f"CREATE CAST ({schema}.crafted AS {kind}) WITH FUNCTION {function} AS IMPLICIT",
        ]
    return statements


def login_of(dsn: str) -> sql.Identifier:
    """The user of a DSN as an identifier."""
    return sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(dsn)["user"]))
