"""Sends the statements of several readings together, so that they share a round trip to Postgres.

A reading is a coroutine that runs statements on one connection and returns what it makes of their rows. Readings that
run `together` are stopped at their first statements; once each of them waits for an answer or has ended, what they ask
goes to Postgres at once. On a session of its own that is a pipeline. On one that a pooler lends it is one simple query
of several statements, which every pooler takes: pipelines and prepared statements are not available on all of them.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString, Self

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg.sql import SQL

from relay.store.server_session import ServerConnection

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from psycopg.abc import Params

    AsyncConnection = psycopg.AsyncConnection[TupleRow]

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_COMMIT = "COMMIT"
_batch: ContextVar[_Batch | None] = ContextVar("batch", default=None)
"""The batch that this reading belongs to."""
_place: ContextVar[tuple[int, ...]] = ContextVar("place", default=())
"""Which reading this is: its number among those that run together, after the place of the reading that runs them."""


async def together(
    connection: AsyncConnection, *readings: Coroutine[Any, Any, Any], one_moment: bool = False
) -> list[Any]:
    """Run readings at once and return their results in order. Statements are sent in the order of the readings.

    With `one_moment` they see the database at one moment, in a read-only transaction that begins and ends in the same
    round trip: each reading then asks all that it asks at once. The last one may fail without harm to the others, if it
    handles its own error. A reading opens no transaction. It may run others together.

    Raises:
        psycopg.Error: one of them failed.
    """
    try:
        batch = _batch.get()
        if batch is not None and batch.connection is connection:
            return _results(await batch.run(readings, is_nested=True))
        return _results(await _Batch(connection, one_moment=one_moment).carry_out(readings))
    finally:
        for reading in readings:
            reading.close()  # those that were not begun


async def clock_s(connection: AsyncConnection) -> float:
    """The time at the server in seconds, between the readings that run before and after this one."""
    row = await (await connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8")).fetchone()
    assert row is not None
    return float(row[0])


def _results(found: list[Any]) -> list[Any]:
    """Return what was found; raise what Postgres itself refused, if anything failed.

    Statements after that one fail for that reason alone.
    """
    failed = [one for one in found if isinstance(one, BaseException)]
    if failed:
        raise next(filter(_is_the_servers, failed), failed[0])
    return found


def _is_the_servers(error: BaseException) -> bool:
    is_result = isinstance(error, psycopg.Error) and error.sqlstate is not None
    return is_result and not isinstance(error, psycopg.errors.PipelineAborted)


@dataclass(slots=True)
class _Statement:
    """A statement that a reading waits for. `error` is why it has no rows; `rows` are they if its cursor lacks them."""

    cursor: BatchedCursor
    query: Any
    parameters: Params | None
    place: tuple[int, ...]
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    error: BaseException | None = None


class BatchedCursor(psycopg.AsyncCursor[TupleRow]):
    """The cursor of readings that run together. `given` are its rows where another cursor has fetched them."""

    given: list[Any] | None = None

    async def execute(
        self, query: Any, params: Params | None = None, *, prepare: bool | None = None, binary: bool | None = None
    ) -> Self:
        del prepare, binary
        batch = _batch.get()
        assert batch is not None
        await batch.ask(_Statement(self, query, params, _place.get()))
        return self

    async def send(self, query: Any, params: Params | None) -> None:
        """Queue the statement in the connection's pipeline."""
        await super().execute(query, params)

    async def fetchone(self) -> Any:
        if self.given is None:
            return await super().fetchone()
        return self.given.pop(0) if self.given else None

    async def fetchall(self) -> list[Any]:
        if self.given is None:
            return await super().fetchall()
        rows, self.given = self.given, []
        return rows


