"""`relay migrate`."""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import TYPE_CHECKING

import click

from relay.commands.common import as_json, database, print_json, say, say_waiting
from relay.settings import load_settings
from relay.store import migrate
from relay.store.database import connect
from relay.store.open_schema import open_facts, open_schema

if TYPE_CHECKING:
    from relay.store.databases import Place


@click.command("migrate")
@click.option("--roles", is_flag=True, help="Create the roles relay_service, console_operator and console_reader too.")
@click.option("--print-roles", is_flag=True, help="Print the SQL of those roles instead of running anything.")
@click.option("--status", is_flag=True, help="Say which steps are applied and pending; change nothing. Exit 1 if any.")
@as_json
def command(*, roles: bool, print_roles: bool, status: bool, as_json: bool) -> None:
    """Bring the database's schema up to this version. Safe to run again, and beside running relays."""
    if as_json and not status:
        raise click.UsageError("--json goes with --status.")
    if print_roles:
        click.echo((resources.files("relay.store") / "roles.sql").read_text(encoding="utf-8"), nl=False)
        return
    with database(load_settings()) as place:
        if status:
            click.get_current_context().exit(_say_status(place, as_json=as_json))
        applied = asyncio.run(
            migrate.migrate(
                place.dsn,
                roles=roles,
                on_step=lambda step: click.echo(f"applying {step.name}"),
                on_wait=say_waiting,
            )
        )
        sentences = asyncio.run(_open(place)) if roles else []
    say(f"database: {place.name}", err=True)
    for sentence in sentences:
        say(f"relay: {sentence}", err=True)
    click.echo(f"{len(applied)} applied; the schema is up to date." if applied else "The schema is up to date.")


async def _open(place: Place) -> list[str]:
    """What is open to logins that were not chosen."""
    async with await connect(place.dsn, "hotdash-relay migrate") as connection:
        found = await open_schema(connection), await open_facts(connection)
    return [sentence for sentence in found if sentence is not None]


def _say_status(place: Place, *, as_json: bool) -> int:
    applied, pending = asyncio.run(migrate.status(place.dsn))
    names = [step.name for step in pending]
    if as_json:
        print_json({
            "database": {"name": place.name},
            "schema_version": applied[-1].version if applied else 0,
            "relay_schema_version": migrate.migrations()[-1].version,
            "applied": [step.name for step in applied],
            "pending": names,
        })  # fmt: skip
    else:
        shown = [f"database: {place.name}", f"applied: {len(applied)}", f"pending: {len(pending)}"]
        say(shown + [f"  {name}" for name in names] + (["Apply them with: relay migrate"] if names else []))
    return 1 if pending else 0
