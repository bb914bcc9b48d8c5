"""Says for which sessions a statement or a migration waits, once that takes longer than two seconds."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import psycopg

from relay.errors import RelayError
from relay.store.database import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from relay.store.database import Connection

SAY_AFTER_S = 2.0

_END_IT = "To end it: SELECT pg_terminate_backend({pid})"
_LOCK_HOLDERS = """
    SELECT l.pid, a.usename::text, a.application_name
      FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.classid = (%(lock)s::bigint >> 32)::oid AND l.objid = (%(lock)s::bigint & 4294967295)::oid
"""
_TABLE_HOLDERS = """
    SELECT l.pid, a.usename::text, a.application_name, min(c.relname)
      FROM pg_locks l JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_stat_activity a USING (pid)
     WHERE l.granted AND l.pid <> pg_backend_pid() AND c.relkind IN ('r', 'p')
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (c.relnamespace = to_regnamespace('relay') OR c.relname = 'dashboard_facts')
     GROUP BY l.pid, a.usename, a.application_name, a.xact_start ORDER BY a.xact_start NULLS LAST LIMIT 3
"""
_WRITERS = """
    SELECT l.pid, a.usename::text, a.application_name,
           coalesce(extract(epoch FROM now() - a.xact_start), 0)::float8 AS age_s
      FROM pg_locks l JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_stat_activity a USING (pid)
     WHERE l.granted AND l.pid <> pg_backend_pid() AND c.relkind IN ('r', 'p') AND l.mode <> 'AccessShareLock'
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (c.relnamespace = to_regnamespace('relay') OR c.relname = 'dashboard_facts')
     GROUP BY l.pid, a.usename, a.application_name, a.xact_start ORDER BY a.xact_start NULLS LAST LIMIT 3
"""
_BLOCKERS = """
    SELECT DISTINCT b.pid, b.usename::text, b.application_name
      FROM pg_stat_activity w CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS blocking(pid)
      JOIN pg_stat_activity b ON b.pid = blocking.pid
     WHERE w.application_name = %(application)s AND w.usename = current_user AND w.datname = current_database()
       AND w.wait_event_type = 'Lock'
"""


async def lock_holders(connection: Connection) -> list[str]:
    """The sessions that hold a lock on the relay's tables which a writer may wait for, the oldest transaction first.

    At most three, each as `process 4711, login relay, application psql, in a transaction for 12 s. …`.
    """
    rows = await (await connection.execute(_WRITERS)).fetchall()
    return [
        f"process {pid}, login {login}, application {application or '(no name)'}, in a transaction for {age_s:.0f} s. "
        f"{_END_IT.format(pid=pid)}"
        for pid, login, application, age_s in rows
    ]


class Waiting:
    """Pauses of a migration that waits for locks. `on_wait` gets a sentence for each session, once."""

    def __init__(self, connection: Connection, lock: int, on_wait: Callable[[str], None]) -> None:
        self._connection = connection
        self._lock = lock
        self._on_wait = on_wait
        self._says_at = time.monotonic() + SAY_AFTER_S
        self._last_pause = float("-inf")
        self._said = False

    async def pause(self, seconds: float) -> None:
        """Wait for `seconds`, outside of a transaction."""
        now = time.monotonic()
        if now - self._last_pause > SAY_AFTER_S:  # another wait than the last one
            self._said, self._says_at = False, now + SAY_AFTER_S
        elif not self._said and now > self._says_at:
            self._said = await self._say()
        await asyncio.sleep(seconds)
        self._last_pause = time.monotonic()

    async def _say(self) -> bool:
        cursor = await self._connection.execute(_LOCK_HOLDERS, {"lock": self._lock})
        holders = await cursor.fetchall()
        for pid, login, application in holders:
            self._on_wait(
                f"The migration waits for another session, which holds the migration lock: process {pid}, login "
                f"{login}, application {application or '(no name)'}. {_END_IT.format(pid=pid)}"
            )
        if holders:
            return True
        cursor = await self._connection.execute(_TABLE_HOLDERS)
        holders = await cursor.fetchall()
        for pid, login, application, table in holders:
            self._on_wait(
                f"The migration waits for another session, which holds a lock on {table}: process {pid}, login "
                f"{login}, application {application or '(no name)'}. {_END_IT.format(pid=pid)}"
            )
        return bool(holders)


@asynccontextmanager
async def reporting_waits(dsn: str, application: str, on_wait: Callable[[str], None]) -> AsyncIterator[None]:
    """Call `on_wait` with a sentence for each session that a statement of `application` waits for, during the block.

    Reads every two seconds on a connection of its own, from the second second on.
    """
    watch = asyncio.create_task(_watch(dsn, application, on_wait), name="waits")
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def _watch(dsn: str, application: str, on_wait: Callable[[str], None]) -> None:
    said: set[int] = set()
    await asyncio.sleep(SAY_AFTER_S)
    with suppress(psycopg.Error, OSError, RelayError):
        async with await connect(dsn, "relay waits") as connection:
            while True:
                cursor = await connection.execute(_BLOCKERS, {"application": application})
                for pid, login, name in await cursor.fetchall():
                    if pid not in said:
                        said.add(pid)
                        on_wait(
                            f"Waiting for another session, which holds a lock: process {pid}, login {login}, "
                            f"application {name or '(no name)'}. {_END_IT.format(pid=pid)}"
                        )
                await asyncio.sleep(SAY_AFTER_S)
