"""`relay diagnose`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from relay.commands.common import as_json, connected, database, print_json, run
from relay.diagnosis import Diagnosis, diagnose
from relay.evidence import gather
from relay.printable import printable
from relay.settings import load_settings

if TYPE_CHECKING:
    from relay.diagnosis import Chapter

_MARKS = {True: "✓", False: "✗", None: "?"}


@click.command("diagnose")
@as_json
def command(*, as_json: bool) -> None:
    """Walk the runbook's four troubleshooting chapters on the live system. The first line names the cause.

    Asks Postgres, the Agent SDK, Chatwoot and the running relay; changes nothing. Exit 1 if something is wrong.
    """
    settings = load_settings()

    async def look(dsn: str) -> int:
        async with connected(dsn) as connection:
            diagnosis = diagnose(await gather(connection, settings))
        if as_json:
            print_json(document(diagnosis))
        else:
            click.echo("\n".join(lines(diagnosis)))
        return 1 if diagnosis.problem else 0

    with database(settings) as dsn:
        run(look(dsn))


def document(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as one JSON document."""
    return {
        "at": diagnosis.at.isoformat(),
        "cause": diagnosis.headline,
        "chapters": [asdict(chapter) | {"problem": chapter.problem} for chapter in diagnosis.chapters],
    }


def lines(diagnosis: Diagnosis) -> list[str]:
    """The diagnosis as text, the cause first. What came from outside is made printable."""
    shown = [printable(diagnosis.headline)]
    for chapter in diagnosis.chapters:
        shown += ["", f"{chapter.title} ─ {'PROBLEM' if chapter.problem else 'ok'}", *_of(chapter)]
    return shown


def _of(chapter: Chapter) -> list[str]:
    found = [printable(f"  {_MARKS[check.ok]} {check.text}") for check in chapter.checks]
    if not chapter.problem:
        return found
    todo = [f"    {number}. {printable(line)}" for number, line in enumerate(chapter.resolution, start=1)]
    return [printable(f"  {chapter.verdict}"), *found, "  What to do:", *todo]
