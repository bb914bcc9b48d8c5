"""`relay backfill`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from relay.chatwoot.client import NOT_CONFIGURED, Chatwoot
from relay.commands.answered import to_send
from relay.commands.common import (
    Finite,
    as_json,
    connected,
    database,
    operator,
    print_json,
    refuse_demo,
    run,
    say,
    say_source,
    since_of,
    source_of,
)
from relay.commands.plan_progress import NO_PLAN, alive_relays, document, follow, summary
from relay.domain.filters import Term, moment
from relay.domain.format import plural
from relay.errors import ConfigurationError, RelayError
from relay.replay.backfill import customers_messages, missing
from relay.replay.requests import Pace, plan_request
from relay.settings import load_settings
from relay.store import actions, backfill, replays, spools
from relay.store.replays import LEAST_RATE, MOST_RATE
from relay.store.spool import local_state
from relay.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.commands.common import Source
    from relay.replay.backfill import Found
    from relay.settings import Settings
    from relay.store.database import Connection
    from relay.store.databases import Place

_SHOWN = 10
_STOP_AFTER = 10
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the command line asks for."""

    account_id: int
    since: datetime
    until: datetime
    rate: float | None
    dry_run: bool
    yes: bool
    include_answered: bool
    as_json: bool

    @property
    def window(self) -> str:
        """The window in words."""
        return f"{self.since:%Y-%m-%dT%H:%M:%SZ} until {self.until:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What was found: all messages of the window, those that never came, and those of them that are sent."""

    found: Sequence[Found]
    missing: Sequence[Found]
    chosen: Sequence[Found]

    @property
    def answered(self) -> int:
        """How many of the missing ones were answered by now."""
        return sum(one.answered for one in self.missing)


