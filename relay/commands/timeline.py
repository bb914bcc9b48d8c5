"""`relay timeline`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from relay.commands.common import (
    as_json,
    connected,
    database,
    or_partly,
    print_json,
    run,
    say,
    say_source,
    since_of,
    source_of,
)
from relay.incident.timeline import assemble
from relay.settings import load_settings
from relay.store import timeline

if TYPE_CHECKING:
    from relay.store.databases import Place


@click.command("timeline")
@click.option(
    "--since", default="24h", show_default=True, metavar="T",
    help="From then on: 8h, 14:02 or 2026-11-23T14:02 (UTC).",
)  # fmt: skip
@as_json
def command(*, since: str, as_json: bool) -> None:
    """Everything that happened, in one list by time: failures, alerts, holds, relays, replays, health, operators.

    Failures and relays are known for two days, the rest for RELAY_RETENTION_DAYS. Times are UTC.
    """
    settings = load_settings()
    begin = since_of(since, datetime.now(UTC))

    async def read(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            history = await timeline.read(connection, begin)
        entries = assemble(history)
        if as_json:
            print_json(
                {"database": source.document, "since": begin, "until": history.at, "complete": not history.is_cut,
                 "entries": [{"at": one.at, "kind": one.kind, "text": one.text, "by": one.by} for one in entries]}
            )  # fmt: skip
            return 0
        say_source(source, place)
        if history.is_cut:
            say(f"There was too much for one list; of each kind the newest {timeline.MOST:,} are shown.")
        say([one.line for one in entries] or [f"Nothing is on record since {begin:%Y-%m-%d %H:%M:%S}Z."])
        return 0

    with database(settings, or_demo=True) as place:
        run(or_partly(read(place), settings, place.dsn, as_json=as_json))
