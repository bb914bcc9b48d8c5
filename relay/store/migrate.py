"""The schema's versions: numbered SQL files, applied once each, by one relay at a time.

A file whose first line is `-- relay: no transaction` holds one statement that Postgres runs outside of one
(an index built beside running writers); it must be safe to run again. Every other file is one transaction.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg.sql import SQL

from relay.errors import SchemaError
from relay.store import facts_shape
from relay.store.database import connect
from relay.store.failures import described, unavailable
from relay.store.index_build import index_build
from relay.store.open_schema import refuse_planted
from relay.store.waits import Waiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from relay.store.database import Connection
    from relay.store.index_build import IndexBuild

Result = TypeVar("Result")

OLDEST_SERVER = 130_000
LOCK = 0x686F74646173  # "hotdas": one migration at a time on a database
_NO_TRANSACTION = "-- relay: no transaction"
# Role and database may have limits of their own, which fit no migration.
_LIMITS = (
    "SET LOCAL lock_timeout = '500ms'; SET LOCAL statement_timeout = 0; "
    "SET LOCAL idle_in_transaction_session_timeout = 0"
)
_LOCK_PAUSE_S = 0.5
_TURN_PAUSE_S = 0.1
_RECORD = "INSERT INTO relay.schema_migrations (version, name) VALUES (%s, %s)"
# Postgres lets PUBLIC execute every new function. Default privileges could change that only for all functions that this
# login makes in the database, other applications' included; and they may be what opens new tables to PUBLIC.
_CLOSE = """
    DO $$
    DECLARE
        open record;
    BEGIN
        FOR open IN
            SELECT 'ROUTINE' AS kind, p.oid::regprocedure::text AS name FROM pg_proc p
             WHERE p.pronamespace = 'relay'::regnamespace AND pg_has_role(p.proowner, 'USAGE')
               AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) WHERE grantee = 0)
             UNION ALL
            SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text FROM pg_class c
             WHERE c.relnamespace = 'relay'::regnamespace AND pg_has_role(c.relowner, 'USAGE')
               AND EXISTS (SELECT FROM aclexplode(c.relacl) WHERE grantee = 0)
             UNION ALL
            SELECT 'SCHEMA', 'relay' FROM pg_namespace n
             WHERE n.nspname = 'relay' AND pg_has_role(n.nspowner, 'USAGE')
               AND EXISTS (SELECT FROM aclexplode(n.nspacl) WHERE grantee = 0)
        LOOP
            EXECUTE format('REVOKE ALL ON %s %s FROM PUBLIC', open.kind, open.name);
        END LOOP;
    END
    $$
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    sql: str

    @property
    def in_transaction(self) -> bool:
        """False for a step that Postgres refuses to run inside a transaction."""
        return not self.sql.startswith(_NO_TRANSACTION)


