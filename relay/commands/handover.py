"""`relay handover`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from relay.commands.common import as_json, connected, database, or_partly, print_json, run, say, since_of, source_of
from relay.incident import state as incident_state
from relay.incident.handover import handover
from relay.incident.headline import headline
from relay.incident.timeline import assemble
from relay.settings import load_settings
from relay.store import browse, timeline

if TYPE_CHECKING:
    from relay.store.databases import Place


@click.command("handover")
@click.option(
    "--since", default="8h", show_default=True, metavar="T",
    help="The shift began then: 8h, 14:02 or 2026-11-23T14:02 (UTC).",
)  # fmt: skip
@as_json
def command(*, since: str, as_json: bool) -> None:
    """A summary for the next shift, as Markdown on stdout: what happened, what is open, what was done.

    It holds no payloads. Append it to your notes: relay handover >> handover.md
    """
    settings = load_settings()
    begin = since_of(since, datetime.now(UTC))

    async def read(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            overview, state = await incident_state.read(connection)
            plans = await browse.plans(connection)
            history = await timeline.read(connection, begin)
        text = handover(overview, state.groups, plans, headline(state), assemble(history), begin)
        if as_json:
            print_json(
                {"database": source.document, "since": begin, "until": history.at,
                 "headline": headline(state).sentence, "text": text}
            )  # fmt: skip
        else:
            say(text.rstrip("\n"))
            say(f"database: {source.line}", err=True)
        return 0

    with database(settings, or_demo=True) as place:
        run(or_partly(read(place), settings, place.dsn, as_json=as_json))
