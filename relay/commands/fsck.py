"""`relay fsck`: checks the tables, and repairs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.commands.common import as_json, connected, database, operator, print_json, run, say, source_of
from relay.domain.format import plural
from relay.settings import load_settings
from relay.store import actions
from relay.store.fsck import check
from relay.store.sessions import refuse_others_than_the_owner

if TYPE_CHECKING:
    from relay.commands.common import Source
    from relay.store.databases import Place
    from relay.store.fsck import CheckResult


@click.command("fsck")
@click.option("--repair", is_flag=True, help="Repair what can be computed anew.")
@as_json
def command(*, repair: bool, as_json: bool) -> None:
    """Recount the roll-ups, and check sequences and whatever else the tables must agree on.

    Safe beside running relays: a repair that finds a lock taken ends after half a second, is tried again, and at last
    says for whom it waits. Run it after a restore, as the login that owns the tables. Exit 1 if something is wrong and
    was not repaired.
    """

    async def work(place: Place) -> int:
        results: list[CheckResult] = []
        async with connected(place.dsn) as connection:
            await refuse_others_than_the_owner(connection, "relay fsck")
            source = await source_of(connection, place)
            if not as_json:
                say(f"database: {source.line}")
            async for one in check(connection, repair=repair):
                results.append(one)
                if not as_json:
                    say(_line(one))
            repaired = {one.check: one.wrong for one in results if one.repaired}
            if repaired:
                await actions.record(connection, operator(), "note", "relay fsck --repair", {"repaired": repaired})
        if as_json:
            print_json(_document(source, results))
        elif wrong := [one for one in results if not one.ok]:
            hint = "" if repair else " `relay fsck --repair` repairs what it can."
            say(f"{plural(len(wrong), 'check')} failed.{hint}")
        else:
            say("The tables agree.")
        return 0 if all(one.ok for one in results) else 1

    with database(load_settings()) as place:
        run(work(place))


def _line(result: CheckResult) -> str:
    if not result.wrong:
        return f"  ok        {result.check}"
    return f"  {'repaired' if result.repaired else 'WRONG':<9} {result.check}: {result.wrong} × {result.detail}"


def _document(source: Source, results: list[CheckResult]) -> dict[str, object]:
    checks = [
        {
            "name": one.check,
            "ok": one.ok,
            "wrong": one.wrong,
            "repaired": one.repaired,
            "detail": one.detail if one.wrong else None,
        }
        for one in results
    ]
    return {"database": source.document, "ok": all(one.ok for one in results), "checks": checks}
