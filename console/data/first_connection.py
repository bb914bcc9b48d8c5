"""Connects to Postgres while the terminal toolkit is still being loaded: from far away, to connect takes longer.

This module loads little itself. The poller reads with the connection; later ones it opens by itself.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from relay.store.sessions import open_session

if TYPE_CHECKING:
    from relay.store.database import Connection

STATEMENT_TIMEOUT_MS = 1000


async def open_reader(dsn: str, *, read_only: bool, timeout_ms: int = STATEMENT_TIMEOUT_MS) -> Connection:
    """Open the poller's connection.

    Raises:
        psycopg.OperationalError: Postgres is away or refuses.
    """
    return await open_session(dsn, read_only=read_only, application="hotdash console", timeout_ms=timeout_ms)


class FirstConnection:
    """Opens the poller's first connection in a thread, from when it is made on."""

    def __init__(self, dsn: str, *, read_only: bool) -> None:
        self._dsn = dsn
        self._read_only = read_only
        self._opened: Future[Connection] | None = Future()
        threading.Thread(target=self._open, args=(self._opened,), name="first connection", daemon=True).start()

    def _open(self, opened: Future[Connection]) -> None:
        try:
            opened.set_result(asyncio.run(open_reader(self._dsn, read_only=self._read_only)))
        except BaseException as error:  # noqa: BLE001 - it is raised where the connection is taken
            opened.set_exception(error)

    async def take(self) -> Connection | None:
        """Wait for the connection and hand it over; None if it was taken before.

        Raises:
            psycopg.OperationalError: Postgres is away or refuses.
        """
        opened, self._opened = self._opened, None
        if opened is None:
            return None
        return await asyncio.wrap_future(opened)
