"""`relay redirect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.commands.common import Done, act, as_json, operator
from relay.domain.format import plural
from relay.settings import destination_of, load_settings
from relay.store import destinations

if TYPE_CHECKING:
    from relay.store.database import Connection


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

    async def redirect(connection: Connection) -> Done:
        has_relay = await destinations.is_live(connection, target)
        if dry_run:
            number = await destinations.waiting(connection, origin)
        else:
            number = await destinations.redirect(connection, operator(), reason, origin, target)
        done = "would be moved" if dry_run else "moved"
        lines = [f"{plural(number, 'delivery')} {done} from {origin} to {target}."]
        if not has_relay:
            lines.append(f"No live relay forwards to {target}: they wait until one with that AGENT_SDK_URL runs.")
        document = {"from": origin, "to": target, "to_has_relay": has_relay, "dry_run": dry_run, "deliveries": number}
        return Done(document, lines)

    act(load_settings(), redirect, as_json=as_json)
