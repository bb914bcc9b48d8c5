"""The schema's versions: numbered SQL files, applied once each, by one relay at a time.

A file whose first line is `-- relay: no transaction` holds one statement that Postgres runs outside of one
(an index built beside running writers); it must be safe to run again. Every other file is one transaction.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import psycopg
from psycopg.sql import SQL

from relay.errors import SchemaError
from relay.store.database import connect, described, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.store.database import Connection

OLDEST_SERVER = 130_000
_LOCK = 0x686F74646173  # "hotdas": one migration at a time on a database
_NO_TRANSACTION = "-- relay: no transaction"
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms'"
_LOCK_PAUSE_S = 0.5
_SAY_AFTER_S = 2.0
_RECORD = "INSERT INTO relay.schema_migrations (version, name) VALUES (%s, %s)"
# Postgres lets PUBLIC execute every new function. Default privileges could change that only for all functions that this
# login makes in the database, other applications' included.
_CLOSE_FUNCTIONS = """
    DO $$
    DECLARE
        open regprocedure;
    BEGIN
        FOR open IN
            SELECT p.oid FROM pg_proc p
             WHERE p.pronamespace = 'relay'::regnamespace AND pg_has_role(p.proowner, 'USAGE')
               AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) WHERE grantee = 0)
        LOOP
            EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', open);
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

    Several relays may start at once: one migrates, the others wait, unless nothing is to be applied. Returns the
    steps applied. `on_step` is called with each step before it starts. `on_wait` is called with a sentence that names
    the session that holds the lock, once the wait takes longer than 2 s: any login can hold it.

    Raises:
        StoreUnavailable: Postgres is away.
        SchemaError: the server is too old, its encoding is not UTF-8, or a step does not apply.
    """
    try:
        connection = await connect(dsn, "hotdash-relay migrate")
    except psycopg.OperationalError as error:
        raise unavailable(error) from error
    async with connection:
        try:
            await _check_server(connection)
            applied: list[Migration] = []
            if roles or not await _has_history(connection) or await _pending(connection):
                await _lock(connection, on_wait)
                applied = [step for step in await _pending(connection) if await _apply(connection, step, on_step)]
            await _follow_facts(connection)
            if roles:
                await connection.execute((resources.files("relay.store") / "roles.sql").read_bytes())
        except psycopg.OperationalError as error:
            raise unavailable(error) from error
        except psycopg.Error as error:
            raise SchemaError(f"The database cannot be migrated: {_said(error)}") from error
    return applied


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


_HOLDER = """
    SELECT l.pid, a.usename, a.application_name
      FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.classid = (%(lock)s::bigint >> 32)::oid AND l.objid = (%(lock)s::bigint & 4294967295)::oid
"""


async def _lock(connection: Connection, on_wait: Callable[[str], None]) -> None:
    """Wait for the migration lock, asking rather than queueing.

    Whoever waits inside a statement holds a snapshot, and an index that is built concurrently waits for
    every snapshot: the two would wait for each other.
    """
    says_at: float | None = time.monotonic() + _SAY_AFTER_S
    while True:
        cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))
        row = await cursor.fetchone()
        if row is not None and row[0]:
            return
        if says_at is not None and time.monotonic() > says_at:
            cursor = await connection.execute(_HOLDER, {"lock": _LOCK})
            for pid, login, application in await cursor.fetchall():
                on_wait(
                    f"The migration waits for another session, which holds the migration lock: process {pid}, login "
                    f"{login}, application {application or '(no name)'}. To end it: SELECT pg_terminate_backend({pid})"
                )
                says_at = None
        await asyncio.sleep(0.1)


_MAY_FOLLOW = """
    SELECT coalesce(has_function_privilege(to_regprocedure('relay.follow_facts()'), 'EXECUTE'), false)
           AND to_regclass('dashboard_facts') IS NOT NULL
"""


async def _follow_facts(connection: Connection) -> None:
    """Let the figures count the facts of a `dashboard_facts` that was dropped and made again."""
    row = await (await connection.execute(_MAY_FOLLOW)).fetchone()
    if row is None or not row[0]:
        return
    row = await (await connection.execute("SELECT relay.facts_are_followed()")).fetchone()
    while row is not None and not row[0]:
        with suppress(psycopg.errors.LockNotAvailable):
            async with connection.transaction():
                await connection.execute(_LOCK_TIMEOUT)
                await connection.execute("SELECT relay.follow_facts()")
            return
        await asyncio.sleep(_LOCK_PAUSE_S)


async def _pending(connection: Connection) -> list[Migration]:
    """The steps not applied yet. Touches nothing when the schema is there, so that it needs no right to."""
    if not await _has_history(connection):
        await connection.execute("CREATE SCHEMA IF NOT EXISTS relay")
        await connection.execute(
            "CREATE TABLE relay.schema_migrations ("
            "version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
    cursor = await connection.execute("SELECT version FROM relay.schema_migrations")
    done = {row[0] for row in await cursor.fetchall()}
    return [step for step in migrations() if step.version not in done]


async def _has_history(connection: Connection) -> bool:
    cursor = await connection.execute("SELECT to_regclass('relay.schema_migrations') IS NOT NULL")
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _apply(connection: Connection, step: Migration, on_step: Callable[[Migration], None]) -> bool:
    on_step(step)
    if not step.in_transaction:
        await _drop_invalid_index(connection, step)
        try:
            await connection.execute(step.sql.encode())
        except psycopg.errors.FeatureNotSupported:  # the table is partitioned: Postgres builds that index at once only
            await connection.execute(step.sql.replace(" CONCURRENTLY", "").encode())
        await connection.execute(_RECORD, (step.version, step.name))
        return True
    while True:
        if await _commits(connection, step):
            return True
        await asyncio.sleep(_LOCK_PAUSE_S)


async def _commits(connection: Connection, step: Migration) -> bool:
    """Apply one step in a transaction; False if a table's lock was not to be had at once.

    A statement that waits for a table's lock blocks every later one. The step therefore waits a moment only, and lets
    the others pass before it tries again.
    """
    try:
        async with connection.transaction():
            await connection.execute(_LOCK_TIMEOUT)
            await connection.execute(step.sql.encode())
            await connection.execute(_CLOSE_FUNCTIONS)
            await connection.execute(_RECORD, (step.version, step.name))
    except psycopg.errors.LockNotAvailable:
        return False
    return True


_BUILT = re.compile(r"CREATE INDEX CONCURRENTLY IF NOT EXISTS (\w+) ON ([\w.]+)")
_INVALID = """
    SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indexrelid
     WHERE NOT indisvalid AND c.relname = %s AND indrelid = to_regclass(%s)
"""


async def _drop_invalid_index(connection: Connection, step: Migration) -> None:
    """Remove what an interrupted build of `step` left behind: an index that costs and serves nothing."""
    built = _BUILT.search(step.sql)
    assert built is not None, f"{step.name} builds no index: let it run in a transaction"
    cursor = await connection.execute(_INVALID, built.groups())
    for (name,) in await cursor.fetchall():
        await connection.execute(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(SQL(name)))


async def schema_version(connection: Connection) -> int:
    """The newest step that the database has had, 0 for none."""
    if not await _has_history(connection):
        return 0
    cursor = await connection.execute("SELECT coalesce(max(version), 0) FROM relay.schema_migrations")
    row = await cursor.fetchone()
    return row[0] if row else 0
