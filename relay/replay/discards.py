"""The service that carries out the discards that operators request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from relay.store import deliveries

if TYPE_CHECKING:
    from relay.store.database import Database


@dataclass(frozen=True, slots=True)
class DiscardRunner:
    """Moves requested dead letters to `discarded`."""

    database: Database
    name: ClassVar[str] = "discards"
    interval_s: ClassVar[float] = 0.25

    async def run_once(self) -> None:
        """Apply all pending requests.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self.database.connection() as connection:
            await deliveries.apply_discards(connection)
