"""`relay hold`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.commands.common import as_json, database, operator, print_json, run, say, say_source, seconds, source_of
from relay.settings import load_settings
from relay.store import gate
from relay.store.sessions import connected

if TYPE_CHECKING:
    from relay.store.databases import Place


@click.command("hold")
@click.option("--reason", required=True, metavar="TEXT", help="Why; recorded in the audit and shown.")
@click.option("--for", "for_s", metavar="TIME", callback=seconds, help="End by itself after so long, e.g. 30m.")
@as_json
def command(reason: str, for_s: float | None, *, as_json: bool) -> None:
    """Stop forwarding on all relays within a second. Webhooks are stored and wait until `relay release`.

    Attempts in progress finish; no further one starts. For deploying the Agent SDK without a dead letter.
    """
    settings = load_settings()

    async def hold(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            await gate.hold(connection, operator(), reason, for_s)
            current = await gate.current_hold(connection)
        until = None if current is None or current.until is None else current.until
        if as_json:
            print_json({"database": source.document, "held": True, "until": until})
        else:
            say_source(source, place)
            end = "until `relay release`" if until is None else f"until {until:%Y-%m-%d %H:%M:%S}Z or `relay release`"
            say(f"Forwarding is held {end}. Webhooks are stored and wait.")
        return 0

    with database(settings, or_demo=True) as place:
        run(hold(place))
