"""Stores receipts in groups: concurrent webhooks share one statement and one flush to disk.

A row that another session holds delays nothing but the webhooks that need that row: a batch waits for it a moment and
is then committed in parts. Any login that may insert a delivery can hold one, by leaving its transaction open. The row
of a conversation is held by each relay that commits a message of it, for as long as a commit takes on a slow disk. It
is therefore waited for longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from relay.errors import StatementRefused
from relay.store.arrival_order import ArrivalOrder
from relay.store.batch import GroupCommit
from relay.store.database import DEDICATED_SILENCE_S, DedicatedConnection
from relay.store.storing import store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from relay.store.database import Database
    from relay.store.deliveries import Incoming, Stored

CONVERSATION_LOCK_MS = 1_000
"""How long a statement waits for the row of a conversation."""

_BATCH_LOCK_MS = 50
_PART_LOCK_MS = 10
_PART_CONVERSATION_LOCK_MS = 50
_MOST_HELD = 1_000


class ReceiptStore:
    """Commits receipts for the relay `owner`. Run `run` as a task.

    Receipts that are inside `order.place` are committed in the order of arrival in their conversation.
    """

    def __init__(self, database: Database, owner: UUID) -> None:
        self.on_late: Callable[[Stored], None] = lambda _: None
        """Gets what was stored after its caller had given up."""
        self.order = ArrivalOrder()
        self._database = database
        self._owner = owner
        self._connection = DedicatedConnection(database)
        self._held: set[str] = set()  # delivery ids and conversations whose row another session held of late
        self._group: GroupCommit[Incoming, Stored] = GroupCommit(
            self._commit,
            alone=self._commit_alone,
            part=self._commit_part,
            size=lambda item: item.receipt.size,
            most_alone=2,
            late=self._stored_late,
            order=self.order,
        )

    def _stored_late(self, stored: Stored) -> None:
        self.on_late(stored)

    async def run(self) -> None:
        """Commit what `submit` is given, until cancelled."""
        await self._group.run()

    async def submit(self, item: Incoming, *, by: float) -> Stored:
        """Commit one receipt before the time `by` (`time.monotonic()`) and return what became of it.

        Raises:
            EarlierFirst: an earlier receipt of its conversation was not stored; wait for `order.turn`.
            StoreUnavailable: Postgres did not store it in time, or refused the statement.
            psycopg.Error: Postgres refuses a value of this receipt.
        """
        rows = {item.receipt.delivery_id, item.order_key or ""}
        try:
            stored = await self._group.submit(item, by=by, alone=not self._held.isdisjoint(rows))
        except StatementRefused as error:
            if waits_for_a_row(error):
                if len(self._held) >= _MOST_HELD:
                    self._held.clear()
                self._held |= rows - {""}
            raise
        self._held -= rows
        return stored

    async def close(self) -> None:
        """Give the connection back to the pool."""
        await self._connection.close()

    async def _commit(self, batch: Sequence[Incoming]) -> list[Stored]:
        async with self._connection.connection() as connection:
            return await store(
                connection, self._owner, batch, lock_ms=_BATCH_LOCK_MS, conversation_ms=CONVERSATION_LOCK_MS
            )

    async def _commit_part(
        self, part: Sequence[Incoming], conversation_ms: int = _PART_CONVERSATION_LOCK_MS
    ) -> list[Stored]:
        async with self._database.connection(DEDICATED_SILENCE_S) as connection:
            return await store(connection, self._owner, part, lock_ms=_PART_LOCK_MS, conversation_ms=conversation_ms)

    async def _commit_alone(self, item: Incoming) -> Stored:
        return (await self._commit_part([item], CONVERSATION_LOCK_MS))[0]


def waits_for_a_row(error: BaseException) -> bool:
    """True if a statement was given up because another session holds a row that it needs."""
    return isinstance(error.__cause__, psycopg.errors.LockNotAvailable)