class _Batch:
    """The statements that readings of one connection wait for."""

    def __init__(self, connection: AsyncConnection, *, one_moment: bool) -> None:
        self.connection = connection
        self._one_moment = one_moment
        self._is_over = False
        self._running = 0
        self._asked: list[_Statement] = []
        self._sending: asyncio.Task[None] | None = None

    async def carry_out(self, readings: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run all readings of the batch; return each one's result, or its exception."""
        connection, factory = self.connection, self.connection.cursor_factory
        token, connection.cursor_factory = _batch.set(self), BatchedCursor
        try:
            return await self.run(readings)
        finally:
            if self._sending is not None and not self._sending.done():
                self._sending.cancel()
                await asyncio.gather(self._sending, return_exceptions=True)
            connection.cursor_factory = factory
            _batch.reset(token)

    async def run(self, readings: Sequence[Coroutine[Any, Any, Any]], *, is_nested: bool = False) -> list[Any]:
        """Run readings as part of the batch; `is_nested`: a reading of the batch waits for them meanwhile."""
        place, left = _place.get(), len(readings)
        if not readings:
            return []
        self._running += left - is_nested

        async def one(number: int, reading: Coroutine[Any, Any, Any]) -> Any:
            nonlocal left
            _place.set((*place, number))
            try:
                return await reading
            finally:
                left -= 1
                if left or not is_nested:  # after the last one, the reading that waits for them runs again
                    self._running -= 1
                    self._send_once_all_wait()

        return await asyncio.gather(*map(one, range(len(readings)), readings), return_exceptions=True)

    async def ask(self, statement: _Statement) -> None:
        """Wait until Postgres has answered `statement`.

        Raises:
            psycopg.Error: it failed, or one before it did.
        """
        if self._is_over:
            raise RuntimeError("readings of one moment ask all that they ask at once")
        self._asked.append(statement)
        self._running -= 1
        self._send_once_all_wait()
        await statement.answered.wait()
        if statement.error is not None:
            raise statement.error

    def _send_once_all_wait(self) -> None:
        if not self._running and self._asked:
            self._is_over = self._one_moment
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        statements, self._asked = sorted(self._asked, key=lambda one: one.place), []
        try:
            if isinstance(self.connection, ServerConnection) and self.connection.is_pooled:
                await _send_to_pooler(self.connection, statements, one_moment=self._one_moment)
            else:
                await _send_in_pipeline(self.connection, statements, one_moment=self._one_moment)
        except BaseException as error:
            for statement in statements:
                statement.error = statement.error or error
            if not isinstance(error, Exception):
                raise
        finally:
            self._running += len(statements)
            for statement in statements:
                statement.answered.set()


async def _send_in_pipeline(connection: AsyncConnection, statements: Sequence[_Statement], *, one_moment: bool) -> None:
    """Send `statements` and wait for their results: one round trip, and another one after a failure in a moment."""
    failure: Exception | None = None
    try:
        async with connection.pipeline():
            try:
                if one_moment:
                    await psycopg.AsyncCursor(connection).execute(_BEGIN)
                for statement in statements:
                    await statement.cursor.send(statement.query, statement.parameters)
                if one_moment:
                    await psycopg.AsyncCursor(connection).execute(_COMMIT)
            except psycopg.Error as error:  # of a statement that was sent before
                failure = error
    except psycopg.Error as error:
        failure = failure or error
    if failure is None:
        return
    unanswered = [one for one in statements if one.cursor.pgresult is None]
    for place, statement in enumerate(unanswered):
        statement.error = psycopg.errors.PipelineAborted("pipeline aborted") if place else failure
    if one_moment and not connection.closed and connection.info.transaction_status is not TransactionStatus.IDLE:
        await psycopg.AsyncCursor(connection).execute("ROLLBACK")
    if not unanswered:
        raise failure


async def _send_to_pooler(connection: ServerConnection, statements: Sequence[_Statement], *, one_moment: bool) -> None:
    """Send `statements` as one simple query. In a moment those of the last reading follow in a second one."""
    last = statements[-1].place[0]
    main = [one for one in statements if one.place[0] < last] if one_moment else []
    parts = [part for part in (main, statements[len(main) :]) if part]
    try:
        for number, part in enumerate(parts):
            await _send_part(connection, part, begins=number == 0, ends=number == len(parts) - 1, one_moment=one_moment)
    except psycopg.Error as error:
        for statement in statements:
            if statement.cursor.given is None:
                statement.error = error
        if one_moment and not connection.closed and connection.info.transaction_status is not TransactionStatus.IDLE:
            await psycopg.AsyncCursor(connection).execute("ROLLBACK")


async def _send_part(
    connection: ServerConnection, statements: Sequence[_Statement], *, begins: bool, ends: bool, one_moment: bool
) -> None:
    is_idle = connection.info.transaction_status is TransactionStatus.IDLE
    is_whole = one_moment or (is_idle and bool(connection.local))
    before = [SQL(_begin(connection, one_moment=one_moment)), *connection.local] if is_whole and begins else []
    client = psycopg.AsyncClientCursor(connection)
    asked = [client.mogrify(one.query, one.parameters) for one in statements]
    ends_here = [_COMMIT] if is_whole and ends else []
    script = ";\n".join([*(one.as_string(connection) for one in before), *asked, *ends_here])
    runner = psycopg.AsyncCursor(connection)
    await runner.execute(script.encode(connection.info.encoding))
    for _ in before:
        runner.nextset()
    for statement in statements:
        runner.row_factory = statement.cursor.row_factory
        statement.cursor.given = await runner.fetchall()
        runner.nextset()


def _begin(connection: ServerConnection, *, one_moment: bool) -> LiteralString:
    """How a transaction begins on a lent session, which may have defaults of its own."""
    if one_moment:
        return _BEGIN
    isolation: LiteralString = "" if connection.isolation_level is None else " ISOLATION LEVEL READ COMMITTED"
    access: LiteralString = " READ ONLY" if connection.read_only else ""
    return "BEGIN" + isolation + access
