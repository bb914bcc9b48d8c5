"""Connections to Postgres, how rows leave it, and what its failures mean. Knows no table.

One small pool a process. Connections are in autocommit mode: most of what the relay writes is one
statement, which is then one transaction and one round trip.

Rows are cleaned where they leave the store: every connection that `connection_parameters` describes has
`cleaned_row` as its row factory, which passes each text, those inside JSON and arrays included, through
`relay.text`. A new query gets this without asking. A query whose text must stay exact (a key that goes back into a
query, headers that are forwarded, a draft that is posted) says so: it runs on the cursor that `exact` returns.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow, tuple_row
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool

from relay.errors import StoreUnavailable
from relay.text import SHOWN_CHARS, clean, clean_value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from psycopg.rows import BaseRowFactory

Connection = psycopg.AsyncConnection[TupleRow]
Cursor = psycopg.AsyncCursor[TupleRow]

SILENCE_S = 15.0
"""How long one use of a connection may take. Then it counts as half-open, and is given up."""

LANE_SILENCE_S = 5.0
"""The same for a lane. What it commits is safe to commit again, and somebody waits for it."""

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
    """The keyword arguments that `psycopg.connect` takes for `dsn`: what it leaves open is filled in.

    Rows of such a connection are cleaned, see `cleaned_row`.
    """
    given = conninfo_to_dict(dsn)
    own = {"row_factory": cleaned_row, "application_name": application, "client_encoding": "utf8"}
    return {**_DEFAULTS, **own, **given}


async def connect(dsn: str, application: str) -> Connection:
    """One autocommit connection whose rows are cleaned.

    Raises:
        psycopg.OperationalError: Postgres is away or refuses.
    """
    connection: Connection = await psycopg.AsyncConnection.connect(
        autocommit=True, **connection_parameters(dsn, application)
    )
    set_json_loads(_json_value, connection)
    return connection


def _clean_rows_of(limit: int) -> BaseRowFactory[TupleRow]:
    def factory(_cursor: object) -> Callable[[Sequence[Any]], TupleRow]:
        def make(values: Sequence[Any]) -> TupleRow:
            return tuple(clean_value(value, limit=limit) for value in values)

        return make

    return factory


cleaned_row = _clean_rows_of(SHOWN_CHARS)
"""The row factory of every connection: tuples whose texts are safe to show, `SHOWN_CHARS` of each at most."""


def exact(connection: Connection) -> Cursor:
    """A cursor whose rows are as Postgres holds them: for keys and for what is sent on, never for showing."""
    return connection.cursor(row_factory=tuple_row)


def longer(connection: Connection, limit: int) -> Cursor:
    """A cursor whose rows are cleaned too, with up to `limit` characters of each text."""
    return connection.cursor(row_factory=_clean_rows_of(limit))


def as_object(value: Any) -> dict[str, Any]:
    """A `jsonb` column as the object that it should be; another value, which others may have written, under `value`."""
    return value if isinstance(value, dict) else {"value": value}


def _json_value(text: str | bytes) -> Any:
    """What `text` holds; a sentence in its place if it nests deeper than Python reads."""
    try:
        return json.loads(text)
    except RecursionError:
        return "nested too deeply to be read"


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
    async def connection(self, patience_s: float = SILENCE_S) -> AsyncIterator[Connection]:
        """A connection for the length of the block, which must not last longer than `patience_s`.

        Raises:
            StoreUnavailable: Postgres is away, refuses, is full or is read-only, or says nothing any more.
        """
        with heeding_cancellation():
            try:
                async with self._pool.connection() as connection:
                    with no_longer_than(patience_s, connection):
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
            StoreUnavailable: Postgres is away, refuses, is full or is read-only, or says nothing any more.
        """
        with heeding_cancellation():
            try:
                if self._connection is None:
                    self._connection = await self._pool.getconn(timeout=1)
                with no_longer_than(LANE_SILENCE_S, self._connection):
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


@contextmanager
def heeding_cancellation() -> Iterator[None]:
    """A cancellation that comes during the block ends it as one, whatever pool and driver make of it.

    `asyncio.wait_for`, with which the pool waits, loses one that comes together with what it waited for (CPython
    issue 86296, before 3.12), and an error on the way out takes the place of another. A task that loops would
    then go on, and whoever waits for its end would wait for ever.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        yield
    except Exception as error:
        if task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task.cancelling() > before:
        raise asyncio.CancelledError


@contextmanager
def no_longer_than(seconds: float, connection: Connection) -> Iterator[None]:
    """Hang up on a peer that is silent for so long: where packets vanish, or something between has died.

    A cancelled wait would not do: psycopg then waits for Postgres to confirm the cancellation.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _hang_up, connection)
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(connection: Connection) -> None:
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)


async def _configure(connection: Connection) -> None:
    set_json_loads(_json_value, connection)
    # What a relay that was cut off leaves open must not hold its locks.
    await connection.execute("SET timezone = 'UTC'; SET idle_in_transaction_session_timeout = '30s'")


def unavailable(error: BaseException) -> StoreUnavailable:
    """`error` as an operator reads it: Postgres's first line, or what timed out."""
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return StoreUnavailable("Postgres did not answer in time")
    return StoreUnavailable(f"Postgres cannot be used now: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """What an error says in its first line, cleaned, for it may quote a value; or its name if it says nothing."""
    return clean(next(iter(str(error).strip().split("\n")), "") or type(error).__name__)
