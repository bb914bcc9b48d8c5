"""Finds a delivery by what a person types of its id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.store.delivery_detail import row_of

if TYPE_CHECKING:
    from relay.store.database import Connection

_BEGINNING = """
    SELECT id FROM relay.deliveries WHERE starts_with(delivery_id, %s) ORDER BY id DESC LIMIT 2
"""


async def rows_beginning(connection: Connection, delivery_id: str) -> list[int]:
    """The row of a delivery by Chatwoot's id, alone; else up to two rows of deliveries whose id begins so."""
    if (exact := await row_of(connection, delivery_id)) is not None:
        return [exact]
    cursor = await connection.execute(_BEGINNING, (delivery_id,))
    return [int(row[0]) for row in await cursor.fetchall()]
