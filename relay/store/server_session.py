"""Connections that work on a server session of their own, and on one that a pooler lends for a transaction.

A pooler such as PgBouncer in transaction mode gives each transaction any of its sessions. What is set on a session
there reaches other clients, and is not there for the next transaction. `ServerConnection` finds out when it connects:
on a session of its own it sets what it needs once. On a lent one it sets nothing, prepares nothing, does not listen,
and begins each transaction with `SET LOCAL` where the server's defaults would change a result.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, dict_row

from relay.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from psycopg import AsyncTransaction
    from psycopg.abc import Params

ANSWER_S = 5.0
"""How long a new connection may take for its first answer. A pooler without a free server connection gives none."""

CONNECTIONS_A_WORKER = 8
"""How many connections a worker uses at most."""

_SHORTEST_TIMEOUT_S = 60
_IDLE_TRANSACTION_S = 30.0
_RELAYS_IDLE_TRANSACTION_S = 5.0
_RELAYS_TRANSACTION_S = 15.0
"""A relay gives up what takes longer; one that was stopped in the middle cannot."""

_STARTUP = {"PGTZ": "UTC", "PGDATESTYLE": "ISO"}

# PgBouncer and its like make up the process number that a client gets for its cancellations. `settings` are set only
# where the session is the client's own, so that what a session is and what it needs take one round trip.
_PROFILE = sql.SQL("""
    SELECT pg_catalog.pg_backend_pid() AS pid, pg_catalog.pg_is_in_recovery() AS in_recovery,
           lower(current_setting('default_transaction_isolation')) AS isolation,
           extract(epoch FROM current_setting('statement_timeout')::interval)::float8 AS statement_timeout_s,
           extract(epoch FROM current_setting('lock_timeout')::interval)::float8 AS lock_timeout_s,
           coalesce(extract(epoch FROM current_setting('transaction_timeout', true)::interval)::float8, 0)
               AS transaction_timeout_s,
           current_setting('search_path') AS search_path, current_schema() IS NULL AS no_schema,
           to_regclass('dashboard_facts')::oid IS NOT NULL AS facts_visible,
           (SELECT pg_catalog.array_agg(n.nspname::text ORDER BY n.nspname)
              FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relname = 'dashboard_facts' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
               AND n.nspname::text NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema') AS facts_schemas,
           reader.may_be_reader,
           CASE WHEN pg_catalog.pg_backend_pid() = {own_pid} THEN ARRAY[{settings}] END AS done,
           CASE WHEN pg_catalog.pg_backend_pid() = {own_pid} AND {read_only} AND reader.may_be_reader
                THEN set_config('role', 'console_reader', false) END AS role
      FROM (SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'console_reader'
                              AND pg_catalog.pg_has_role(oid, 'MEMBER')) AS may_be_reader) AS reader
""")


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a connection is for. `statement_timeout_ms` limits each statement, None for no limit.

    A `read_only` connection cannot write, and acts as the role `console_reader` where its login may take that on.
    One of a relay holds no row's lock for long if the relay is stopped within a transaction: `lease_s` is its lease.
    `facts_schema` is where `dashboard_facts` is, None if the search path or the only table of that name decides.
    """

    statement_timeout_ms: int | None = None
    read_only: bool = False
    facts_schema: str | None = None
    lease_s: float | None = None

    @property
    def idle_transaction_ms(self) -> int:
        """How long a transaction may be open between two statements."""
        if self.lease_s is None:
            return round(1000 * _IDLE_TRANSACTION_S)
        return round(1000 * min(_RELAYS_IDLE_TRANSACTION_S, self.lease_s))

    @property
    def transaction_ms(self) -> int:
        """How long a transaction may take in all; 0 for no limit."""
        if self.lease_s is None:
            return 0
        return round(1000 * min(_RELAYS_TRANSACTION_S, max(_RELAYS_IDLE_TRANSACTION_S, self.lease_s)))


