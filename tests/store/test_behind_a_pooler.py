"""A real PgBouncer in front of a real Postgres: nothing that the relay or a console does stays on a server session."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from console.data import snapshot
from console.data.log_reading import LogReading
from console.data.operator_session import OperatorSession
from console.data.readings import (
    ActivityReading,
    BreakdownReading,
    ConversationReading,
    DetailReading,
    Page,
    RowsReading,
)
from relay.domain.delivery import State
from relay.settings import load_settings
from relay.store import preflight
from relay.store.database import Database, connect, one_moment
from relay.store.filters import compile_filter
from relay.store.migrate import migrate, migrations
from relay.store.sessions import connected, listen, open_session
from relay.store.sorted_rows import Order
from tests.pooler import Pooler, needs_pgbouncer
from tests.servers import Rows, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.postgres import Server
    from tests.servers import RunningRelay

pytestmark = [pytest.mark.slow, needs_pgbouncer]
_LEFT = """
    SELECT name || '=' || setting FROM pg_settings
     WHERE source = 'session' AND name NOT LIKE 'transaction%'
       AND name NOT IN ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings')
     UNION ALL SELECT 'prepared ' || name FROM pg_prepared_statements
     UNION ALL SELECT 'listens on ' || pg_listening_channels()
     UNION ALL SELECT 'holds ' || locktype FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'
     UNION ALL SELECT 'is ' || current_user WHERE current_user <> session_user
"""


@pytest.fixture
def pooler(server: Server, server_folder: Path) -> Iterator[Pooler]:
    """PgBouncer in transaction mode with few server connections: what one client leaves, others meet."""
    made = Pooler(server_folder, server.dsn, default_pool_size=4, query_wait_timeout=20)
    try:
        yield made.start()
    finally:
        made.close()


def what_is_left(pooler: Pooler) -> list[str]:
    """What the pool's server sessions keep, each of them asked at the same time."""
    found: list[str] = []
    clients = [psycopg.connect(pooler.dsn, prepare_threshold=None) for _ in range(4)]
    for client in clients:
        found += [row[0] for row in client.execute(_LEFT.encode()).fetchall()]
    for client in clients:
        client.close()
    return found


async def test_a_relay_a_console_and_commands_work_and_leave_nothing_behind(
    pooler: Pooler, serve: Callable[..., RunningRelay]
) -> None:
    await migrate(pooler.dsn, roles=True)
    relays = [await serve(pooler.dsn).ready() for _ in range(2)]
    for read_only in (False, True):
        session = OperatorSession(load_settings(), pooler.dsn, "maria", read_only=read_only)
        assert await session.find("none") is None
        assert (await session.propose(compile_filter(""))).letters == []
        await session.record("check-health", {"ok": True})
        await session.close()
    answers = await asyncio.gather(*(relays[n % 2].post({"event": "message_created", "id": n}) for n in range(60)))
    assert {answer.status_code for answer in answers} == {200}
    assert await migrate(pooler.dsn) == []
    async with connected(pooler.dsn) as connection, one_moment(connection):
        await connection.execute("SELECT count(*) FROM relay.deliveries")
    assert what_is_left(pooler) == []


async def test_every_step_applies_through_it_once_though_several_migrate(pooler: Pooler) -> None:
    applied = await asyncio.gather(*(migrate(pooler.dsn) for _ in range(2)))
    assert sorted(step.version for steps in applied for step in steps) == [step.version for step in migrations()]
    assert what_is_left(pooler) == []


async def test_a_read_only_console_cannot_write_and_others_can(pooler: Pooler) -> None:
    await migrate(pooler.dsn, roles=True)
    reader = await open_session(pooler.dsn, read_only=True, application="tests", timeout_ms=700)
    await listen(reader, ("relay_log",))
    writer = await connect(pooler.dsn, "tests")
    async with reader, writer:
        user = await (
            await reader.execute("SELECT current_user::text, current_setting('statement_timeout')")
        ).fetchone()
        assert user == ("console_reader", "700ms")
        with pytest.raises((psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege)):
            await reader.execute("INSERT INTO relay.log (at, level) VALUES (now(), 'info')")
        for _ in range(20):
            await writer.execute("SELECT pg_sleep(0), set_config('relay.x', 'y', true)")
            await writer.execute("CREATE TABLE IF NOT EXISTS written (n int)")
    assert what_is_left(pooler) == []


_DEAD = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, event, customer, finished_at, attempts, duration_ms,
                                  conversation_id, final_status, last_error, headers, body)
    SELECT 'dead-' || n, 'dead', gen_random_uuid(), false, 'message_created', true, now(), 3, 600, '7', '503',
           'Agent SDK answered 503', '[]', '{"content": "hello"}' FROM generate_series(1, 250) AS n
