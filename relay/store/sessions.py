"""Connections of consoles: one at a time, with a statement time-out, and read-only where they must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from relay.store.database import connection_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    parameters = connection_parameters(dsn, application)
    connection: Connection = await psycopg.AsyncConnection.connect(autocommit=True, **parameters)
    try:
        await connection.execute(f"SET timezone = 'UTC'; SET statement_timeout = {int(timeout_ms)}".encode())
        for channel in listen:
            await connection.execute(f"LISTEN {channel}".encode())
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
