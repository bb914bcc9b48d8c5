"""Connections of consoles: one at a time, with a statement time-out, and read-only where they must be; and what their
failures mean.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from relay.errors import RelayError, SchemaError
from relay.store.database import SILENCE_S, connect, described, no_longer_than, unavailable
from relay.store.migrate import migrate
from relay.store.refusal import TABLE, explain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from relay.store.database import Connection

_MAY_READ = "SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = 'console_reader'"


async def open_session(
    dsn: str, *, read_only: bool, application: str, timeout_ms: int, listen: Sequence[str] = ()
) -> Connection:
    """An autocommit connection whose statements may take `timeout_ms` each, listening on the channels `listen`.

    With `read_only` its transactions cannot write, and it acts as the role `console_reader` where that exists
    and may be taken on.

    Raises:
        psycopg.OperationalError: Postgres is away or refuses.
    """
    connection = await connect(dsn, application)
    try:
        with no_longer_than(SILENCE_S, connection):
            await connection.execute(
                SQL("SET timezone = 'UTC'; SET statement_timeout = {}").format(Literal(timeout_ms))
            )
            for channel in listen:
                await connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
            if read_only:
                await connection.execute("SET default_transaction_read_only = on")
                cursor = await connection.execute(_MAY_READ)
                row = await cursor.fetchone()
                if row is not None and row[0]:
                    await connection.execute("SET ROLE console_reader")
    except BaseException:
        await connection.close()
        raise
    return connection


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
        return SchemaError(f"{TABLE}: {what}. Deliveries go on, their facts wait aside. Remedy: {remedy}")
    if isinstance(error, _NO_TABLES):
        return SchemaError("The relay's tables are not there, or of another version: run `relay migrate`")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return RelayError(f"This role of Postgres may not do that: {described(error)}")
    return unavailable(error)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """An autocommit connection to a database whose schema is up to date.

    Raises:
        StoreUnavailable: Postgres is away.
        SchemaError: the schema cannot be brought up to date.
        RelayError: the login may not do what was asked.
    """
    await migrate(dsn)
    try:
        connection = await connect(dsn, "relay command")
    except psycopg.OperationalError as error:
        raise unavailable(error) from error
    async with connection:
        try:
            await connection.execute("SET timezone = 'UTC'")
            yield connection
        except psycopg.Error as error:
            raise trouble(error) from error
