"""Applies single steps of the schema, for tests of databases that another version left."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

    from relay.store.migrate import Migration

_HISTORY = """
    CREATE SCHEMA IF NOT EXISTS relay;
    CREATE TABLE IF NOT EXISTS relay.schema_migrations (
        version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""


async def apply(connection: psycopg.AsyncConnection, steps: Iterable[Migration]) -> None:
    """Apply `steps` as the version that knows them does. The connection commits each statement."""
    await connection.execute(_HISTORY)
    for step in steps:
        await connection.execute(step.sql.encode())
        await connection.execute("INSERT INTO relay.schema_migrations VALUES (%s, %s)", (step.version, step.name))
