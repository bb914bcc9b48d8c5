"""The slots of Agent SDKs (`RELAY_AGENT_CONCURRENCY`): each belongs to a destination, and to one relay at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from relay.store.database import Connection

_RESIZE = """
    WITH missing AS (
        INSERT INTO relay.destination_slots (destination, number)
        SELECT %(destination)s, n FROM generate_series(1, %(slots)s) AS n
         WHERE NOT EXISTS (SELECT FROM relay.destination_slots s
                            WHERE s.destination = %(destination)s AND s.number = n)
            ON CONFLICT DO NOTHING
    )
    DELETE FROM relay.destination_slots
     WHERE destination = %(destination)s AND number > %(slots)s AND (owner IS NULL OR owner = %(owner)s)
"""
_TAKE = """
    UPDATE relay.destination_slots SET owner = %(owner)s WHERE destination = %(destination)s AND number IN (
        SELECT s.number FROM relay.destination_slots s
         WHERE s.destination = %(destination)s AND s.number <= %(slots)s AND s.owner IS DISTINCT FROM %(owner)s
           AND coalesce((SELECT i.lease_until FROM relay.instances i WHERE i.id = s.owner), '-infinity') < now()
         ORDER BY s.number LIMIT %(more)s FOR UPDATE SKIP LOCKED)
"""
_GIVE_BACK = """
    UPDATE relay.destination_slots SET owner = NULL WHERE destination = %(destination)s AND number IN (
        SELECT number FROM relay.destination_slots
         WHERE destination = %(destination)s AND owner = %(owner)s ORDER BY number DESC LIMIT %(fewer)s)
"""
_MINE = """
    SELECT count(*) FROM relay.destination_slots
     WHERE destination = %(destination)s AND owner = %(owner)s AND number <= %(slots)s
"""


async def share(connection: Connection, owner: UUID, destination: str, *, slots: int, wanted: int, busy: int) -> int:
    """Take free slots of the `slots` that the agent has, or give back what is above `wanted` and not `busy`.

    Returns how many slots this relay holds. Slots of a relay whose lease has expired are free.
    """
    given = {"owner": owner, "destination": destination, "slots": slots}
    await connection.execute(_RESIZE, given)
    row = await (await connection.execute(_MINE, given)).fetchone()
    mine = int(row[0]) if row else 0
    if mine < wanted:
        mine += (await connection.execute(_TAKE, given | {"more": wanted - mine})).rowcount
    elif mine > max(wanted, busy):
        mine -= (await connection.execute(_GIVE_BACK, given | {"fewer": mine - max(wanted, busy)})).rowcount
    return mine


_LEAVE = "UPDATE relay.destination_slots SET owner = NULL WHERE owner = %s"


async def leave(connection: Connection, owner: UUID) -> None:
    """Give back every slot of `owner`."""
    await connection.execute(_LEAVE, (owner,))
