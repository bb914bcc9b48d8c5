"""Services that keep the tables small: retention, expired signatures, headers that an earlier version stored.

Each deletes or updates in small batches on one connection and ends early when the relay stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from relay.store import instances, retention, scrub, signatures

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
