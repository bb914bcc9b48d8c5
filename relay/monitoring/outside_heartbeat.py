"""Fetches `RELAY_HEARTBEAT_URL` every minute while a relay can store webhooks (DESIGN, 7).

A service outside, such as a dead man's switch, notices when the fetches stop: no other part can report that no relay is
alive. The address is a secret and is never logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from relay import http_client
from relay.domain.retry import failure_of
from relay.errors import StoreUnavailable
from relay.store import instances

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from structlog.typing import FilteringBoundLogger

    from relay.store.database import Database

_TIMEOUT_S = 10
_STORE_S = 5.0


class OutsideHeartbeat:
    """Fetches the address.

    `store_fault` says why Postgres takes no webhook, None if it does. `can_spool` says whether a webhook can be stored
    without Postgres.
    """

    name = "outside heartbeat"
    interval_s = 60.0

    def __init__(
        self,
        url: str,
        database: Database,
        log: FilteringBoundLogger,
        *,
        store_fault: Callable[[], Awaitable[str | None]],
        can_spool: Callable[[], bool] = lambda: False,
    ) -> None:
        self._url = url
        self._database = database
        self._log = log
        self._can_spool = can_spool
        self._store_fault = store_fault

    async def run_once(self) -> None:
        """Fetch the address, if a webhook could be stored now."""
        if not await self._can_store():
            self._log.warning("Heartbeat not sent: webhooks cannot be stored")
            return
        try:
            async with http_client.client(timeout=_TIMEOUT_S, follow_redirects=True) as client:
                answer = await client.get(self._url)
        except httpx.HTTPError as error:
            self._log.warning("Heartbeat failed, will retry", reason=str(failure_of(error)))
            return
        if not answer.is_success:
            self._log.warning("Heartbeat failed, will retry", reason=f"answered {answer.status_code}")

    async def _can_store(self) -> bool:
        try:
            async with self._database.connection(_STORE_S) as connection:
                can_write = await instances.can_write(connection)
        except StoreUnavailable:
            can_write = False
        return (can_write and await self._store_fault() is None) or self._can_spool()