@click.command("backfill")
@click.option("--since", required=True, metavar="T", help="From then on: 8h, 14:02 or 2026-11-23T14:02 (UTC).")
@click.option("--until", metavar="T", help="Before then. Default: now.")
@click.option("--rate", type=Finite(LEAST_RATE, MOST_RATE), metavar="N", help="Sends a second. Default: no limit.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--include-answered", is_flag=True, help="Send those too whose customer was answered by now.")
@as_json
def command(
    *,
    since: str,
    until: str | None,
    rate: float | None,
    dry_run: bool,
    yes: bool,
    include_answered: bool,
    as_json: bool,
) -> None:
    """Fetch the messages of customers that no webhook brought here, and replay them.

    Reads Chatwoot's API from --since until --until, compares with the deliveries by account and message id, shows what
    is missing, and sends it as a replay. Exit 0 if nothing was missing or all of it was delivered.
    """
    settings = load_settings()
    if settings.chatwoot_account_id is None:
        raise ConfigurationError(NOT_CONFIGURED)
    now = datetime.now(UTC)
    begin = since_of(since, now)
    end = moment(Term("until", until, negated=False), now) if until is not None else now
    if begin >= end:
        raise click.UsageError("--since must be before --until, and before now.")
    account_id = settings.chatwoot_account_id
    wanted = _Wanted(account_id, begin, min(end, now), rate, dry_run, yes, include_answered, as_json)

    async def work(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            await spools.refuse_unless_empty(connection, local_state(settings.relay_data_dir, place.dsn))
            if source.demo and urlsplit(settings.chatwoot_base_url or "").hostname not in _LOOPBACK:
                await refuse_demo(connection, place)
        if not wanted.as_json:
            say_source(source, place)
        async with Chatwoot(settings) as chatwoot:
            found = await customers_messages(chatwoot, wanted.account_id, wanted.since, wanted.until)
        async with connected(place.dsn) as connection:
            return await _backfill(connection, settings, wanted, found, source)

    with database(settings, or_demo=True) as place:
        run(work(place))


async def _backfill(
    connection: Connection, settings: Settings, wanted: _Wanted, found: Sequence[Found], source: Source
) -> int:
    conversations = sorted({one.conversation_id for one in found})
    known = await backfill.known_messages(connection, wanted.account_id, conversations, wanted.since)
    lacking = missing(found, known)
    chosen = [one for one in lacking if wanted.include_answered or not one.answered]
    plan = _Plan(found, lacking, chosen)
    if not wanted.as_json:
        say(_lines(wanted, plan))
    if wanted.dry_run or not chosen:
        if not wanted.dry_run:
            await _record(connection, settings, wanted)
        _end(wanted, plan, source)
        return 0
    if not await alive_relays(connection):
        raise RelayError("No relay is running, so they would not be sent; start one with `relay serve`")
    _confirm(wanted, plan)
    given = [(one.delivery_id(wanted.account_id), one.conversation_id, one.body) for one in chosen]
    letters = await backfill.store(connection, given, operator())
    if not letters:
        _end(wanted, plan, source)
        return 0
    pace = Pace(rate=wanted.rate, canary=0, stop_after=_STOP_AFTER)
    request = plan_request(letters, requested_by=operator(), pace=pace, reason=f"backfill {wanted.window}")
    plan_id = await replays.ask(connection, request, letters)
    ended = await follow(connection, plan_id, quiet=wanted.as_json)
    if wanted.as_json:
        print_json({"database": source.document} | _counts(wanted, plan) | document(ended))
    else:
        say(summary(ended))
    if ended.delivered + await replays.delivered_elsewhere(connection, plan_id) != ended.total:
        return 1
    await _record(connection, settings, wanted)
    return 0


async def _record(connection: Connection, settings: Settings, wanted: _Wanted) -> None:
    """Note in the audit that nothing of the window is missing any more, so that no diagnosis proposes it again."""
    details = {"backfill": True, "since": rfc3339(wanted.since), "until": rfc3339(wanted.until)}
    name = settings.console_operator or operator()
    await actions.record(connection, name, "note", f"backfill {wanted.window} is complete", details)


def _lines(wanted: _Wanted, plan: _Plan) -> list[str]:
    """What is shown before anything is sent. Ids and times only: what customers wrote stays out of terminals."""
    conversations = len({one.conversation_id for one in plan.found})
    lines = [
        (
            f"{wanted.window}, account {wanted.account_id}: {plural(len(plan.found), 'message')} of customers in "
            f"{plural(conversations, 'conversation')}, {len(plan.missing)} of them never came here"
        )
    ]
    if plan.missing:
        lines.append(to_send(len(plan.missing), plan.answered, include=wanted.include_answered))
    lines += [
        f"  {one.delivery_id(wanted.account_id)}  conv {one.conversation_id}  "
        f"{datetime.fromtimestamp(one.created_at, UTC):%Y-%m-%dT%H:%M:%SZ}{'  answered' if one.answered else ''}"
        for one in plan.chosen[:_SHOWN]
    ]
    more = len(plan.chosen) - _SHOWN
    return lines + ([f"  … and {more} more"] if more > 0 else [])


def _counts(wanted: _Wanted, plan: _Plan) -> dict[str, Any]:
    return {
        "account": wanted.account_id,
        "since": wanted.since,
        "until": wanted.until,
        "messages": len(plan.found),
        "missing": len(plan.missing),
        "answered": plan.answered,
        "deliveries": [one.delivery_id(wanted.account_id) for one in plan.chosen],
        "dry_run": wanted.dry_run,
    }


def _end(wanted: _Wanted, plan: _Plan, source: Source) -> None:
    """Say that nothing is sent."""
    if wanted.as_json:
        print_json({"database": source.document} | _counts(wanted, plan) | NO_PLAN)
    elif not plan.missing:
        say("Nothing is missing.")
    else:
        say("Dry run: nothing was sent." if wanted.dry_run else "Nothing is left to send.")


def _confirm(wanted: _Wanted, plan: _Plan) -> None:
    if wanted.yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{plural(len(plan.chosen), 'message')} would be sent. Add --yes to send, or --dry-run.")
    click.confirm(f"Send {plural(len(plan.chosen), 'message')}?", abort=True)
