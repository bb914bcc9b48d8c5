"""Tries to store a webhook for `/health`, so that it is true while no webhook comes, and again once storing works."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psycopg

from relay.errors import StoreUnavailable
from relay.forwarding.store_faults import LASTS_AFTER_S
from relay.store import preflight
from relay.store.failures import described

if TYPE_CHECKING:
    from uuid import UUID

    from relay.forwarding.store_faults import StoreFaults
    from relay.store.database import Database

_EVERY_S = 5.0
_EVERY_WHILE_FAILING_S = 1.0
_PATIENCE_S = 1.5


class StoreProbe:
    """Says whether webhooks can be stored. Stores one and takes it back, at most every `_EVERY_S`."""

    def __init__(self, database: Database, owner: UUID, faults: StoreFaults) -> None:
        self._database = database
        self._owner = owner
        self._faults = faults
        self._one_at_a_time = asyncio.Lock()
        self._tried_at = float("-inf")
        self._reason: str | None = None
        self._is_certain = False
        self._failing_since: float | None = None

    async def fault(self) -> str | None:
        """Why no webhook can be stored, or None. A fault counts once it has lasted for `LASTS_AFTER_S`.

        A right or a table that is missing counts at once.
        """
        async with self._one_at_a_time:
            if self._faults.stored_within(_EVERY_WHILE_FAILING_S):
                self._reason = self._failing_since = None
                return None
            pause_s = _EVERY_S if self._reason is None and self._faults.recent is None else _EVERY_WHILE_FAILING_S
            if time.monotonic() - self._tried_at >= pause_s or self._faults.failed_since(self._tried_at):
                await self._try()
        now = time.monotonic()
        if self._failing_since is not None and (self._is_certain or now - self._failing_since >= LASTS_AFTER_S):
            return self._reason
        return self._faults.lasting

    async def _try(self) -> None:
        began = time.monotonic()
        self._is_certain = False
        try:
            async with asyncio.timeout(_PATIENCE_S), self._database.connection(_PATIENCE_S) as connection:
                await preflight.try_storing(connection, self._owner)
            self._reason = self._failing_since = None
        except (StoreUnavailable, TimeoutError, psycopg.Error) as error:
            self._is_certain = isinstance(error, psycopg.ProgrammingError)
            self._reason = "it does not answer in time" if isinstance(error, TimeoutError) else described(error)
            if self._failing_since is None:
                self._failing_since = began
        self._tried_at = time.monotonic()
