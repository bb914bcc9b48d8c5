"""What `relay agent serve` does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.agent.conversations import Conversations
from relay.agent.drafts import make_drafter
from relay.agent.serve import SCOPE, serve_agent
from relay.commands.common import connected, database, refuse_demo
from relay.server.listener import bound_url, listen, raise_file_limit, run_loop, stop_on_signals
from relay.settings import without_credentials
from relay.store.migrate import migrate
from relay.telemetry.log_sink import LogSink, capture_libraries

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.store.databases import Place
    from relay.telemetry.log_sink import Format


def serve_until_stopped(settings: Settings, log_format: Format) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP.

    Raises:
        ConfigurationError: Chatwoot, the language model, the address or the database is not configured as it must be.
        StoreUnavailable: Postgres is away.
        SchemaError: the schema cannot be brought up to date.
    """
    Conversations(settings)
    make_drafter(settings)
    raise_file_limit()
    bound = listen(settings.agent_bind, variable="AGENT_BIND")[0]
    sink = LogSink(log_format)
    capture_libraries(sink)
    log = sink.logger(SCOPE)
    log.info(
        "Agent SDK is listening", url=bound_url(bound), chatwoot=without_credentials(settings.chatwoot_base_url or ""),
        drafts=settings.llm_model if settings.llm_base_url else "template",
    )  # fmt: skip
    with database(settings) as place:
        asyncio.run(_prepare(place, roles=settings.database_url is None))

        async def work() -> None:
            await serve_agent(settings, place.dsn, bound, log, stop_on_signals())

        try:
            run_loop(work())
        finally:
            sink.close()


async def _prepare(place: Place, *, roles: bool) -> None:
    """Migrate the schema, and refuse a demo's database: its notes would be posted in a real Chatwoot."""
    await migrate(place.dsn, roles=roles)
    async with connected(place.dsn) as connection:
        await refuse_demo(connection, place)
