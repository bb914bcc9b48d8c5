"""Services that keep the tables small and right: retention, expired signatures, headers that an earlier version stored,
conversations whose head will never end.

Each deletes or updates in small batches on one connection and ends early when the relay stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from relay.store import gate, instances, retention, scrub, signatures

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from uuid import UUID

    from relay.store.database import Database

_PATIENCE_S = 900


@dataclass(frozen=True, slots=True)
class Retention:
    """Deletes deliveries, facts and log lines older than `keep`. One relay at a time has the duty."""

    database: Database
    owner: UUID
    keep: timedelta
    stopping: Callable[[], bool]
    name: ClassVar[str] = "retention"
    interval_s: ClassVar[float] = 600

    async def run_once(self) -> None:
        """Delete what is due."""
        async with self.database.connection(patience_s=_PATIENCE_S) as connection:
            if await instances.take_duty(connection, self.name, self.owner, for_s=_PATIENCE_S):
                await retention.retire(connection, self.keep, self.stopping)


@dataclass(frozen=True, slots=True)
class SignatureCleaner:
    """Deletes signatures whose validity has ended: they can no longer be replayed."""

    database: Database
    stopping: Callable[[], bool]
    name: ClassVar[str] = "signatures"
    interval_s: ClassVar[float] = 60

    async def run_once(self) -> None:
        """Delete what has expired."""
        async with self.database.connection(patience_s=_PATIENCE_S) as connection:
            await signatures.remove_expired(connection, self.stopping)


@dataclass(frozen=True, slots=True)
class HeaderScrubber:
    """Removes headers that an earlier version stored and that are not kept today."""

    database: Database
    stopping: Callable[[], bool]
    name: ClassVar[str] = "header scrub"
    interval_s: ClassVar[float] = 60

    async def run_once(self) -> None:
        """Scrub until no stored header is left that should not be there."""
        async with self.database.connection(patience_s=_PATIENCE_S) as connection:
            await scrub.scrub_headers(connection, self.stopping)


_CONVERSATIONS = 100
_BATCHES = 5


class OrderHealer:
    """Finds conversations that wait for a delivery that is over or no longer exists. One relay at a time has the duty.

    Such a head is left where rows were deleted or changed by hand, or were held while a head was released. A round
    checks the next 500 conversations in which deliveries wait.
    """

    name = "order"
    interval_s = 10.0

    def __init__(self, database: Database, owner: UUID, stopping: Callable[[], bool]) -> None:
        self._database = database
        self._owner = owner
        self._stopping = stopping
        self._after = ""

    async def run_once(self) -> None:
        """Promote the next delivery of conversations whose head is over or gone.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            if not await instances.take_duty(connection, self.name, self._owner, for_s=3 * self.interval_s):
                return
            for _ in range(_BATCHES):
                self._after = await gate.heal_order(connection, self._after, _CONVERSATIONS)
                if not self._after or self._stopping():
                    return
