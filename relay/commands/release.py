"""`relay release`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.commands.common import as_json, database, operator, print_json, run, say, say_source, source_of
from relay.settings import load_settings
from relay.store import backlog, gate
from relay.store.sessions import connected

if TYPE_CHECKING:
    from relay.store.databases import Place


@click.command("release")
@click.option(
    "--rate",
    type=click.FloatRange(0, 1_000_000, min_open=True),
    metavar="N",
    help="Drain the backlog at N deliveries a second over all relays. Default: as fast as it goes.",
)
@as_json
def command(rate: float | None, *, as_json: bool) -> None:
    """End the hold: what waits is forwarded in order. Exit 1 if forwarding is not held.

    While the backlog drains at a rate, this changes the rate; without --rate it lifts the limit.
    """
    settings = load_settings()

    async def release(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            released = await gate.release(connection, operator(), rate)
            waiting = (await backlog.read(connection)).waiting
        if as_json:
            print_json({"database": source.document, "released": released, "waiting": waiting})
        else:
            say_source(source, place)
            pace = "" if rate is None else f" at {rate:g} a second"
            wait = "delivery waits and is" if waiting == 1 else "deliveries wait and are"
            done = f"Forwarding is released. {waiting} {wait} forwarded{pace}."
            say(done if released else "Forwarding is not held.")
        return 0 if released else 1

    with database(settings, or_demo=True) as place:
        run(release(place))