"""


async def test_a_console_reads_every_view_through_it_at_one_moment(pooler: Pooler) -> None:
    await migrate(pooler.dsn, roles=True)
    Rows(pooler.dsn)(_DEAD)
    ids = Rows(pooler.dsn)("SELECT id FROM relay.deliveries ORDER BY id")
    dead = (State.DEAD,)
    readings = {
        "overview": None,
        "dead letters": RowsReading("", dead, marked=frozenset(ids[:3]), wordless=frozenset(ids)),
        "a cause": RowsReading("status:503", dead),
        "a word": RowsReading("hello since:00:00", dead),
        "deliveries": RowsReading("", None),
        "sorted": RowsReading("conv:7 age:<1h", None, order=Order.STATUS),
        "a delivery": DetailReading(ids[0]),
        "a conversation": ConversationReading("7"),
        "breakdown": BreakdownReading(timedelta(hours=1)),
        "log": LogReading(9, before=5, missing=(7,)),
        "activity": ActivityReading(),
    }
    for read_only in (False, True):
        async with await open_session(
            pooler.dsn, read_only=read_only, application="tests", timeout_ms=20_000
        ) as connection:
            for name, reading in readings.items():
                seen = await snapshot.read(connection, reading, minutes_of=timedelta(hours=1), watched=1)
                assert seen.overview.open_dead_letters == seen.groups[0].count == 250, name
                assert not isinstance(seen.view, snapshot.TooSlow), name
                assert not isinstance(seen.view, Page) or seen.view.matching == 250, name
            await connection.execute("SELECT 1")
    Rows(pooler.dsn)("CREATE OR REPLACE FUNCTION relay.payload(body bytea) RETURNS jsonb LANGUAGE plpgsql AS"
                     " $$ BEGIN PERFORM pg_sleep(60); RETURN '{}'; END $$")  # fmt: skip
    async with await open_session(pooler.dsn, read_only=True, application="tests", timeout_ms=2_000) as connection:
        seen = await snapshot.read(connection, RowsReading("payload.a:b", dead), minutes_of=timedelta(hours=1))
        assert isinstance(seen.view, snapshot.TooSlow)
        assert seen.overview.open_dead_letters == 250
    assert what_is_left(pooler) == []


async def test_defaults_that_the_provider_set_change_nothing(server: Server, server_folder: Path) -> None:
    for setting in (
        "datestyle = 'German, DMY'",
        "timezone = 'Asia/Kathmandu'",
        "statement_timeout = '1s'",
        "default_transaction_isolation = 'serializable'",
        "intervalstyle = 'sql_standard'",
        "lc_messages = 'C'",
        "search_path = 'elsewhere'",
        "idle_session_timeout = '300ms'",
        "lock_timeout = '300ms'",
    ):
        server.rows(f"ALTER DATABASE postgres SET {setting}")
    pooler = Pooler(server_folder, server.dsn, default_pool_size=4).start()
    try:
        server.rows("CREATE SCHEMA app")
        server.rows("CREATE TABLE app.dashboard_facts (id serial, fact_type text, scope text, value jsonb)")
        for dsn in (server.dsn, pooler.dsn):
            await migrate(dsn)
            await preflight.check(dsn)
            database = Database(dsn)
            await database.open()
            async with database.connection() as connection:
                cursor = await connection.execute(
                    "SELECT current_setting('transaction_isolation'), to_regclass('dashboard_facts')::text, now(), "
                    "current_setting('statement_timeout'), current_setting('lock_timeout')"
                )
                row = await cursor.fetchone()
            await database.close()
            assert row is not None
            assert (row[0], row[1], row[2].utcoffset().total_seconds(), *row[3:]) == (
                "read committed", "dashboard_facts", 0, "0", "0",
            )  # fmt: skip
    finally:
        pooler.close()


async def test_without_a_free_server_connection_it_is_said_what_is_needed(server: Server, server_folder: Path) -> None:
    pooler = Pooler(server_folder, server.dsn, mode="session", default_pool_size=2).start()
    try:
        await migrate(pooler.dsn)
        with psycopg.connect(pooler.dsn) as one, psycopg.connect(pooler.dsn) as two:
            one.execute("SELECT 1")
            two.execute("SELECT 1")
            with pytest.raises(Exception, match=r"no free server connection.*up to 8 connections"):
                await migrate(pooler.dsn)
    finally:
        pooler.close()


@pytest.mark.usefixtures("impatient_store")
async def test_a_relay_continues_after_the_pooler_was_restarted(
    pooler: Pooler, serve: Callable[..., RunningRelay]
) -> None:
    relay = await serve(pooler.dsn).ready()
    await asyncio.to_thread(pooler.stop)
    assert (await relay.post({"event": "message_created"})).status_code == 503
    await asyncio.to_thread(pooler.start)

    async def answers() -> bool:
        return (await relay.post({"event": "message_created", "id": 2})).status_code == 200

    await until(answers)
    assert Rows(pooler.dsn).one("SELECT count(*) FROM relay.deliveries WHERE state = 'delivered'") >= 1
