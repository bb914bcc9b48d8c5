"""The console while Postgres comes and goes: it says so, keeps what it showed, and continues by itself."""

from __future__ import annotations

import asyncio
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from console.app import ConsoleApp
from console.data import poller
from relay.store.embedded import EmbeddedPostgres
from relay.store.migrate import migrate
from tests.console.screens import opened
from tests.postgres import Proxy
from tests.servers import Rows, RunningRelay, relay_settings, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.postgres import Server
    from tests.servers import AgentStandIn

_PLANT = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, event, customer, finished_at, attempts, duration_ms,
                                  final_status, last_error, headers, body)
    SELECT to_char(n, 'FM00000000'), 'dead', gen_random_uuid(), false, 'message_created', true,
           now() - (30 - n) * interval '1 s', 3, 600, '503', 'Agent SDK answered 503', '[]', '{"content": "hello"}'
      FROM generate_series(1, 20) n
"""


async def test_a_restart_of_the_database_is_survived_in_place(tmp_path: Path) -> None:
    server = await asyncio.to_thread(EmbeddedPostgres, tmp_path)
    try:
        await migrate(server.dsn, roles=True)
        Rows(server.dsn)(_PLANT)
        app = ConsoleApp(relay_settings("http://127.0.0.1:9", console_operator="maria"), server.dsn)
        async with opened(app, (120, 36)) as seen:
            await seen.shows("Failure groups")
            await seen.press("2")
            await seen.shows("all 20")
            await seen.press("j", "j", "j")
            await seen.shows("00000017")
            await asyncio.to_thread(server.close)
            await seen.shows("Postgres", "Trying again", "00000017")  # says so, and keeps what it showed
            await seen.shows("STALE")
            await seen.press("r")
            await seen.shows("Postgres")  # a write is refused in words
            server = await asyncio.to_thread(EmbeddedPostgres, tmp_path)
            await seen.shows("LIVE", "all 20")
            await seen.hides("Trying again")
            await seen.press("y")
            await seen.shows("Copied 00000017")  # the cursor is where it was
    finally:
        await asyncio.to_thread(server.close)


@pytest.mark.usefixtures("impatient_store")
async def test_a_test_webhook_shows_the_answer_of_a_relay_without_postgres(tmp_path: Path, agent: AgentStandIn) -> None:
    server = await asyncio.to_thread(EmbeddedPostgres, tmp_path)
    with ExitStack() as running:
        running.callback(server.close)
        relay = await RunningRelay(relay_settings(agent), server.dsn).ready()
        app = ConsoleApp(relay_settings(agent, console_operator="maria", relay_url=relay.url), server.dsn)
        async with opened(app, (120, 36)) as seen:
            await seen.shows("Failure groups")
            await seen.press("t")
            await seen.shows("1  message_created")
            await asyncio.to_thread(running.close)
            await seen.press("1")
            await seen.shows("Postgres is away since", "the relay answered 503")
        await relay.stop()


async def test_what_was_read_before_the_rest_says_its_own_age(tmp_path: Path) -> None:
    server = await asyncio.to_thread(EmbeddedPostgres, tmp_path)
    with ExitStack() as running:
        running.callback(server.close)
        await migrate(server.dsn, roles=True)
        app = ConsoleApp(relay_settings("http://127.0.0.1:9", console_operator="maria"), server.dsn)
        async with opened(app, (120, 36)) as seen:
            await seen.shows("Failure groups")
            await seen.press("6")
            await seen.shows("No actions recorded yet")
            await seen.press("1")
            read_at = seen.app.context.snapshot.read_at
            await until(lambda: seen.app.context.snapshot.read_at > read_at + 3)
            await asyncio.to_thread(running.close)
            await seen.shows("Trying again")
            await seen.press("6")
            await until(lambda: re.search(r"The figures\s+are [\w ]+\s+old,\s+what\s+is below [\w ]+\.", seen.text))


async def test_a_connection_that_is_half_open_is_given_up(server: Server) -> None:
    await migrate(server.dsn, roles=True)
    server.rows(_PLANT)
    proxy = await Proxy(server.port).start()
    app = ConsoleApp(relay_settings("http://127.0.0.1:9"), server.dsn.replace(str(server.port), str(proxy.port)))
    async with opened(app, (120, 36)) as seen:
        await seen.press("2")
        await seen.shows("LIVE", "all 20")
        await seen.press("enter")
        await seen.shows("hello")
        await until(lambda: proxy.links == 2, what="the poller and the session are connected")
        proxy.strand()
        await seen.shows("STALE")
        await seen.shows("LIVE")
    await proxy.close()


_SLOW_PAYLOAD = """
    CREATE OR REPLACE FUNCTION relay.payload(body bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN PERFORM pg_sleep(0.3); RETURN '{}'; END $$
"""


async def test_a_session_that_is_cut_is_opened_anew(
    relay: RunningRelay, console: Callable[..., object], rows: Rows
) -> None:
    async with console() as seen:
        await seen.shows("LIVE", "no webhook yet")
        rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'hotdash console%%'")
        await relay.post({"event": "message_created", "id": 1, "conversation": {"id": 1}})
        await seen.shows("LIVE", "Webhook forwarded successfully")


async def test_it_holds_at_most_three_connections_and_names_them(
    incident: RunningRelay, console: Callable[..., object], rows: Rows
) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        await seen.press("2")
        await seen.shows("Agent SDK answered 503")
        names = rows("SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'hotdash console%%'")
        assert 1 <= len(names) <= 3
    await until(
        lambda: not rows("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'hotdash console%%'"),
        what="the sessions are closed",
    )


async def test_a_search_that_takes_too_long_says_so_and_spoils_nothing(
    relay: RunningRelay, console: Callable[..., object], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "_STATEMENT_TIMEOUT_MS", 3_000)
    rows(_PLANT)
    rows(_SLOW_PAYLOAD)
    async with console() as seen:
        await seen.press("2")
        await seen.shows("all 20")
        await seen.press("slash")
        await seen.type("payload.content:hello")
        await seen.shows("takes longer than a second", "age:<1h", "LIVE")
        await seen.press("enter", "escape")
        await seen.shows("all 20")
        await seen.hides("takes longer than a second")
