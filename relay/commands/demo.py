"""`relay demo`."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from relay.commands.common import connected, database
from relay.commands.status import lines
from relay.demo.play import play
from relay.settings import as_environment, load_settings
from relay.store import overview
from relay.store.migrate import migrate

if TYPE_CHECKING:
    from relay.settings import Settings


@click.command("demo")
@click.option("--seconds", type=click.FloatRange(1), metavar="N", help="End after N seconds. Default: when stopped.")
@click.option("--no-console", is_flag=True, help="Print what happens even on a terminal.")
def command(*, seconds: float | None, no_console: bool) -> None:
    """Everything on this machine: embedded Postgres, relay, stand-ins for Chatwoot and the Agent SDK, an outage.

    On a terminal it opens the console, and ends when that is quit. Serves on RELAY_BIND like `serve`; the
    runbook's curl works beside it at any time.
    """
    settings = load_settings()
    if settings.database_url is not None:
        click.echo("[demo] DATABASE_URL is set and left alone: the demo uses the embedded Postgres.", err=True)
        settings = settings.model_copy(update={"database_url": None})
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not no_console

    async def demo(dsn: str) -> None:
        await migrate(dsn, roles=True)
        await play(dsn, seconds=seconds, watch=partial(_console, dsn) if on_terminal else None)
        async with connected(dsn) as connection:
            state = await overview.read(connection)
        click.echo("\n".join(lines(state)))
        if state.open_dead_letters:
            click.echo("Next: `relay serve` with your own AGENT_SDK_URL, then `relay replay --dry-run`.")

    with database(settings) as dsn:
        asyncio.run(demo(dsn))


async def _console(dsn: str, settings: Settings) -> None:
    """The console on this terminal, as a process of its own, until it is quit."""
    surroundings = os.environ | as_environment(settings) | {"DATABASE_URL": dsn}
    console = await asyncio.create_subprocess_exec(sys.executable, "-m", "console", env=surroundings)
    try:
        await console.wait()
    finally:
        if console.returncode is None:
            console.terminate()
            await console.wait()
