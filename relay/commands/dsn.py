"""`relay dsn`."""

from __future__ import annotations

import asyncio

import click

from relay.commands.common import Source, database, say, say_waiting
from relay.dsn import plain
from relay.settings import load_settings
from relay.store.migrate import migrate


@click.command("dsn")
@click.option("--stop", is_flag=True, help="Stop the embedded server that an earlier call left running.")
def command(*, stop: bool) -> None:
    """Print the database's DSN and nothing else on stdout, for psql and scripts: psql "$(relay dsn)"

    Without DATABASE_URL this starts the embedded server if need be, and leaves it running. Where there is none yet but
    a demo runs, it prints the demo's and says so on stderr.
    """
    settings = load_settings()
    if stop:
        if settings.database_url is not None:
            raise click.UsageError("DATABASE_URL is set: that server is not the relay's to stop.")
        from relay.store.embedded import release  # noqa: PLC0415 - only who has no DATABASE_URL pays for it

        release(settings.relay_data_dir)
        return
    with database(settings, create=True, or_demo=True, keep_up=True) as place:
        if settings.database_url is None and not place.demo:
            asyncio.run(migrate(place.dsn, roles=True, on_wait=say_waiting))
        click.echo(plain(place.dsn))
        if place.demo:
            say(Source(place.name, demo=True).line, err=True)
        if place.note:
            say(place.note, err=True)