class ServerConnection(psycopg.AsyncConnection[TupleRow]):
    """An autocommit connection that depends on nothing that it left on a server session.

    `is_pooled` is true behind a pooler. `in_recovery` is true on a hot standby. `server_pid` is the server's process,
    None where each transaction may have another one. `local` is what each transaction sets, on a lent session.
    """

    is_pooled = False
    in_recovery = False
    server_pid: int | None = None
    local: Sequence[sql.Composable] = ()

    @classmethod
    async def connect(  # type: ignore[override]  # psycopg names its parameters one by one
        cls,
        conninfo: str = "",
        *,
        purpose: Purpose | None = None,
        on_result: Callable[[BaseException | None], None] = lambda _: None,
        **parameters: Any,
    ) -> Self:
        """Connect, and prepare the connection for `purpose`. `on_result` gets the error if that fails, else None.

        Raises:
            psycopg.OperationalError: Postgres is away or refuses, or gives no answer within `ANSWER_S`.
            SchemaError: where `dashboard_facts` is cannot be decided.
        """
        os.environ.update(_STARTUP)  # libpq sends both as it connects; poolers keep them for each client
        try:
            connection: Self = await super().connect(conninfo, **parameters)
            try:
                await connection._settle(purpose or Purpose())
            except BaseException:
                await connection.close()
                raise
        except Exception as error:
            on_result(error)
            raise
        on_result(None)
        return connection

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[AsyncTransaction]:
        """As psycopg's. On a lent session the outermost one begins with what the session lacks."""
        begins = self.info.transaction_status is TransactionStatus.IDLE
        async with super().transaction(savepoint_name, force_rollback) as transaction:
            if begins and self.local:
                await self.execute(sql.SQL("; ").join(self.local))
            yield transaction

    async def _settle(self, purpose: Purpose) -> None:
        profile = await self._profile(purpose)
        self.in_recovery = bool(profile["in_recovery"])
        self.is_pooled = profile["pid"] != self.info.backend_pid
        path = _search_path(profile, purpose.facts_schema)
        if self.is_pooled:
            self.prepare_threshold = None
            await self._settle_on_lent_session(profile, purpose, path)
            return
        self.server_pid = self.info.backend_pid
        if path is not None:
            await self._limited(self.execute(sql.SQL("SET search_path = ") + sql.SQL(path)))

    async def _settle_on_lent_session(self, profile: dict[str, Any], purpose: Purpose, path: str | None) -> None:
        timeout_ms = purpose.statement_timeout_ms
        local: list[sql.Composable] = []
        if timeout_ms is not None or 0 < profile["statement_timeout_s"] < _SHORTEST_TIMEOUT_S:
            local.append(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(timeout_ms or 0)))
        if 0 < profile["transaction_timeout_s"] < _SHORTEST_TIMEOUT_S:
            local.append(sql.SQL("SET LOCAL transaction_timeout = 0"))
        if profile["lock_timeout_s"] > 0:
            local.append(sql.SQL("SET LOCAL lock_timeout = 0"))
        if path is not None:
            local.append(sql.SQL("SET LOCAL search_path = ") + sql.SQL(path))
        if purpose.read_only and profile["may_be_reader"]:
            local.append(sql.SQL("SET LOCAL ROLE console_reader"))
        if profile["isolation"] != "read committed":
            await self.set_isolation_level(IsolationLevel.READ_COMMITTED)
        if purpose.read_only:
            await self.set_read_only(True)
        if local or purpose.read_only or self.isolation_level is not None:
            self.cursor_factory = WrappingCursor
        idle = sql.SQL("SET LOCAL idle_in_transaction_session_timeout = {}").format(purpose.idle_transaction_ms)
        self.local = local if purpose.lease_s is None else [*local, idle]

    async def _profile(self, purpose: Purpose) -> dict[str, Any]:
        settings = [
            sql.SQL("set_config({}, {}, false)").format(sql.Literal(name), sql.Literal(value))
            for name, value in _own_settings(purpose, self.info.server_version).items()
        ]
        profile = _PROFILE.format(
            own_pid=sql.Literal(self.info.backend_pid),
            settings=sql.SQL(", ").join(settings),
            read_only=sql.Literal(purpose.read_only),
        )
        cursor = self.cursor(row_factory=dict_row)
        await self._limited(cursor.execute(profile, prepare=False))
        row = await cursor.fetchone()
        assert row is not None
        return row

    async def _limited(self, statement: Any) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await statement
        except TimeoutError as error:
            raise psycopg.OperationalError(
                f"connected, but no answer within {ANSWER_S:g} s: the server is stopped or overloaded, or its pooler "
                f"has no free server connection. Each relay worker uses up to {CONNECTIONS_A_WORKER} connections and "
                "a command 1, a console 2: in session mode the pool must hold them all; use transaction mode, or "
                "enlarge the pool"
            ) from error


class WrappingCursor(psycopg.AsyncCursor[TupleRow]):
    """Runs each statement in a transaction, which sets what it needs: its own, if none is open.

    `CREATE INDEX CONCURRENTLY` and other statements that no transaction may hold need a plain `psycopg.AsyncCursor`.
    """

    async def execute(
        self, query: Any, params: Params | None = None, *, prepare: bool | None = None, binary: bool | None = None
    ) -> Self:
        connection = self.connection
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            return await super().execute(query, params, prepare=prepare, binary=binary)
        async with connection.transaction():
            return await super().execute(query, params, prepare=prepare, binary=binary)


def _own_settings(purpose: Purpose, version: int) -> dict[str, str]:
    """What is set once on a session that no one else uses, whatever role and database have as their defaults."""
    settings = {
        "statement_timeout": str(purpose.statement_timeout_ms or 0),
        "lock_timeout": "0",
        "default_transaction_isolation": "read committed",
        # What a relay that was cut off or stopped leaves open must not hold its locks. The server notices it as soon as
        # the relay notices that the server is gone.
        "idle_in_transaction_session_timeout": str(purpose.idle_transaction_ms),
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "10000",
    }
    if version >= 140_000:
        settings["idle_session_timeout"] = "0"
    if version >= 170_000:
        settings["transaction_timeout"] = str(purpose.transaction_ms)
    if purpose.lease_s is not None:
        # A plan that is made while the tables are small is kept while they grow, until they are analyzed. With a scan
        # of a whole table, each commit would take a second at 200,000 deliveries. Where no index serves, a scan is
        # planned in any case, with a made-up cost for which Postgres would compile it.
        settings |= {"enable_seqscan": "off", "jit": "off"}
    if purpose.read_only:
        settings["default_transaction_read_only"] = "on"
    return settings


def _search_path(profile: dict[str, Any], facts_schema: str | None) -> str | None:
    """The search path under which `dashboard_facts` is the one to use, None if it is so already.

    Raises:
        SchemaError: several schemas have one, and nothing decides.
    """
    schemas = profile["facts_schemas"] or []
    if facts_schema is None:
        if profile["facts_visible"] or (not schemas and not profile["no_schema"]):
            return None
        if len(schemas) > 1:
            raise SchemaError(
                f"dashboard_facts is in the schemas {', '.join(schemas)}, and the login's search_path names none of "
                f"them: set RELAY_FACTS_TABLE={schemas[0]}.dashboard_facts, or the one that is meant"
            )
        facts_schema = schemas[0] if schemas else "public"
    rest = str(profile["search_path"]).strip()
    return sql.Identifier(facts_schema).as_string() + (f", {rest}" if rest not in {"", '""'} else "")
