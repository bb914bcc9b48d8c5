"""The demo's relay: it serves on one address, and a drill may take it away for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

from relay.server.listener import bound_url, listen
from relay.server.supervisor import Sockets, relay_name, serve_worker
from relay.server.worker import Identity

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.telemetry.log_sink import LogSink


class DemoRelay:
    """Listens at once on the settings' address; `run` serves there until `stop`.

    Raises:
        ConfigurationError: `RELAY_BIND` cannot be bound.
    """

    def __init__(self, settings: Settings, dsn: str, sink: LogSink, stop: asyncio.Event) -> None:
        self._dsn = dsn
        self._sink = sink
        self._stop = stop
        self._socket = listen(settings.relay_bind)[0]
        self.url = bound_url(self._socket)
        self._settings = settings.model_copy(update={"relay_bind": self.url.removeprefix("http://")})
        self._end, self._ended, self._back = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._is_away = False

    async def run(self) -> None:
        """Serve until `stop`, or until the relay ends by itself."""
        stopping = asyncio.create_task(self._stop.wait())
        try:
            while not self._stop.is_set():
                await self._serve(stopping)
                if not self._is_away:
                    return
                back = asyncio.create_task(self._back.wait())
                await asyncio.wait([stopping, back], return_when=asyncio.FIRST_COMPLETED)
                back.cancel()
                if not self._stop.is_set():
                    self._socket = listen(self._settings.relay_bind)[0]
        finally:
            stopping.cancel()

    async def _serve(self, stopping: asyncio.Task[bool]) -> None:
        self._end, self._ended, self._back = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._is_away = False
        identity = Identity(relay_name(self._socket), uuid4())
        serving = asyncio.create_task(
            serve_worker(self._settings, self._dsn, identity, Sockets(self._socket), self._sink, self._end, demo=True)
        )
        try:
            await asyncio.wait([stopping, serving], return_when=asyncio.FIRST_COMPLETED)
            self._end.set()
            await serving
        finally:
            self._socket.close()
            self._ended.set()

    async def take(self, away: bool) -> None:
        """End the relay, its socket included, or let it serve again."""
        if not away:
            self._back.set()
            return
        self._is_away = True
        self._end.set()
        await self._ended.wait()
