"""A stand-in for the service behind `RELAY_HEARTBEAT_URL`. Reports when its address was not fetched for too long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from aiohttp import web

EXPECTED_WITHIN = timedelta(seconds=75)
"""Relays fetch the address every minute."""


class DeadMansSwitch:
    """The service, on any free port once it is started. It is armed from then on."""

    def __init__(self) -> None:
        self.url = ""
        self._times: list[datetime] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_get("/beat", self._beat)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/beat"
        self._times.append(datetime.now(UTC))

    async def stop(self) -> None:
        """Close the port."""
        self._times.append(datetime.now(UTC))
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def reports(self) -> list[datetime]:
        """When it has reported that no fetch came."""
        return [before + EXPECTED_WITHIN for before, after in pairwise(self._times) if after - before > EXPECTED_WITHIN]

    async def _beat(self, _: web.Request) -> web.Response:
        self._times.append(datetime.now(UTC))
        return web.Response(text="ok")