def migrations() -> list[Migration]:
    """Every step that this version of the relay knows, in order."""
    folder = resources.files("relay.store") / "migrations"
    steps = [
        Migration(int(file.name[:4]), file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(steps, key=lambda step: step.version)


async def migrate(
    dsn: str,
    *,
    roles: bool = False,
    on_step: Callable[[Migration], None] = lambda _: None,
    on_wait: Callable[[str], None] = lambda _: None,
) -> list[Migration]:
    """Bring the database at `dsn` up to this version; with `roles`, create the three roles as well.

    Where the three are in use, they get the rights on what a step has made. Several relays may start at once: one
    applies a step, the others wait; nothing is locked if nothing is pending. Returns the steps applied.

    `on_step` is called with each step before it starts. `on_wait` is called with a sentence that names the sessions it
    waits for, once a wait takes longer than 2 s: any login can hold the lock.

    Raises:
        StoreUnavailable: Postgres is away.
        SchemaError: the server is too old, its encoding is not UTF-8, a step does not apply, or another login made a
            function that could run with the owner's rights.
    """
    async with _connected(dsn) as connection:
        run = _Run(dsn, connection, on_step, Waiting(connection, LOCK, on_wait))
        return await run.all_steps(roles=roles)


async def status(dsn: str) -> tuple[list[Migration], list[Migration]]:
    """The steps that the database has had and those it lacks. Changes nothing and takes no lock.

    Raises:
        StoreUnavailable: Postgres is away.
        SchemaError: the server is too old, its encoding is not UTF-8, or the login may not read the history.
    """
    async with _connected(dsn) as connection:
        done = await versions(connection)
    steps = migrations()
    return [step for step in steps if step.version in done], [step for step in steps if step.version not in done]


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Connection]:
    try:
        connection = await connect(dsn, "hotdash-relay migrate")
    except psycopg.OperationalError as error:
        raise unavailable(error) from error
    async with connection:
        try:
            await _check_server(connection)
            yield connection
        except psycopg.OperationalError as error:
            raise unavailable(error) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise SchemaError(await _who_may(connection, error)) from error
        except psycopg.Error as error:
            raise SchemaError(f"The database cannot be migrated: {_said(error)}") from error


_OWNER = """
    SELECT current_user::text, coalesce(
           (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'relay'),
           (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()))::text
"""


async def _who_may(connection: Connection, error: psycopg.Error) -> str:
    row = await (await connection.execute(_OWNER)).fetchone()
    login, owner = row or ("", "")
    return (
        f"The login {login} may not migrate this database ({_said(error)}). Run `relay migrate --roles` as {owner}, "
        f"then GRANT relay_service TO {login}"
    )


def _said(error: psycopg.Error) -> str:
    """What a step says: its own exceptions name the remedy."""
    said = error.diag.message_primary
    return said if said and isinstance(error, psycopg.errors.RaiseException) else described(error)


async def _check_server(connection: Connection) -> None:
    version = connection.info.server_version
    if version < OLDEST_SERVER:
        raise SchemaError(f"PostgreSQL {version // 10_000} is too old: 13 or newer is needed")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SchemaError(f"The database's encoding is {encoding}: one with UTF8 is needed")


@asynccontextmanager
async def _turn(connection: Connection, waiting: Waiting) -> AsyncIterator[None]:
    """Hold the migration lock for the block, which is one transaction.

    The lock ends with the transaction, so that none stays on a session that a pooler lends. It asks rather than
    queues: who waits inside a statement holds a snapshot, and an index that is built concurrently waits for every
    snapshot, so that the two would wait for each other.
    """
    while True:
        async with connection.transaction():
            await connection.execute(_LIMITS)
            row = await (await connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (LOCK,))).fetchone()
            if row is not None and row[0]:
                yield
                return
        await waiting.pause(_TURN_PAUSE_S)


