"""`relay agent`: runs the reference Agent SDK, or checks another one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from relay.agent.contract import Check, ContractCheck, Result
from relay.agent.conversations import Conversations
from relay.agent.drafts import make_drafter
from relay.agent.serve import SCOPE, serve_agent
from relay.commands.common import as_json, connected, database, print_json, refuse_demo, run, say
from relay.domain.format import plural
from relay.server.listener import bound_url, listen, raise_file_limit, run_loop, stop_on_signals
from relay.settings import AGENT_PATH, Settings, load_settings, without_credentials
from relay.store.migrate import migrate
from relay.telemetry.log_sink import Format, LogSink, capture_libraries

if TYPE_CHECKING:
    from relay.store.databases import Place


@click.group("agent")
def command() -> None:
    """The reference Agent SDK, which drafts replies and posts them as private notes; and a check for any other one."""


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


@command.command("check")
@click.argument("url")
@click.option(
    "--large-bytes",
    type=click.IntRange(1, 256 * 1024 * 1024),
    default=32 * 1024 * 1024,
    show_default=True,
    metavar="N",
    help="Size of the large body.",
)
@as_json
def check(url: str, large_bytes: int, *, as_json: bool) -> None:
    """Try the Agent SDK at URL (what AGENT_SDK_URL would be) against the contract in relay/AGENT.md.

    Sends about twenty test webhooks, as the relay would: an agent that keeps to the contract posts nothing. Signs them
    with CHATWOOT_WEBHOOK_SECRET where that is set. Exit 1 if a check fails.
    """
    base = url.rstrip("/").removesuffix(AGENT_PATH)
    run(_check(load_settings(agent_sdk_url=base), large_bytes, as_json=as_json))


async def _check(settings: Settings, large_bytes: int, *, as_json: bool) -> int:
    checks: list[Check] = []
    shown = without_credentials(settings.agent_sdk_url)
    if not as_json:
        say(f"Agent SDK: {shown}")
    async for one in ContractCheck(settings, large_bytes=large_bytes).run():
        checks.append(one)
        if not as_json:
            took = "" if one.took_ms is None else f"{one.took_ms} ms"
            say(f"  {one.result:<8} {one.name:<17} {took:>9}  {one.detail}")
    failed = sum(one.result is Result.FAILED for one in checks)
    warnings = sum(one.result is Result.WARNING for one in checks)
    if as_json:
        print_json({"agent": shown, "ok": not failed, "checks": [one.document for one in checks]})
    elif failed:
        say(f"{plural(failed, 'check')} failed. relay/AGENT.md has the contract.")
    else:
        say("Keeps to the contract" + (f", with {plural(warnings, 'warning')}." if warnings else "."))
    return 1 if failed else 0


async def _prepare(place: Place, *, roles: bool) -> None:
    """Migrate the schema, and refuse a demo's database: its notes would be posted in a real Chatwoot."""
    await migrate(place.dsn, roles=roles)
    async with connected(place.dsn) as connection:
        await refuse_demo(connection, place)
