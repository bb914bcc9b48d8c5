"""Connections to Postgres, how rows leave it, and time limits on their use. Knows no table.

One small pool a process. Connections are in autocommit mode: most of what the relay writes is one
statement, which is then one transaction and one round trip.

Rows are cleaned where they leave the store: every connection that `connection_parameters` describes has
`cleaned_row` as its row factory, which passes each text, those inside JSON and arrays included, through
`relay.text`. A new query gets this without asking. A query whose text must stay exact (a key that goes back into a
query, headers that are forwarded, a draft that is posted) says so: it runs on the cursor that `exact` returns.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import RowMaker, TupleRow, kwargs_row, tuple_row
from psycopg.sql import SQL, Composed
from psycopg.types.json import set_json_loads

from relay import dsn as dsns
from relay.store.cancellation import heeding_cancellation, no_longer_than
from relay.store.failures import described, unavailable
from relay.store.server_session import CONNECTIONS_A_WORKER, Purpose, ServerConnection, WrappingCursor
from relay.text import SHOWN_CHARS, clean_value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from psycopg.abc import Params
    from psycopg.rows import BaseRowFactory
    from psycopg_pool import AsyncConnectionPool

T = TypeVar("T")
Connection = ServerConnection
Cursor = psycopg.AsyncCursor[TupleRow]
Statement = str | bytes | SQL | Composed

SILENCE_S = 15.0
"""How long one use of a connection may take. Then it counts as half-open, and is given up."""

DEDICATED_SILENCE_S = 5.0
"""The same for a dedicated connection. What it commits can be committed again, and a sender waits for it."""

_UNAVAILABLE = (
    psycopg.OperationalError,  # unreachable, refusing, full, shutting down, timed out; PoolTimeout is one
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
    given, choices = dsns.parse(dsn)
    if choices.no_prepare:
        given["prepare_threshold"] = None
    own = {"row_factory": cleaned_row, "application_name": application, "client_encoding": "utf8"}
    return {**_DEFAULTS, **own, **given}


async def connect(
    dsn: str,
    application: str,
    *,
    timeout_ms: int | None = None,
    read_only: bool = False,
    connect_s: int | None = None,
) -> Connection:
    """One autocommit connection whose rows are cleaned. `timeout_ms` limits each statement.

    To connect may take `connect_s` seconds, unless the DSN says how long.

    With `read_only` it cannot write, and acts as the role `console_reader` where its login may take that on.

    Raises:
        psycopg.OperationalError: Postgres is away or refuses.
        SchemaError: which `dashboard_facts` is meant cannot be decided.
    """
    given, choices = dsns.parse(dsn)
    parameters = connection_parameters(dsn, application)
    if connect_s is not None and "connect_timeout" not in given:
        parameters["connect_timeout"] = connect_s
    purpose = Purpose(timeout_ms, read_only, choices.facts_schema)
    connection = await ServerConnection.connect(autocommit=True, purpose=purpose, **parameters)
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


def exact_rows_of(connection: Connection, make: Callable[..., T]) -> psycopg.AsyncCursor[T]:
    """As `exact`; its rows are `make(**columns)`, by the columns' names."""
    return connection.cursor(row_factory=kwargs_row(make))


def rows_of(
    connection: Connection, make: Callable[..., T], *, limit: int = SHOWN_CHARS, texts: Collection[str] = ()
) -> psycopg.AsyncCursor[T]:
    """A cursor whose rows are `make(**columns)`, by the columns' names, after they were cleaned as every row is.

    `texts` are columns whose texts keep their line ends.
    """

    def factory(cursor: psycopg.AsyncCursor[Any]) -> RowMaker[T]:
        by_name = kwargs_row(make)(cursor)
        keeps = [column.name in texts for column in cursor.description or ()]
        return lambda values: by_name(
            [clean_value(value, limit=limit, newlines=kept) for value, kept in zip(values, keeps, strict=True)]
        )

    return connection.cursor(row_factory=factory)


