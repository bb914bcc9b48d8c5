"""Runs the reference Agent SDK: database, Chatwoot, drafts, HTTP."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from relay.agent.attempt import Means
from relay.agent.conversations import Conversations
from relay.agent.drafts import make_drafter
from relay.agent.media import AttachmentReader
from relay.agent.rules import rules_of
from relay.agent.service import create_agent_app
from relay.agent.token import check_token
from relay.agent.writer import NoteWriter
from relay.server.http import serve_http
from relay.server.notify import READY, notify
from relay.store.database import Database
from relay.telemetry.tracing import make_tracing

if TYPE_CHECKING:
    import socket

    from structlog.typing import FilteringBoundLogger

    from relay.settings import Settings

SCOPE = "agent"
_CONNECTIONS = 8
_GRACE_S = 10


async def serve_agent(
    settings: Settings, dsn: str, bound: socket.socket, log: FilteringBoundLogger, stop: asyncio.Event
) -> None:
    """Serve on `bound` until `stop` is set.

    Raises:
        ConfigurationError: Chatwoot or the language model is not configured as it must be.
    """
    async with AsyncExitStack() as stack:
        drafter = make_drafter(settings)
        stack.push_async_callback(drafter.close)
        conversations = await stack.enter_async_context(Conversations(settings))
        rules = rules_of(settings)
        await check_token(conversations, rules, log)
        attachments = AttachmentReader(settings, log)
        stack.push_async_callback(attachments.close)
        database = Database(dsn, application="hotdash agent", max_size=_CONNECTIONS)
        stack.push_async_callback(database.close)
        await database.open()
        quiet_s = settings.agent_quiet_ms / 1000
        writer = NoteWriter(Means(database, conversations, drafter, attachments, rules, quiet_s))
        stack.push_async_callback(writer.close)
        tracing = make_tracing(settings, "hotdash-agent")
        stack.push_async_callback(asyncio.to_thread, tracing.close)
        app = create_agent_app(writer, rules, settings.secrets, log, tracing)
        await serve_http(app, bound, stop, answer_s=_GRACE_S, on_listening=lambda: notify(READY))
