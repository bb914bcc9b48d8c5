"""`relay replay`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from relay.commands.answered import answered_letters, to_send
from relay.commands.common import (  # fmt: skip
    Finite,
    as_json,
    connected,
    database,
    operator,
    print_json,
    run,
    say,
    say_source,
    source_of,
)
from relay.commands.plan_progress import NO_PLAN, alive_relays, document, follow, summary
from relay.domain import filters
from relay.domain.delivery import State
from relay.domain.format import plural
from relay.errors import RelayError
from relay.replay.requests import DEFAULT, Pace, plan_request
from relay.settings import load_settings
from relay.store import replays
from relay.store.actions import signed
from relay.store.filters import Condition, compile_filter
from relay.store.replays import LEAST_RATE, MOST_RATE
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.commands.common import Source
    from relay.settings import Settings
    from relay.store.database import Connection
    from relay.store.databases import Place
    from relay.store.replays import DeadLetter

_SHOWN = 10
_MOST = 1_000_000
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the command line asks for."""

    ids: tuple[str, ...]
    filter: str
    pace: Pace
    reason: str
    dry_run: bool
    yes: bool
    include_answered: bool
    as_json: bool


def _bounded(_context: click.Context, _parameter: click.Parameter, given: float) -> float:
    if given and not LEAST_RATE <= given <= MOST_RATE:
        raise click.BadParameter(f"{given:g} is not from {LEAST_RATE:g} to {MOST_RATE:,} a second; 0 is for no limit")
    return given


