"""The start-up sum of connections: enough, too few for the server, too few for the login."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.store.database import connect
from relay.store.sizing import shortage

if TYPE_CHECKING:
    from tests.servers import Rows


async def test_too_few_connections_are_named_with_the_limit_that_is_next(dsn: str, rows: Rows) -> None:
    async with await connect(dsn, "tests") as connection:
        assert await shortage(connection, 2) is None
        said = await shortage(connection, 60)
        assert said is not None
        assert said.startswith("RELAY_WORKERS=60 may use 480 connections (8 a worker), and Postgres has ")
        assert "max_connections allows 197" in said
        name = rows.one("SELECT current_database()")
        rows(f'ALTER DATABASE "{name}" CONNECTION LIMIT 12')
        said = await shortage(connection, 2)
        assert said is not None
        assert "CONNECTION LIMIT of this database allows 12" in said
