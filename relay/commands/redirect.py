"""`relay redirect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.commands.common import as_json, database, operator, print_json, run, say, say_source, source_of
from relay.domain.format import plural
from relay.settings import destination_of, load_settings
from relay.store import destinations
from relay.store.sessions import connected

if TYPE_CHECKING:
    from relay.store.databases import Place


def _destination(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return destination_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("redirect")
@click.option("--from", "origin", required=True, metavar="URL", callback=_destination, help="What they wait for now.")
@click.option("--to", "target", required=True, metavar="URL", callback=_destination, help="Where they are to go.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the audit.")
@click.option("--dry-run", is_flag=True, help="Only count what would be moved.")
@as_json
def command(origin: str, target: str, reason: str, *, dry_run: bool, as_json: bool) -> None:
    """Move every delivery that waits for one Agent SDK to another.

    URL is an AGENT_SDK_URL, or a destination as `relay status` and `relay show` print it. Each delivery waits for the
    Agent SDK that it was accepted for until a relay with that AGENT_SDK_URL forwards it.
    """
    if origin == target:
        raise click.UsageError("--from and --to are the same destination")
    settings = load_settings()

    async def redirect(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            has_relay = await destinations.is_live(connection, target)
            if dry_run:
                number = await destinations.waiting(connection, origin)
            else:
                number = await destinations.redirect(connection, operator(), reason, origin, target)
        if as_json:
            print_json({
                "database": source.document, "from": origin, "to": target, "to_has_relay": has_relay,
                "dry_run": dry_run, "deliveries": number,
            })  # fmt: skip
            return 0
        say_source(source, place)
        done = "would be moved" if dry_run else "moved"
        say(f"{plural(number, 'delivery')} {done} from {origin} to {target}.")
        if not has_relay:
            say(f"No live relay forwards to {target}: they wait until one with that AGENT_SDK_URL runs.")
        return 0

    with database(settings, or_demo=True) as place:
        run(redirect(place))
