"""The service that probes agent and Chatwoot. One relay at a time has the duty, and records the results as facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.monitoring.probes import agent_probe, chatwoot_probes, run_probes
from relay.store import facts, instances

if TYPE_CHECKING:
    from uuid import UUID

    from relay.settings import Settings
    from relay.store.database import Database


class Prober:
    """Probes every `RELAY_PROBE_SECONDS`."""

    name = "probes"

    def __init__(self, settings: Settings, database: Database, owner: UUID) -> None:
        self._settings = settings
        self._database = database
        self._owner = owner
        self.interval_s: float = settings.relay_probe_seconds

    async def run_once(self) -> None:
        """Probe, if it is this relay's turn.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            if not await instances.take_duty(connection, self.name, self._owner, for_s=self.interval_s * 1.5 + 15):
                return
        results = await run_probes([agent_probe(self._settings), *chatwoot_probes(self._settings)])
        async with self._database.connection() as connection:
            await facts.record(connection, [result.fact for result in results])
