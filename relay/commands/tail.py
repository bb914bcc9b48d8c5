"""`relay tail`: the forwarding log, followed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from relay.commands.common import connected, database, run
from relay.settings import load_settings
from relay.store import log
from relay.telemetry.log_sink import json_form, text_form

if TYPE_CHECKING:
    from relay.store.databases import Place
    from relay.store.log import LogLine

_PAUSE_S = 0.5
_BATCH = 1_000
_FIRST = ("attempt", "agentEndpoint", "duration", "attempts", "finalStatus", "error")
_LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 4}


@click.command("tail")
@click.option(
    "-n", "--lines", type=click.IntRange(0, 10_000), default=20, show_default=True, help="Lines to begin with."
)
@click.option("--follow/--no-follow", "-f", default=True, show_default=True, help="Print what comes until Ctrl+C.")
@click.option("--delivery", metavar="ID", help="Only lines of this delivery.")
@click.option(
    "--level", type=click.Choice(list(_LEVELS)[1:4]), default="info", show_default=True, help="The least level."
)
@click.option("--json", "as_json", is_flag=True, help="Print each line as a JSON object.")
def command(lines: int, delivery: str | None, level: str, *, follow: bool, as_json: bool) -> None:
    """Print the forwarding log of all relays, and follow it."""

    def wanted(line: LogLine) -> bool:
        return _LEVELS.get(line.level, 1) >= _LEVELS[level] and delivery in {None, line.delivery_id}

    def show(line: LogLine) -> None:
        if wanted(line):
            click.echo(json_form(line) if as_json else text_form(_as_logged(line)))

    async def work(place: Place) -> int:
        async with connected(place.dsn) as connection:
            some = delivery is not None or level != "info"
            newest = await log.before(connection, None, max(1, _BATCH if some else lines))
            for _, line in [pair for pair in newest if wanted(pair[1])][-lines:] if lines else []:
                show(line)
            last = newest[-1][0] if newest else 0
            while follow:
                await asyncio.sleep(_PAUSE_S)
                for number, line in await log.after(connection, last, _BATCH):
                    last = number
                    show(line)
        return 0

    with database(load_settings(), or_demo=True) as place:
        run(work(place))


def _as_logged(line: LogLine) -> LogLine:
    """`line` with the fields in the order in which relays print them (RUNBOOK, Check Logs): jsonb does not keep it."""
    fields = {name: line.fields[name] for name in _FIRST if name in line.fields} | line.fields
    return replace(line, fields=fields)