async def fetched(
    connection: Connection, make: Callable[..., T], statement: Statement, given: Params, **cleaned: Any
) -> list[T]:
    """The rows of a statement, as `rows_of` makes them."""
    return await (await rows_of(connection, make, **cleaned).execute(statement, given)).fetchall()


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
    """A pool of autocommit connections whose failures surface as `StoreUnavailable`.

    `lease_s` is the length of the lease of the relay that they belong to.
    """

    def __init__(
        self,
        dsn: str,
        *,
        application: str = "hotdash-relay",
        max_size: int = CONNECTIONS_A_WORKER,
        lease_s: float | None = None,
    ) -> None:
        from psycopg_pool import AsyncConnectionPool, PoolTimeout  # noqa: PLC0415 - commands use one connection, no pool

        self._failure: BaseException | None = None
        self._no_connection_free = PoolTimeout
        purpose = Purpose(facts_schema=dsns.parse(dsn)[1].facts_schema, lease_s=lease_s)
        own = {"autocommit": True, "purpose": purpose}
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            "",
            connection_class=ServerConnection,
            kwargs={**own, "on_result": self._connected, **connection_parameters(dsn, application)},
            min_size=1,
            max_size=max_size,
            open=False,
            timeout=2,
            reconnect_timeout=1,
            configure=_configure,
        )

    def _connected(self, failure: BaseException | None) -> None:
        self._failure = failure

    @property
    def failure(self) -> str | None:
        """Why the last connection could not be made, without a secret; None if it could."""
        return None if self._failure is None else described(self._failure)

    def why(self, error: BaseException) -> BaseException:
        """What keeps connections from being made, if `error` says only that none was free; else `error`."""
        if not isinstance(error, self._no_connection_free):
            return error
        return self._failure or psycopg.OperationalError(
            f"no connection was free in time; a worker uses up to {CONNECTIONS_A_WORKER}, and a pooler in session "
            "mode must have as many for each worker, console and command"
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
                        async with _closed_if_spoiled(connection):
                            yield connection
            except _UNAVAILABLE as error:
                raise unavailable(self.why(error)) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection with a transaction open: committed at the block's end, undone by an exception.

        Raises:
            StoreUnavailable: as for `connection`; also if the commit is in doubt.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection


class DedicatedConnection:
    """One connection kept for one purpose, taken from the pool anew whenever it has broken.

    Not for concurrent use: its user does one thing at a time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pool = database._pool  # noqa: SLF001 - it belongs to the database's pool
        self._connection: Connection | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """The connection. A failure in the block closes it, unless Postgres itself reported the failure.

        Raises:
            StoreUnavailable: Postgres is away, refuses, is full or is read-only, or says nothing any more.
        """
        with heeding_cancellation():
            try:
                if self._connection is None:
                    self._connection = await self._pool.getconn(timeout=1)
                with no_longer_than(DEDICATED_SILENCE_S, self._connection):
                    yield self._connection
            except BaseException as error:
                if not self._is_usable_after(error):
                    await self._give_up()
                if isinstance(error, _UNAVAILABLE):
                    raise unavailable(self._database.why(error)) from error
                raise

    async def close(self) -> None:
        """Give the connection back to the pool."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._pool.putconn(connection)

    def _is_usable_after(self, error: BaseException) -> bool:
        connection = self._connection
        return (
            connection is not None
            and isinstance(error, psycopg.Error)
            and not isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
            and error.sqlstate is not None
            and connection.info.transaction_status is TransactionStatus.IDLE
        )

    async def _give_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
            await self._pool.putconn(connection)


_ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"


@asynccontextmanager
async def one_moment(connection: Connection) -> AsyncIterator[None]:
    """A read-only transaction whose every statement sees the database at the same moment."""
    async with connection.transaction():
        await connection.execute(_ONE_MOMENT)
        yield


_TIME_LIMIT = "SELECT set_config('statement_timeout', %s, true)"


@asynccontextmanager
async def time_limit(connection: Connection, milliseconds: int) -> AsyncIterator[None]:
    """Run the block's statements as one transaction in which Postgres cancels each after `milliseconds`.

    The limit ends with the transaction and does not cover its commit, so that no synchronous standby is skipped.
    Inside a transaction it holds until that transaction ends.

    Raises:
        psycopg.errors.QueryCanceled: a statement took longer.
    """
    if connection.cursor_factory is not WrappingCursor:
        async with connection.pipeline():
            await connection.execute(_TIME_LIMIT, (str(milliseconds),))
            yield
        return
    begins = connection.info.transaction_status is TransactionStatus.IDLE
    async with connection.transaction():
        await connection.execute(_TIME_LIMIT, (str(milliseconds),))
        yield
        if begins:
            await connection.execute(_TIME_LIMIT, ("0",))


_MAY_CANCEL = """
    SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'SyncRep'
                          AND usename = current_user AND datname = current_database())
           AND (%(even_at_work)s OR coalesce((SELECT wait_event_type IN ('Lock', 'Timeout') FROM pg_stat_activity
                                               WHERE pid = %(pid)s AND state = 'active'), %(pid)s::int IS NOT NULL))
"""


async def may_cancel(connection: Connection, pid: int | None, *, even_at_work: bool) -> bool:
    """Whether the statement of backend `pid` should be cancelled: it waits for a lock or sleeps, or `even_at_work`.

    Never while a commit of this role waits for a synchronous standby: a cancellation would end that wait too early.
    `pid` is None behind a pooler, where the backend is not known.
    """
    cursor = await connection.execute(_MAY_CANCEL, {"pid": pid, "even_at_work": even_at_work})
    row = await cursor.fetchone()
    return bool(row and row[0])


@asynccontextmanager
async def _closed_if_spoiled(connection: Connection) -> AsyncIterator[None]:
    """Give up a session that became read-only, or that cancelled a statement.

    Its server was demoted, or a trigger of another application has set `default_transaction_read_only` or a short
    `statement_timeout` in the session: each later statement would fail too.
    """
    try:
        yield
    except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.QueryCanceled):
        await connection.close()
        raise


async def _configure(connection: Connection) -> None:
    set_json_loads(_json_value, connection)
