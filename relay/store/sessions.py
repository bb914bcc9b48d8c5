"""Connections of consoles: one at a time, with a statement time-out, and read-only where they must be; and what their
failures mean.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from datetime import UTC
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.datetime import TimestamptzLoader

from relay.errors import RelayError, SchemaError, StoreUnavailable
from relay.store.database import connect, rows_of
from relay.store.failures import described, unavailable
from relay.store.migrate import migrate, schema_version
from relay.store.open_schema import refuse_planted
from relay.store.refusal import TABLE, explain
from relay.store.waits import reporting_waits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime, tzinfo

    from psycopg.abc import Buffer

    from relay.store.database import Connection


_CONNECT_S = 10
"""A console may be far away: to connect takes up to seven round trips, with encryption and a password."""


async def open_session(dsn: str, *, read_only: bool, application: str, timeout_ms: int) -> Connection:
    """An autocommit connection whose statements may take `timeout_ms` each.

    With `read_only` its transactions cannot write, and it acts as the role `console_reader` where that exists and may
    be taken on.

    Raises:
        psycopg.OperationalError: Postgres is away or refuses.
    """
    return await connect(dsn, application, timeout_ms=timeout_ms, read_only=read_only, connect_s=_CONNECT_S)


async def listen(connection: Connection, channels: Sequence[str]) -> float:
    """Listen on `channels`; return the seconds that this took, a round trip to Postgres.

    Behind a pooler and on a hot standby it does not listen, for a lent session keeps no LISTEN and a standby refuses
    it: its user polls.

    Raises:
        psycopg.Error: Postgres does not answer.
    """
    statement: SQL | Composed = SQL("SELECT 1")
    if not connection.is_pooled and not connection.in_recovery:
        statement = SQL("; ").join(SQL("LISTEN {}").format(Identifier(channel)) for channel in channels)
    began = time.monotonic()
    await connection.execute(statement)
    return time.monotonic() - began


def times_in(connection: Connection, zone: Callable[[], tzinfo | None]) -> None:
    """Have `connection` return times in the zone that `zone` returns then; None is this machine's."""

    class Loader(TimestamptzLoader):
        def load(self, data: Buffer) -> datetime:
            return super().load(data).astimezone(zone())

    connection.adapters.register_loader("timestamptz", Loader)


_COMMAND = "relay command"
_EMPTY = "The database has none of the relay's tables: start `relay serve` with it, or run `relay migrate`"
_NO_TABLES = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidSchemaName,
)


def trouble(error: psycopg.Error | OSError) -> RelayError:
    """What a session met with, as an operator reads it and can act on it, fit for a terminal: it may quote a name."""
    if isinstance(error, psycopg.errors.UndefinedTable) and TABLE in (error.diag.message_primary or ""):
        what, remedy = explain(f"{error.sqlstate}")
        return SchemaError(f"{TABLE}: {what}. Deliveries continue; their facts wait aside. Remedy: {remedy}")
    if isinstance(error, _NO_TABLES):
        return SchemaError("The relay's tables are not there, or of another version: run `relay migrate`")
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return StoreUnavailable(
            f"{described(error)}: this Postgres is a read-only replica, or its sessions are read-only; use the primary"
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        said = described(error)
        remedy = "; let the owner GRANT console_operator TO it" if "schema relay" in said else ""
        return RelayError(f"This role of Postgres may not do that: {said}{remedy}")
    return unavailable(error)


@asynccontextmanager
async def connected(
    dsn: str, *, migrates: bool = False, on_wait: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Connection]:
    """An autocommit connection to a database that has the relay's tables. With `migrates` they are made or changed.

    `on_wait` is called with a sentence for each session that a statement waits for, from the second second on.

    Raises:
        StoreUnavailable: Postgres is away.
        SchemaError: the relay's tables are not there, or cannot be brought up to date.
        RelayError: the login may not do what was asked.
    """
    async with reporting_waits(dsn, _COMMAND, on_wait):
        if migrates:
            await migrate(dsn, on_wait=on_wait)
        try:
            connection = await connect(dsn, _COMMAND)
        except psycopg.OperationalError as error:
            raise unavailable(error) from error
        times_in(connection, lambda: UTC)  # not the zone that the server was set to
        async with connection:
            try:
                if not migrates and not await schema_version(connection):
                    raise SchemaError(_EMPTY)
                yield connection
            except psycopg.Error as error:
                raise trouble(error) from error


_OWNER = """
    SELECT pg_get_userbyid(nspowner) AS owner, current_user::text AS login, pg_has_role(nspowner, 'USAGE') AS may
      FROM pg_namespace WHERE nspname = 'relay'
"""


async def refuse_others_than_the_owner(connection: Connection, command: str) -> None:
    """Ensure that `command` runs as a login that may change every row of the relay's tables, and runs nothing else.

    Raises:
        SchemaError: another login made a function that could run with the owner's rights.
        RelayError: the login neither owns schema relay nor has the role that does.
    """
    row = await (await rows_of(connection, dict[str, Any]).execute(_OWNER)).fetchone()
    if row is not None and not row["may"]:
        raise RelayError(
            f"`{command}` needs the login that owns the relay's tables, {row['owner']}, and this one is {row['login']}:"
            " set DATABASE_URL to the address that `relay migrate` is run with"
        )
    await refuse_planted(connection)
