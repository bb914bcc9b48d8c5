"""Runs the reference Agent SDK: database, Chatwoot, drafts, HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.agent.drafts import make_drafter
from relay.agent.service import create_agent_app
from relay.agent.writer import NoteWriter
from relay.chatwoot.client import Chatwoot
from relay.server.http import serve_http
from relay.store.database import Database

if TYPE_CHECKING:
    import asyncio
    import socket

    from structlog.typing import FilteringBoundLogger

    from relay.settings import Settings

SCOPE = "agent"
_CONNECTIONS = 20
_GRACE_S = 10


async def serve_agent(
    settings: Settings, dsn: str, bound: socket.socket, log: FilteringBoundLogger, stop: asyncio.Event
) -> None:
    """Serve on `bound` until `stop` is set.

    Raises:
        ConfigurationError: Chatwoot or the language model is not configured as it must be.
    """
    drafter = make_drafter(settings)
    database = Database(dsn, application="hotdash agent", max_size=_CONNECTIONS)
    try:
        async with Chatwoot(settings) as chatwoot:
            await database.open()
            app = create_agent_app(NoteWriter(database, chatwoot, drafter), settings.secrets, log)
            await serve_http(app, bound, stop, answer_s=_GRACE_S)
    finally:
        await drafter.close()
        await database.close()
