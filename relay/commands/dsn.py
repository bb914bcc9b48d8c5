"""`relay dsn`."""

from __future__ import annotations

import click

from relay.commands.common import database
from relay.settings import load_settings


@click.command("dsn")
@click.option("--stop", is_flag=True, help="Stop the embedded server that an earlier call left running.")
def command(*, stop: bool) -> None:
    """Print the database's DSN and nothing else, for psql and scripts: psql "$(relay dsn)"

    Without DATABASE_URL this starts the embedded server if need be, and leaves it running.
    """
    settings = load_settings()
    if stop:
        if settings.database_url is not None:
            raise click.UsageError("DATABASE_URL is set: that server is not the relay's to stop.")
        from relay.embedded import release  # noqa: PLC0415 - only who has no DATABASE_URL pays for it

        release(settings.relay_data_dir)
        return
    with database(settings, keep_up=True) as dsn:
        click.echo(dsn)
