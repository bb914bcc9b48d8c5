"""`relay escalate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relay.commands.common import as_json, connected, database, print_json, run, say, say_source, source_of
from relay.errors import StatementRefused, StoreUnavailable
from relay.incident import without_store
from relay.incident.escalation import LEVELS, REPORT, append, entry, incident
from relay.incident.escalation import file as file_entry
from relay.incident.escalation_without_store import DEFAULT_LEVEL, PartialIncident, partial_entry
from relay.settings import load_settings

if TYPE_CHECKING:
    from relay.store.databases import Place


@click.command("escalate")
@click.option("--severity", type=click.Choice(LEVELS), help="Default: what the alerts that fire call for.")
@click.option("--reason", default="", metavar="TEXT", help="Your reason; it becomes part of the entry.")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), default=REPORT, show_default=True,
    help="The file that the entry is appended to.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="File it without asking.")
@as_json
def command(*, severity: str | None, reason: str, report: Path, yes: bool, as_json: bool) -> None:
    """Gather the runbook's evidence, show the entry, and append it to reports/manager/ESCALATION.md.

    Dead letters, error patterns, health, alerts, attempted fixes, whom to notify; no payloads. Nothing is written
    before it was seen: answer y, or give --yes where there is no terminal. While Postgres is away, the entry has what
    can be asked without it and says what could not be read; exit 1.
    """
    settings = load_settings()
    name = settings.operator

    async def file(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            found = await incident(connection, settings, operator=name, reason=reason, level=severity)
            text = entry(found)
            if not as_json:
                say_source(source, place)
                say(text)
            _confirm(report, yes=yes)
            written = await file_entry(connection, found, text, report)
        if as_json:
            print_json(
                {"database": source.document, "report": str(written), "level": found.level,
                 "notify": list(found.notify), "cause": found.diagnosis.headline, "entry": text}
            )  # fmt: skip
        else:
            say(f"Appended to {written.absolute()}. Notify: {found.notified}")
        return 0

    async def file_or_partly(place: Place) -> int:
        try:
            return await file(place)
        except StatementRefused:
            raise
        except StoreUnavailable as error:
            view = await without_store.partial_view(settings, place.dsn, error)
        found = PartialIncident(severity or DEFAULT_LEVEL, name, reason, view)
        text = partial_entry(found, settings.relay_outage_runbook)
        if not as_json:
            say(text)
        _confirm(report, yes=yes)
        written = append(text, report)
        if as_json:
            print_json(
                {"database": {"name": place.name, "demo": place.demo}, "report": str(written), "level": found.level,
                 "notify": list(found.notify), "cause": view.cause.sentence, "entry": text}
            )  # fmt: skip
        else:
            say(f"Appended to {written.absolute()}, not to the audit, which is in Postgres. Notify: {found.notified}")
        return 1

    with database(settings, or_demo=True) as place:
        run(file_or_partly(place))


def _confirm(report: Path, *, yes: bool) -> None:
    """Ask whether to append to the report, unless `yes`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"Nothing was written. Add --yes to append this to {report}.")
    click.confirm(f"Append this to {report}?", abort=True)
