"""The heartbeat: renews this relay's lease and reports what it does.

It registers the relay again if its row no longer exists, as after a restore of the database.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from relay.store import instances

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from relay.store.database import Database
    from relay.store.instances import Instance


class Heartbeat:
    """Beats every five seconds, and three times in each lease of `lease_s` seconds at least.

    `on_renewed` gets the time (`time.monotonic()`) at which a renewal that succeeded was asked for.
    """

    name = "heartbeat"

    def __init__(
        self,
        database: Database,
        instance: Instance,
        log: FilteringBoundLogger,
        *,
        lease_s: float,
        in_flight: Callable[[], int],
        on_renewed: Callable[[float], None],
    ) -> None:
        self._database = database
        self._instance = instance
        self._log = log
        self._lease_s = lease_s
        self._in_flight = in_flight
        self._on_renewed = on_renewed
        self.interval_s = instances.beat_every_s(lease_s)

    async def run_once(self) -> None:
        """Renew the lease, or register if the relay is not known.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        asked_at = time.monotonic()
        async with self._database.connection() as connection:
            known = await instances.beat(
                connection,
                self._instance.id,
                lease_s=self._lease_s,
                in_flight=self._in_flight(),
            )
        if known:
            self._on_renewed(asked_at)
        else:
            await self.register()

    async def register(self) -> None:
        """Register the relay, in place of an earlier one of its name.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        asked_at = time.monotonic()
        async with self._database.connection() as connection:
            replaced = await instances.register(connection, self._instance, self._lease_s)
        self._on_renewed(asked_at)
        if replaced:
            self._log.info("Replaced a relay that no longer runs", relays=replaced)
