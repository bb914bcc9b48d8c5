"""`relay migrate`."""

from __future__ import annotations

import asyncio
from importlib import resources

import click

from relay.commands.common import database, say
from relay.settings import load_settings
from relay.store.migrate import migrate


@click.command("migrate")
@click.option("--roles", is_flag=True, help="Create the roles relay_service and console_operator too.")
@click.option("--print-roles", is_flag=True, help="Print the SQL of those roles instead of running anything.")
def command(*, roles: bool, print_roles: bool) -> None:
    """Bring the database's schema up to this version. Safe to run again, and beside running relays."""
    if print_roles:
        click.echo((resources.files("relay.store") / "roles.sql").read_text(encoding="utf-8"), nl=False)
        return
    settings = load_settings()
    with database(settings) as place:
        applied = asyncio.run(
            migrate(
                place.dsn,
                roles=roles,
                on_step=lambda step: click.echo(f"applying {step.name}"),
                on_wait=lambda whom: say(f"relay: {whom}", err=True),
            )
        )
    say(f"database: {place.name}", err=True)
    click.echo(f"{len(applied)} applied; the schema is up to date." if applied else "The schema is up to date.")
