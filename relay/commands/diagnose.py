"""`relay diagnose`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from relay.commands.common import Source, as_json, connected, database, or_partly, print_json, run, say, source_of
from relay.incident.diagnosis import Diagnosis, diagnose
from relay.incident.evidence import gather
from relay.settings import load_settings
from relay.text import clean

if TYPE_CHECKING:
    from relay.incident.diagnosis import Chapter
    from relay.store.databases import Place

_MARKS = {True: "✓", False: "✗", None: "?"}


@click.command("diagnose")
@as_json
def command(*, as_json: bool) -> None:
    """Walk the runbook's four troubleshooting chapters on the live system. The first line names the cause.

    Asks Postgres, the Agent SDK, Chatwoot and the running relay; changes nothing. Exit 1 if something is wrong.
    """
    settings = load_settings()

    async def read(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            diagnosis = diagnose(await gather(connection, settings))
        if as_json:
            print_json(document(diagnosis, source))
        else:
            say(lines(diagnosis, source))
            if place.note:
                say(place.note, err=True)
        return 1 if diagnosis.problem else 0

    with database(settings, or_demo=True) as place:
        run(or_partly(read(place), settings, place.dsn, as_json=as_json))


def document(diagnosis: Diagnosis, source: Source) -> dict[str, Any]:
    """The diagnosis as one JSON document."""
    return {
        "at": diagnosis.at,
        "database": source.document,
        "cause": diagnosis.headline,
        "chapters": [asdict(chapter) | {"problem": chapter.problem} for chapter in diagnosis.chapters],
    }


def lines(diagnosis: Diagnosis, source: Source) -> list[str]:
    """The diagnosis as text: the cause first, in a demo with that word before it; then the database that was read."""
    headline = clean(diagnosis.headline, limit=None)
    shown = [f"DEMO: {headline}" if source.demo else headline, f"database: {source.line}"]
    for chapter in diagnosis.chapters:
        shown += ["", f"{chapter.title} ─ {'PROBLEM' if chapter.problem else 'ok'}", *_of(chapter)]
    return shown


def _of(chapter: Chapter) -> list[str]:
    found = [clean(f"  {_MARKS[check.ok]} {check.text}", limit=None) for check in chapter.checks]
    if not chapter.problem:
        return found
    todo = [f"    {number}. {clean(line, limit=None)}" for number, line in enumerate(chapter.resolution, start=1)]
    return [clean(f"  {chapter.verdict}", limit=None), *found, "  What to do:", *todo]
