"""Whether Postgres has the connections that a relay may use: a sum at its start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.store.database import rows_of
from relay.store.server_session import CONNECTIONS_A_WORKER

if TYPE_CHECKING:
    from relay.store.server_session import ServerConnection

_LIMITS = """
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
               - coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int AS most,
           count(*) FILTER (WHERE backend_type = 'client backend') AS used,
           (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user) AS most_of_login,
           count(*) FILTER (WHERE usename = session_user) AS used_by_login,
           (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS most_of_database,
           count(*) FILTER (WHERE datname = current_database()) AS used_in_database
      FROM pg_stat_activity WHERE pid <> pg_backend_pid()
"""


async def shortage(connection: ServerConnection, workers: int) -> str | None:
    """A sentence if `workers` may need more connections than are free; None if there are enough, or behind a pooler."""
    if connection.is_pooled:
        return None
    row = await (await rows_of(connection, dict[str, Any]).execute(_LIMITS)).fetchone()
    assert row is not None
    limits = (
        ("max_connections", row["most"], row["used"]),
        ("CONNECTION LIMIT of this login", row["most_of_login"], row["used_by_login"]),
        ("CONNECTION LIMIT of this database", row["most_of_database"], row["used_in_database"]),
    )
    known = [(most - used, name, most, used) for name, most, used in limits if most is not None and most >= 0]
    free, name, most, used = min(known)
    needed = workers * CONNECTIONS_A_WORKER
    if needed <= free:
        return None
    return (
        f"RELAY_WORKERS={workers} may use {needed} connections ({CONNECTIONS_A_WORKER} a worker), and Postgres has "
        f"{free} free ({name} allows {most}, {used} in use): raise the limit, lower RELAY_WORKERS, "
        "or put a pooler in between"
    )
