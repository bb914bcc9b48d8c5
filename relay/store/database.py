"""Connections to Postgres, and what their failures mean. Knows no table.

One small pool a process. Connections are in autocommit mode: most of what the relay writes is one
statement, which is then one transaction and one round trip.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from relay.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Connection = psycopg.AsyncConnection[TupleRow]

_UNAVAILABLE = (
    psycopg.OperationalError,  # gone, refusing, full, shutting down, timed out; PoolTimeout is one
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # a standby, or a primary that was demoted
    psycopg.errors.QueryCanceled,
    OSError,
    TimeoutError,
)
_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def connection_parameters(dsn: str, application: str) -> dict[str, Any]:
    """The keyword arguments that `psycopg.connect` takes for `dsn`: what it leaves open is filled in."""
    given = conninfo_to_dict(dsn)
    return {**_DEFAULTS, "application_name": application, "client_encoding": "utf8", **given}


class Database:
    """A pool of autocommit connections whose failures surface as `StoreUnavailable`."""

    def __init__(self, dsn: str, *, application: str = "hotdash-relay", max_size: int = 8) -> None:
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            "",
            kwargs={"autocommit": True, **connection_parameters(dsn, application)},
            min_size=1,
            max_size=max_size,
            open=False,
            timeout=2,
            reconnect_timeout=1,
            configure=_configure,
        )

    async def open(self) -> None:
        """Start connecting in the background. Never fails: the first use does, if Postgres is away."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection, waiting two seconds at most."""
        await self._pool.close(timeout=2)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for the length of the block.

        Raises:
            StoreUnavailable: Postgres is away, refuses, is full or is read-only.
        """
        try:
            async with self._pool.connection() as connection:
                yield connection
        except _UNAVAILABLE as error:
            raise unavailable(error) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection with a transaction open: committed at the block's end, undone by an exception.

        Raises:
            StoreUnavailable: as for `connection`; also if the commit is in doubt.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection


class Lane:
    """One connection kept for one purpose, taken from the pool anew whenever it has broken.

    Not for concurrent use: its user does one thing at a time.
    """

    def __init__(self, database: Database) -> None:
        self._pool = database._pool  # noqa: SLF001 - a lane is a part of the database's pool
        self._connection: Connection | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """The lane's connection. After any failure in the block it is given up, whatever its state.

        Raises:
            StoreUnavailable: Postgres is away, refuses, is full or is read-only.
        """
        try:
            if self._connection is None:
                self._connection = await self._pool.getconn(timeout=1)
            yield self._connection
        except BaseException as error:
            await self._give_up()
            if isinstance(error, _UNAVAILABLE):
                raise unavailable(error) from error
            raise

    async def close(self) -> None:
        """Give the connection back to the pool."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._pool.putconn(connection)

    async def _give_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
            await self._pool.putconn(connection)


@asynccontextmanager
async def one_moment(connection: Connection) -> AsyncIterator[None]:
    """A read-only transaction whose every statement sees the database at the same moment."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


async def _configure(connection: Connection) -> None:
    await connection.execute("SET timezone = 'UTC'")


def unavailable(error: BaseException) -> StoreUnavailable:
    """`error` as an operator reads it: Postgres's first line, or what timed out."""
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return StoreUnavailable("Postgres did not answer in time")
    first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return StoreUnavailable(f"Postgres cannot be used now: {first_line}")
