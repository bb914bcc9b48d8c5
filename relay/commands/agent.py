"""`relay agent`: runs the reference Agent SDK, or checks another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.commands.common import as_json, run
from relay.settings import AGENT_PATH, load_settings

if TYPE_CHECKING:
    from relay.telemetry.log_sink import Format


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
    from relay.commands.agent_serve import serve_until_stopped  # noqa: PLC0415 - `agent check` serves nothing

    serve_until_stopped(load_settings(agent_bind=bind), log_format)


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
    from relay.commands.agent_check import check_contract  # noqa: PLC0415 - `agent serve` forwards nothing

    base = url.rstrip("/").removesuffix(AGENT_PATH)
    run(check_contract(load_settings(agent_sdk_url=base), large_bytes, as_json=as_json))
