"""Stores receipts in groups: concurrent webhooks share one statement and one flush to disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.store.batch import GroupCommit
from relay.store.database import DEDICATED_SILENCE_S, DedicatedConnection
from relay.store.storing import store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from relay.store.database import Database
    from relay.store.deliveries import Incoming, Stored


class ReceiptStore:
    """Commits receipts for the relay `owner`. Run `run` as a task."""

    def __init__(self, database: Database, owner: UUID) -> None:
        self.on_late: Callable[[Stored], None] = lambda _: None
        """Gets what was stored after its caller had given up."""
        self._database = database
        self._owner = owner
        self._connection = DedicatedConnection(database)
        self._group: GroupCommit[Incoming, Stored] = GroupCommit(
            self._commit,
            alone=self._commit_alone,
            size=lambda item: item.receipt.size,
            late=self._stored_late,
        )

    def _stored_late(self, stored: Stored) -> None:
        self.on_late(stored)

    async def run(self) -> None:
        """Commit what `submit` is given, until cancelled."""
        await self._group.run()

    async def submit(self, item: Incoming, *, by: float) -> Stored:
        """Commit one receipt before the time `by` (`time.monotonic()`) and return what became of it.

        Raises:
            StoreUnavailable: Postgres did not store it in time, or refused the statement.
            psycopg.Error: Postgres refuses a value of this receipt.
        """
        return await self._group.submit(item, by=by)

    async def close(self) -> None:
        """Give the connection back to the pool."""
        await self._connection.close()

    async def _commit(self, batch: Sequence[Incoming]) -> list[Stored]:
        async with self._connection.connection() as connection:
            return await store(connection, self._owner, batch)

    async def _commit_alone(self, item: Incoming) -> Stored:
        async with self._database.connection(DEDICATED_SILENCE_S) as connection:
            return (await store(connection, self._owner, [item]))[0]