# Roles belong to all databases of a server: they are in use in this one if they may enter the schema.
_HAS_ROLES = """
    SELECT count(*) = 3 FROM pg_roles
     WHERE rolname IN ('relay_service', 'console_operator', 'console_reader')
       AND has_schema_privilege(oid, 'relay', 'USAGE')
"""
_OWNS = "SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'relay'"
_MAY_FOLLOW = """
    SELECT coalesce(has_function_privilege(to_regprocedure('relay.follow_facts()'), 'EXECUTE'), false)
           AND to_regclass('dashboard_facts') IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of the migrations on a connection."""

    dsn: str
    connection: Connection
    on_step: Callable[[Migration], None]
    waiting: Waiting

    async def all_steps(self, *, roles: bool) -> list[Migration]:
        """Apply what is pending; returns it."""
        done = await self._read_history()
        pending = [step for step in migrations() if step.version not in done]
        if pending or roles or await self._is_owner():
            await refuse_planted(self.connection)
        if pending:
            await facts_shape.check(self.connection, fresh=not done)
        applied = [step for step in pending if await self._applied(step)]
        await self._follow_facts()
        if roles or (applied and await self._has_roles()):
            await self._retried(self._make_roles)
        return applied

    async def _is_owner(self) -> bool:
        row = await (await self.connection.execute(_OWNS)).fetchone()
        return bool(row and row[0])

    async def _read_history(self) -> set[int]:
        async def read() -> set[int]:
            async with self.connection.transaction():
                await self.connection.execute(_LIMITS)
                return await versions(self.connection)

        return await self._retried(read)

    async def _retried(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Repeat `work` until it gets its locks. A statement that waits for a table's lock blocks every later one.

        `work` therefore waits a moment only, and lets the others pass before it is tried again.
        """
        while True:
            with suppress(psycopg.errors.LockNotAvailable):
                return await work()
            await self.waiting.pause(_LOCK_PAUSE_S)

    async def _has_roles(self) -> bool:
        row = await (await self.connection.execute(_HAS_ROLES)).fetchone()
        return bool(row and row[0])

    async def _make_roles(self) -> None:
        async with _turn(self.connection, self.waiting):
            await self.connection.execute((resources.files("relay.store") / "roles.sql").read_bytes())

    async def _applied(self, step: Migration) -> bool:
        """Apply a step. False if another relay has done so."""
        return await (self._apply(step) if step.in_transaction else self._apply_outside(step))

    async def _apply(self, step: Migration) -> bool:
        async def work() -> bool:
            async with _turn(self.connection, self.waiting):
                if step.version in await versions(self.connection):
                    return False
                self.on_step(step)
                await _make_history(self.connection)
                await self.connection.execute(step.sql.encode())
                await self.connection.execute(_CLOSE)
                await self.connection.execute(_RECORD, (step.version, step.name))
            return True

        return await self._retried(work)

    async def _apply_outside(self, step: Migration) -> bool:
        """Apply a step that no transaction may hold.

        A second connection holds the lock meanwhile, in a transaction that has no snapshot.
        """
        async with await connect(self.dsn, "hotdash-relay migrate lock") as guard, _turn(guard, self.waiting):
            if step.version in await versions(guard):
                return False
            self.on_step(step)
            try:
                await self._build_index(step)
            except psycopg.errors.QueryCanceled as error:
                raise SchemaError(
                    f"Step {step.name} takes longer than the login's statement_timeout, which cannot be lifted through "
                    "a pooler: run `relay migrate` with the server's own address as DATABASE_URL"
                ) from error
            await self.connection.execute(_RECORD, (step.version, step.name))
        return True

    async def _build_index(self, step: Migration) -> None:
        """Build the step's index beside running writers: of a partitioned table one for each partition first."""
        build = await index_build(self.connection, step.name, step.sql)
        for index, table in build.parts:
            cursor = await self.connection.execute(_INVALID, (index, table))
            for (name,) in await cursor.fetchall():
                drop = SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(SQL(name))
                await psycopg.AsyncCursor(self.connection).execute(drop)
            await psycopg.AsyncCursor(self.connection).execute(build.statement(index, table).encode())
        if build.is_partitioned:  # it takes over the indexes of the partitions, and builds none itself
            await self._retried(lambda: self._join_indexes(build))

    async def _join_indexes(self, build: IndexBuild) -> None:
        async with self.connection.transaction():
            await self.connection.execute(_LIMITS)
            await self.connection.execute(build.statement(*build.whole).replace(" CONCURRENTLY", "", 1).encode())

    async def _follow_facts(self) -> None:
        """Let the figures count the facts of a `dashboard_facts` that was dropped and made again."""
        row = await (await self.connection.execute(_MAY_FOLLOW)).fetchone()
        if row is None or not row[0]:
            return
        row = await (await self.connection.execute("SELECT relay.facts_are_followed()")).fetchone()
        if row is not None and not row[0]:
            await self._retried(self._follow)

    async def _follow(self) -> None:
        async with self.connection.transaction():
            await self.connection.execute(_LIMITS)
            await self.connection.execute("SELECT relay.follow_facts()")


async def versions(connection: Connection) -> set[int]:
    """The versions that the database has had. Creates nothing."""
    if not await _has_history(connection):
        return set()
    cursor = await connection.execute("SELECT version FROM relay.schema_migrations")
    return {row[0] for row in await cursor.fetchall()}


async def _make_history(connection: Connection) -> None:
    if not await _has_history(connection):
        await connection.execute("CREATE SCHEMA IF NOT EXISTS relay")
        await connection.execute(
            "CREATE TABLE relay.schema_migrations ("
            "version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )


# `to_regclass` may answer from the session's cache, without the table that another relay has committed since this
# transaction began. A query of the catalogue does not.
_HAS_HISTORY = """
    SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = 'relay' AND c.relname = 'schema_migrations')
"""


async def _has_history(connection: Connection) -> bool:
    row = await (await connection.execute(_HAS_HISTORY)).fetchone()
    return bool(row and row[0])


_INVALID = """
    SELECT format('%%I.%%I', c.relnamespace::regnamespace, c.relname)
      FROM pg_index JOIN pg_class c ON c.oid = indexrelid
     WHERE NOT indisvalid AND c.relname = %s AND indrelid = to_regclass(%s)
"""


async def schema_version(connection: Connection) -> int:
    """The newest step that the database has had, 0 for none."""
    if not await _has_history(connection):
        return 0
    cursor = await connection.execute("SELECT coalesce(max(version), 0) FROM relay.schema_migrations")
    row = await cursor.fetchone()
    return row[0] if row else 0
