"""The reference Agent SDK's memory: one private note for each idempotency key."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.store.database import exact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.store.database import Connection


@dataclass(frozen=True, slots=True)
class Note:
    """A draft; `note_id` is Chatwoot's once it is known to have been posted."""

    draft: str
    note_id: int | None


_TURN = "SELECT pg_try_advisory_lock(hashtextextended(%s, 8787))"
_TURN_ENDS = "SELECT pg_advisory_unlock(hashtextextended(%s, 8787))"


@asynccontextmanager
async def turn(connection: Connection, key: str) -> AsyncIterator[bool]:
    """True if this process may work on `key` during the block. Postgres releases the lock if the process dies."""
    cursor = await connection.execute(_TURN, (key,))
    row = await cursor.fetchone()
    mine = bool(row and row[0])
    try:
        yield mine
    finally:
        if mine and not connection.closed:
            await connection.execute(_TURN_ENDS, (key,))


async def find(connection: Connection, key: str) -> Note | None:
    """The note of `key`, if there is one."""
    cursor = await exact(connection).execute("SELECT draft, note_id FROM relay.notes WHERE key = %s", (key,))
    row = await cursor.fetchone()
    return None if row is None else Note(*row)


async def keep(connection: Connection, key: str, conversation_id: int, draft: str) -> None:
    """Remember the draft, before it is posted."""
    await connection.execute(
        "INSERT INTO relay.notes (key, conversation_id, draft) VALUES (%s, %s, %s)", (key, conversation_id, draft)
    )


async def posted(connection: Connection, key: str, note_id: int) -> None:
    """It was posted."""
    await connection.execute("UPDATE relay.notes SET note_id = %s, posted_at = now() WHERE key = %s", (note_id, key))
