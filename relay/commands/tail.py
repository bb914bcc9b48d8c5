"""`relay tail`: the forwarding log, followed."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from relay.commands.common import connected, database, run, say, source_of
from relay.settings import load_settings
from relay.store import log
from relay.telemetry.log_sink import text_form
from relay.text import json_text

if TYPE_CHECKING:
    from relay.store.databases import Place
    from relay.store.log import LogLine

_PAUSE_S = 0.5
_BATCH = 1_000
_FIRST = ("attempt", "agentEndpoint", "duration", "attempts", "finalStatus", "error")
_WITH_UNITS = {"duration": "duration_ms", "retryIn": "retry_in_ms"}
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
            click.echo(json_text(_document(line)) if as_json else text_form(_as_logged(line)))

    async def work(place: Place) -> int:
        async with connected(place.dsn) as connection:
            say(f"database: {(await source_of(connection, place)).line}", err=True)
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


def _document(line: LogLine) -> dict[str, Any]:
    """`line` in the style of all `--json` documents. The fields of the log itself have the runbook's names."""
    fields = {_WITH_UNITS.get(name) or _snake_case(name): value for name, value in line.fields.items()}
    head = {
        "at": line.at, "level": line.level, "scope": line.scope, "message": line.message,
        "delivery_id": line.delivery_id,
    }  # fmt: skip
    return head | {name: value for name, value in fields.items() if name not in head}


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _as_logged(line: LogLine) -> LogLine:
    """`line` with the fields in the order in which relays print them (RUNBOOK, Check Logs): jsonb does not keep it."""
    fields = {name: line.fields[name] for name in _FIRST if name in line.fields} | line.fields
    return replace(line, fields=fields)
