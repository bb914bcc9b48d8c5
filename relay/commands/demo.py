"""`relay demo`."""

from __future__ import annotations

import asyncio

import click

from relay.commands.common import connected, database
from relay.commands.status import lines
from relay.demo.play import play
from relay.settings import load_settings
from relay.store import overview
from relay.store.migrate import migrate


@click.command("demo")
@click.option("--seconds", type=click.FloatRange(1), metavar="N", help="End after N seconds. Default: when stopped.")
@click.option("--no-console", is_flag=True, help="Print what happens even on a terminal.")
def command(*, seconds: float | None, no_console: bool) -> None:
    """Everything on this machine: embedded Postgres, relay, stand-ins for Chatwoot and the Agent SDK, an outage.

    Serves on RELAY_BIND like `serve`. The runbook's curl works beside it at any time.
    """
    settings = load_settings()
    if settings.database_url is not None:
        click.echo("[demo] DATABASE_URL is set and left alone: the demo uses the embedded Postgres.", err=True)
        settings = settings.model_copy(update={"database_url": None})
    del no_console  # there is no console yet to open

    async def demo(dsn: str) -> None:
        await migrate(dsn, roles=True)
        await play(dsn, seconds=seconds, watch=None)
        async with connected(dsn) as connection:
            state = await overview.read(connection)
        click.echo("\n".join(lines(state)))
        if state.open_dead_letters:
            click.echo("Next: `relay serve` with your own AGENT_SDK_URL, then `relay replay --dry-run`.")

    with database(settings) as dsn:
        asyncio.run(demo(dsn))
