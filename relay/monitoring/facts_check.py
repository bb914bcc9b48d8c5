"""Checks at the start that facts can be recorded, and again while they cannot.

A fresh installation whose `dashboard_facts` refuses facts is refused. One that has run before starts: accepting
webhooks does not depend on facts (DESIGN, 1, promise 1), which wait in `relay.facts_aside` meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.errors import FactsRefused
from relay.store import preflight

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from relay.store.database import Database


class FactsCheck:
    """`fault` is why facts are not recorded, as far as the start found; `/health` shows it."""

    name = "facts check"
    interval_s = 30.0

    def __init__(self, dsn: str, database: Database, log: FilteringBoundLogger) -> None:
        self._dsn = dsn
        self._database = database
        self._log = log
        self.fault: FactsRefused | None = None

    async def at_start(self) -> None:
        """Check the database.

        Raises:
            StoreUnavailable: Postgres is away.
            FactsRefused: `dashboard_facts` does not take facts, and no delivery was ever stored here.
            SchemaError: the database refuses what storing and finishing need.
        """
        try:
            await preflight.check(self._dsn)
        except FactsRefused as refusal:
            async with self._database.connection() as connection:
                if not await preflight.has_run(connection):
                    raise
            self.fault = refusal
            self._log.error(
                "The relay starts although dashboard_facts does not take facts; they wait aside, figures are too low",
                reason=refusal.reason,
                remedy=refusal.remedy,
            )

    async def run_once(self) -> None:
        """Check again while there is a fault.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        if self.fault is None:
            return
        try:
            await preflight.check(self._dsn)
        except FactsRefused as refusal:
            self.fault = refusal
        else:
            self.fault = None
            self._log.info("dashboard_facts takes facts again")
