"""Servers as providers set them up: limits on the role, logins that are locked or may not migrate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from relay.errors import SchemaError
from relay.store.migrate import migrate, migrations
from tests.servers import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.postgres import Server
    from tests.servers import RunningRelay

pytestmark = pytest.mark.slow
_SLOW_STEP = """
    CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1.2); END $$;
    CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE SCHEMA') EXECUTE FUNCTION slow()
"""


async def test_a_migration_may_take_longer_than_the_roles_statement_timeout(server: Server) -> None:
    server.rows(_SLOW_STEP)
    server.rows("ALTER ROLE postgres SET statement_timeout = '1s'")
    assert len(await migrate(server.dsn)) == len(migrations())


async def test_an_error_names_a_login_that_may_migrate_and_how(server: Server) -> None:
    await migrate(server.dsn, roles=True)
    server.rows("CREATE ROLE runs LOGIN IN ROLE relay_service")
    dsn = server.dsn.replace("postgres@", "runs@")
    assert await migrate(dsn) == []
    server.rows(
        "DELETE FROM relay.schema_migrations WHERE version = (SELECT max(version) FROM relay.schema_migrations)"
    )
    with pytest.raises(SchemaError, match=r"login runs may not migrate .*Run `relay migrate --roles` as postgres"):
        await migrate(dsn)


async def test_a_locked_login_is_the_reason_that_health_gives(
    server: Server, serve: Callable[..., RunningRelay]
) -> None:
    await migrate(server.dsn, roles=True)
    server.rows("CREATE ROLE runs LOGIN PASSWORD 'hunter2' IN ROLE relay_service")
    relay = await serve(server.dsn.replace("postgres@", "runs:hunter2@")).ready()
    await asyncio.to_thread(server.rows, "ALTER ROLE runs NOLOGIN")
    await asyncio.to_thread(
        server.rows, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'runs'"
    )

    async def says_why() -> bool:
        answer = await http.get(f"{relay.url}/health")
        return answer.status_code == 503 and "not permitted to log in" in answer.text and "hunter2" not in answer.text

    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        await until(says_why, what="/health names the reason")
    assert "hunter2" not in relay.output
