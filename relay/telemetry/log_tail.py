"""The service that stores log lines in Postgres, where the console reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.errors import StoreUnavailable
from relay.store import log
from relay.store.database import DedicatedConnection

if TYPE_CHECKING:
    from uuid import UUID

    from relay.store.database import Database
    from relay.telemetry.log_sink import LogSink

BATCH = 2_000
"""Lines that one statement stores, at most."""


class LogTail:
    """Stores lines within about 0.1 s, on a connection of its own."""

    name = "log tail"
    interval_s = 0.1

    def __init__(self, database: Database, owner: UUID, sink: LogSink) -> None:
        self._connection = DedicatedConnection(database)
        self._owner = owner
        self._sink = sink

    async def run_once(self) -> None:
        """Wait for lines and store one batch. Lines that could not be stored are kept for the next round.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        await self._sink.tail_ready.wait()
        lines = self._sink.take_tail(BATCH)
        if not lines:
            return
        try:
            async with self._connection.connection() as connection:
                await log.append(connection, self._owner, lines)
        except StoreUnavailable:
            self._sink.put_back(lines)
            raise

    async def close(self) -> None:
        """Give the connection back to the pool."""
        await self._connection.close()
