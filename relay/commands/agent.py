"""`relay agent`: runs the reference Agent SDK."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from relay.agent.conversations import Conversations
from relay.agent.drafts import make_drafter
from relay.agent.serve import SCOPE, serve_agent
from relay.commands.common import connected, database, refuse_demo
from relay.server.listener import bound_url, listen, raise_file_limit, run_loop, stop_on_signals
from relay.settings import load_settings, without_credentials
from relay.store.migrate import migrate
from relay.telemetry.log_sink import Format, LogSink, capture_libraries

if TYPE_CHECKING:
    from relay.store.databases import Place


@click.group("agent")
def command() -> None:
    """The reference Agent SDK: drafts replies and posts them as private notes."""


@command.command("serve")
@click.option("--bind", metavar="HOST:PORT", help="Address to listen on (AGENT_BIND, default 127.0.0.1:8787).")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def serve(bind: str | None, log_format: Format) -> None:
    """Take the relay's webhooks, draft one reply to a customer's unanswered messages, post it as a private note.

    Needs CHATWOOT_BASE_URL, CHATWOOT_API_KEY (a user's access token) and CHATWOOT_ACCOUNT_ID. With LLM_BASE_URL and
    LLM_MODEL a language model drafts; without, a template does. A webhook that comes again never posts a second note.
    AGENT_QUIET_MS, AGENT_DRAFT_WHEN, AGENT_INBOXES, AGENT_STOP_LABEL and AGENT_DRAFT_FORMS say when to draft.
    For a test webhook it drafts and posts nothing, unless the sender asked for that (relay send-test --conversation).
    """
    settings = load_settings(agent_bind=bind)
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
