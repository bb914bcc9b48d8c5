"""`relay erase`: removes a person's stored payloads."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from relay.commands.common import as_json, connected, database, operator, print_json, run, say, source_of
from relay.domain.format import plural
from relay.domain.person import Person
from relay.settings import load_settings
from relay.store.erasure import concerned, erase
from relay.store.sessions import refuse_others_than_the_owner
from relay.store.spool import damaged_local, erase_local
from relay.text import clean

if TYPE_CHECKING:
    from relay.store.databases import Place
    from relay.store.erasure import Erased

_NUMBER = click.IntRange(1, 2**63 - 1)


@click.command("erase")
@click.option("--conversation", type=_NUMBER, metavar="N", help="The conversation whose payloads go.")
@click.option("--contact", type=_NUMBER, metavar="N", help="The contact: their messages, and their conversations.")
@click.option("--account", type=_NUMBER, metavar="N", help="Only in this account (default CHATWOOT_ACCOUNT_ID).")
@click.option("--reason", default="", metavar="TEXT", help="Recorded in the audit.")
@click.option("--dry-run", is_flag=True, help="Count, and change nothing.")
@as_json
def command(
    conversation: int | None, contact: int | None, account: int | None, reason: str, *, dry_run: bool, as_json: bool
) -> None:
    """Remove the stored payloads of a conversation or a contact from deliveries, facts and this host's spool.

    Payloads, agents' answers, drafts and edited bodies go; states, times and counts stay. Dead letters among them are
    discarded. Receipts in the spool (RELAY_DATA_DIR) are removed and never forwarded: run it on every host of a relay.
    It is recorded in the audit and cannot be undone. Needs the login that owns the tables. Exit 1 if some deliveries
    are still to be forwarded: run it again when they are; or if a damaged spool's file is here: it was not searched.
    """
    if (conversation is None) == (contact is None):
        raise click.UsageError("Name one: --conversation N or --contact N.")
    settings = load_settings()
    person = Person(conversation, contact, account if account is not None else settings.chatwoot_account_id)

    async def work(place: Place) -> int:
        async def erase_spooled() -> int:
            wanted = concerned(person)
            return await asyncio.to_thread(erase_local, settings.relay_data_dir, place.dsn, wanted, dry_run=dry_run)

        async with connected(place.dsn) as connection:
            if not dry_run:
                await refuse_others_than_the_owner(connection, "relay erase")
            source = await source_of(connection, place)
            found = await erase(
                connection,
                person,
                operator=operator(),
                reason=reason,
                dry_run=dry_run,
                erase_spooled=erase_spooled,
            )
        damaged = damaged_local(settings.relay_data_dir)
        if as_json:
            print_json({"database": source.document, "erased": person.name, "dry_run": dry_run, **asdict(found)})
        else:
            say([f"database: {source.line}", *_lines(person, found, dry_run=dry_run)])
        if damaged:
            names = clean(", ".join(damaged))
            say(
                f"Not searched, delete once it is of no use: {names} in {clean(str(settings.relay_data_dir))}", err=True
            )
        return 1 if found.unfinished or damaged else 0

    with database(settings) as place:
        run(work(place))


def _lines(person: Person, found: Erased, *, dry_run: bool) -> list[str]:
    counts = f"{plural(found.deliveries, 'payload')}, {plural(found.facts, 'fact')}, {plural(found.drafts, 'draft')}"
    done = "would be erased" if dry_run else "erased"
    lines = [
        f"{person.name.capitalize()}: {counts} {done}.",
        f"This host's spool: {plural(found.spooled, 'receipt')} {done}.",
    ]
    if found.unfinished:
        left = plural(found.unfinished, "delivery")
        lines.append(f"{left} still to be forwarded, and not changed. Run this again later.")
    return lines