@click.command("replay")
@click.argument("ids", nargs=-1, metavar="[DELIVERY_ID]...")
@click.option("--filter", "filter_", default="", metavar="FILTER", help="For example: error:503 since:14:02 !test:yes")
@click.option(
    "--rate",
    type=Finite(0),
    default=DEFAULT.rate,
    show_default=True,
    metavar="N",
    callback=_bounded,
    help="Deliveries a second, at most; 0 for no limit.",
)
@click.option(
    "--canary",
    type=click.IntRange(0, _MOST),
    default=DEFAULT.canary,
    show_default=True,
    metavar="N",
    help="Of several, send the first N alone; continue only if all succeed.",
)
@click.option(
    "--stop-after",
    type=click.IntRange(0, _MOST),
    default=DEFAULT.stop_after,
    show_default=True,
    metavar="N",
    help="Stop at N failures in a row; 0 never stops.",
)
@click.option("--reason", default="", help="Why, for the audit.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--include-answered",
    is_flag=True,
    help="Send those too whose customer was answered in Chatwoot by now. Deliveries named by id are always sent.",
)
@as_json
def command(  # noqa: PLR0913 - one parameter an option
    *,
    ids: tuple[str, ...],
    filter_: str,
    rate: float,
    canary: int,
    stop_after: int,
    reason: str,
    dry_run: bool,
    yes: bool,
    include_answered: bool,
    as_json: bool,
) -> None:
    """Send dead letters again: those named, those a filter matches, or, with neither, all of them.

    Exit 0 only if every one of them was delivered. Ctrl+C stops what was not sent yet.
    """
    if ids and filter_:
        raise click.UsageError("Give delivery ids or --filter, not both.")
    pace = Pace(rate or None, canary, stop_after)
    wanted = _Wanted(ids, filter_, pace, reason, dry_run, yes, include_answered, as_json)
    condition = compile_filter(filter_)
    settings = load_settings()

    async def replay(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            if not wanted.as_json:
                say_source(source, place)
            return await _replay(connection, settings, wanted, condition, source)

    with database(settings, or_demo=True) as place:
        run(replay(place))


async def _replay(
    connection: Connection, settings: Settings, wanted: _Wanted, condition: Condition, source: Source
) -> int:
    letters, not_dead = await _freeze(connection, wanted, condition)
    if unknown := [delivery_id for delivery_id, state in not_dead.items() if state == _UNKNOWN]:
        raise click.UsageError(f"{', '.join(unknown)}: no delivery has this id. Nothing was sent.")
    undelivered = {key: state for key, state in not_dead.items() if state != "delivered"}
    if not wanted.as_json:
        for delivery_id, state in not_dead.items():
            say(f"{delivery_id}: {state}, not sent", err=True)
    if letters and not wanted.ids:
        letters, not_sent = await _without_answered(connection, settings, wanted, letters)
        not_dead |= not_sent
    if not letters:
        await _nothing(connection, wanted, not_dead, source)
        return 1 if undelivered else 0
    alive = await alive_relays(connection)
    who = signed(operator(), connection.info.user)
    if wanted.dry_run:
        _show_dry_run(wanted, letters, alive[0].agent if alive else None, who, source, not_dead)
        return 0
    if not alive:
        raise RelayError("No relay is running that could send them; start one with `relay serve`. Nothing was queued")
    _confirm(wanted, letters, alive[0].agent, who)
    request = plan_request(
        letters, requested_by=operator(), pace=wanted.pace, reason=wanted.reason, filter=wanted.filter
    )
    plan_id = await replays.ask(connection, request, letters)
    plan = await follow(connection, plan_id, quiet=wanted.as_json)
    if wanted.as_json:
        print_json({"database": source.document} | document(plan) | {"not_sent": _not_sent(not_dead)})
    else:
        say(summary(plan))
    delivered_elsewhere = await replays.delivered_elsewhere(connection, plan_id)
    return 0 if plan.delivered + delivered_elsewhere == plan.total and not undelivered else 1


async def _freeze(
    connection: Connection, wanted: _Wanted, condition: Condition
) -> tuple[list[DeadLetter], dict[str, str]]:
    """The dead letters to send; and, of those named, the ones that are none, with the state they are in."""
    if not wanted.ids:
        return await replays.matching(connection, condition), {}
    named = list(dict.fromkeys(wanted.ids))
    letters, states = await replays.named(connection, named)
    given = {delivery_id: states.get(delivery_id, _UNKNOWN) for delivery_id in named}
    return letters, {delivery_id: state for delivery_id, state in given.items() if state != State.DEAD}


async def _without_answered(
    connection: Connection, settings: Settings, wanted: _Wanted, letters: list[DeadLetter]
) -> tuple[list[DeadLetter], dict[str, str]]:
    """The dead letters to send, and those that are left out because their customer was answered by now."""
    answered = await answered_letters(connection, settings, letters)
    if not answered:
        return letters, {}
    if not wanted.as_json:
        say(to_send(len(letters), len(answered), include=wanted.include_answered))
    if wanted.include_answered:
        return letters, {}
    left_out = {letter.delivery_id: "answered" for letter in letters if letter.id in answered}
    return [letter for letter in letters if letter.id not in answered], left_out


def _not_sent(states: dict[str, str]) -> list[dict[str, str]]:
    return [{"delivery_id": delivery_id, "state": state} for delivery_id, state in states.items()]


async def _nothing(connection: Connection, wanted: _Wanted, not_dead: dict[str, str], source: Source) -> None:
    if wanted.as_json and wanted.dry_run:
        alive = await alive_relays(connection)
        print_json(_dry_run_document((), alive[0].agent if alive else None, source, not_dead))
    elif wanted.as_json:
        print_json({"database": source.document} | NO_PLAN | {"not_sent": _not_sent(not_dead)})
    elif not not_dead:
        found = filters.doubts(filters.parse(wanted.filter), states=(State.DEAD,))
        doubts = "".join(f" {doubt}." for doubt in found)
        click.echo(f"No dead letter matches.{clean(doubts)}" if wanted.filter else "There are no dead letters.")


def _show_dry_run(
    wanted: _Wanted,
    letters: Sequence[DeadLetter],
    agent: str | None,
    who: str,
    source: Source,
    not_sent: dict[str, str],
) -> None:
    if wanted.as_json:
        print_json(_dry_run_document(letters, agent, source, not_sent))
        return
    say([_plan_line(wanted, letters, agent or "no relay is running", who), *_list(letters)])
    click.echo("Dry run: nothing was sent.")


def _dry_run_document(
    letters: Sequence[DeadLetter], agent: str | None, source: Source, not_sent: dict[str, str]
) -> dict[str, object]:
    return {
        "database": source.document,
        "dry_run": True,
        "total": len(letters),
        "agent_endpoint": agent,
        "deliveries": [letter.delivery_id for letter in letters],
        "not_sent": _not_sent(not_sent),
    }


def _plan_line(wanted: _Wanted, letters: Sequence[DeadLetter], agent: str, who: str) -> str:
    count = plural(len(letters), "dead letter")
    return f"{count} → {agent} as {who}: {wanted.pace.described(len(letters))}"


def _list(letters: Sequence[DeadLetter]) -> list[str]:
    rows = [
        f"  {letter.delivery_id}  {letter.event or '-'}  conv {letter.conversation_id or '-'}  "
        f"{letter.final_status}  {letter.last_error}"
        for letter in letters[:_SHOWN]
    ]
    more = len(letters) - _SHOWN
    return rows + ([f"  … and {more} more"] if more > 0 else [])


def _confirm(wanted: _Wanted, letters: Sequence[DeadLetter], agent: str, who: str) -> None:
    if wanted.yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{plural(len(letters), 'dead letter')} would be sent. Add --yes to send, or --dry-run.")
    say([_plan_line(wanted, letters, agent, who), *_list(letters)])
    if len(letters) > 50:
        typed = click.prompt(f"Type {len(letters)} to send them", default="", show_default=False)
        if typed.strip() != str(len(letters)):
            raise click.Abort
    else:
        click.confirm("Send?", abort=True)
