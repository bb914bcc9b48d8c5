"""A console and commands on a real hot standby: they say that it is a replica, poll it, and refuse writes in words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from console.app import ConsoleApp
from relay.store.migrate import migrate
from tests.console.screens import opened
from tests.servers import relay_settings, until
from tests.store.plant import Plant

if TYPE_CHECKING:
    from tests.conftest import CommandLine
    from tests.postgres import Server

pytestmark = pytest.mark.slow
_PLANT = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, event, customer, finished_at, attempts, duration_ms,
                                  final_status, last_error, headers, body)
    SELECT 'dead-' || n, 'dead', gen_random_uuid(), false, 'message_created', true, now(), 3, 600, '503',
           'Agent SDK answered 503', '[]', '{"content": "hello"}' FROM generate_series(%s::int, %s::int) n
"""


async def test_a_standby_is_named_polled_and_never_written_to(server: Server, relay_command: CommandLine) -> None:
    await migrate(server.dsn, roles=True)
    server.rows(_PLANT, (1, 3))
    Plant(server.rows).relay(heartbeat_age_s=-3600)
    standby = await asyncio.to_thread(server.standby)
    try:
        await until(lambda: standby.rows("SELECT 1 FROM relay.deliveries"))
        for read_only in (False, True):
            app = ConsoleApp(
                relay_settings("http://127.0.0.1:9", console_operator="maria"), standby.dsn, read_only=read_only
            )
            async with opened(app, (100, 30)) as seen:
                await seen.shows("REPLICA", "LIVE", "Failure groups")
                await seen.press("2")
                await seen.shows(f"all {4 if read_only else 3}")
                if not read_only:
                    server.rows(_PLANT, (4, 4))
                    await seen.shows("all 4")  # polled: a standby cannot LISTEN
                    await seen.press("d")
                    await seen.shows("Type the reason")
                    await seen.type("no use")
                    await seen.press("enter")
                    await seen.shows("read-only")
        ended = await relay_command.run("status", DATABASE_URL=standby.dsn)
        assert "a read-only replica (hot standby)" in ended.stdout.splitlines()[2]
        assert ended.stderr == ""
    finally:
        standby.close()
