"""`relay replay`."""

from __future__ import annotations

import asyncio
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from relay.commands.common import (
    as_json,
    connected,
    database,
    operator,
    print_json,
    run,
    say,
    say_source,
    source_of,
)  # fmt: skip
from relay.domain.delivery import State
from relay.errors import RelayError
from relay.settings import load_settings
from relay.store import instances, replays
from relay.store.actions import signed
from relay.store.filters import Condition, compile_filter
from relay.store.replays import Control, PlanRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.commands.common import Source
    from relay.store.database import Connection
    from relay.store.databases import Place
    from relay.store.instances import Liveness
    from relay.store.replays import DeadLetter, Plan

_SHOWN = 10
_MOST = 1_000_000
_UNKNOWN = "unknown"
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the command line asks for."""

    ids: tuple[str, ...]
    filter: str
    rate: float | None
    canary: int
    stop_after: int
    reason: str
    dry_run: bool
    yes: bool
    as_json: bool


def _text(_context: click.Context, _parameter: click.Parameter, given: Any) -> Any:
    """What was given, unless a word of it is no text: bytes that are not UTF-8 reach us as lone surrogates."""
    try:
        "".join(given).encode()
    except UnicodeEncodeError:
        raise click.BadParameter("holds bytes that are not text") from None
    return given


def _finite(_context: click.Context, _parameter: click.Parameter, given: float | None) -> float | None:
    if given is not None and not math.isfinite(given):
        raise click.BadParameter(f"{given:g} is not a number of sends; leave it out for no limit")
    return given


@click.command("replay")
@click.argument("ids", nargs=-1, metavar="[DELIVERY_ID]...", callback=_text)
@click.option("--filter", "filter_", default="", metavar="FILTER", help="For example: error:503 since:14:02 !test:yes")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    callback=_finite,
    help="Sends a second. Default: no limit.",
)
@click.option(
    "--canary",
    type=click.IntRange(0, _MOST),
    default=0,
    metavar="N",
    help="Send the first N alone; continue only if all succeed.",
)
@click.option(
    "--stop-after",
    type=click.IntRange(0, _MOST),
    default=10,
    show_default=True,
    metavar="N",
    help="Stop at N failures in a row; 0 never stops.",
)
@click.option("--reason", default="", callback=_text, help="Why, for the audit.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def command(  # noqa: PLR0913 - one parameter an option
    *,
    ids: tuple[str, ...],
    filter_: str,
    rate: float | None,
    canary: int,
    stop_after: int,
    reason: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Send dead letters again: those named, those a filter matches, or, with neither, all of them.

    Exit 0 only if every one of them was delivered. Ctrl+C stops what was not sent yet.
    """
    if ids and filter_:
        raise click.UsageError("Give delivery ids or --filter, not both.")
    wanted = _Wanted(ids, filter_, rate, canary, stop_after, reason, dry_run, yes, as_json)
    condition = compile_filter(filter_)
    settings = load_settings()

    async def replay(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            if not wanted.as_json:
                say_source(source, place)
            return await _replay(connection, wanted, condition, source)

    with database(settings, or_demo=True) as place:
        run(replay(place))


async def _replay(connection: Connection, wanted: _Wanted, condition: Condition, source: Source) -> int:
    letters, not_dead = await _freeze(connection, wanted, condition)
    if unknown := [delivery_id for delivery_id, state in not_dead.items() if state == _UNKNOWN]:
        raise click.UsageError(f"{', '.join(unknown)}: no delivery has this id. Nothing was sent.")
    undelivered = {key: state for key, state in not_dead.items() if state != "delivered"}
    if not wanted.as_json:
        for delivery_id, state in not_dead.items():
            say(f"{delivery_id}: {state}, not sent", err=True)
    if not letters:
        _nothing(wanted, not_dead, source)
        return 1 if undelivered else 0
    alive = await _alive(connection)
    who = signed(operator(), connection.info.user)
    if wanted.dry_run:
        _show_dry_run(wanted, letters, alive[0].agent if alive else None, who, source)
        return 0
    if not alive:
        raise RelayError("No relay is running that could send them; start one with `relay serve`. Nothing was queued")
    _confirm(wanted, letters, alive[0].agent, who)
    request = PlanRequest(
        request_id=uuid4(),
        requested_by=operator(),
        reason=wanted.reason,
        filter=wanted.filter,
        rate=wanted.rate,
        canary=wanted.canary,
        stop_after=wanted.stop_after,
    )
    plan_id = await replays.ask(connection, request, letters)
    plan = await _follow(connection, plan_id, quiet=wanted.as_json)
    if wanted.as_json:
        print_json({"database": source.document} | _document(plan) | {"notSent": not_dead})
    else:
        say(_summary(plan))
    delivered_elsewhere = await replays.delivered_elsewhere(connection, plan_id)
    return 0 if plan.delivered + delivered_elsewhere == plan.total and not undelivered else 1


async def _alive(connection: Connection) -> list[Liveness]:
    return [relay for relay in await instances.liveness(connection) if relay.alive]


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


def _nothing(wanted: _Wanted, not_dead: dict[str, str], source: Source) -> None:
    if wanted.as_json:
        print_json(
            {
                "database": source.document,
                "plan": None,
                "total": 0,
                "delivered": 0,
                "dead": 0,
                "skipped": 0,
                "notSent": not_dead,
            }
        )
    elif not not_dead:
        click.echo("No dead letter matches." if wanted.filter else "There are no dead letters.")


def _show_dry_run(wanted: _Wanted, letters: Sequence[DeadLetter], agent: str | None, who: str, source: Source) -> None:
    if wanted.as_json:
        ids = [letter.delivery_id for letter in letters]
        found = {"dryRun": True, "total": len(letters), "agentEndpoint": agent, "deliveries": ids}
        print_json({"database": source.document} | found)
        return
    say([_plan_line(wanted, letters, agent or "no relay is running", who), *_list(letters)])
    click.echo("Dry run: nothing was sent.")


def _plan_line(wanted: _Wanted, letters: Sequence[DeadLetter], agent: str, who: str) -> str:
    pace = f"up to {wanted.rate:g}/s" if wanted.rate else "as fast as the relay allows"
    canary = f", first {wanted.canary} alone" if wanted.canary else ""
    stop = f", stop at {wanted.stop_after} failures in a row" if wanted.stop_after else ""
    count = "1 dead letter" if len(letters) == 1 else f"{len(letters)} dead letters"
    return f"{count} → {agent} as {who}, {pace}{canary}{stop}"


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
        raise click.UsageError(f"{len(letters)} dead letters match. Add --yes to send them, or --dry-run to preview.")
    say([_plan_line(wanted, letters, agent, who), *_list(letters)])
    if len(letters) > 50:
        typed = click.prompt(f"Type {len(letters)} to send them", default="", show_default=False)
        if typed.strip() != str(len(letters)):
            raise click.Abort
    else:
        click.confirm("Send?", abort=True)


async def _follow(connection: Connection, plan_id: int, *, quiet: bool) -> Plan:
    """Watch the plan to its end, with a progress bar on a terminal. Ctrl+C asks the relay to stop it."""
    console = Console(stderr=True)
    columns = (
        TextColumn("replay"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        bar = progress.add_task("replay", total=None, counts="")
        stopping = alone = False
        while True:
            try:
                plan = await replays.plan(connection, plan_id)
                assert plan is not None
                progress.update(
                    bar,
                    total=plan.total,
                    completed=plan.total - plan.left,
                    counts=f"{plan.delivered} ok {plan.dead} dead",
                )
                if plan.ended:
                    return plan
                was_alone, alone = alone, not await _alive(connection)
                if alone and not was_alone:
                    console.print(
                        f"No relay is running any more; replay {plan_id} continues when one starts", soft_wrap=True
                    )
                await asyncio.sleep(_LOOK_EVERY_S)
            except asyncio.CancelledError:
                if stopping:
                    raise
                stopping = True
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                await replays.control(connection, plan_id, Control.STOP, operator=operator(), reason="Ctrl+C")


def _document(plan: Plan) -> dict[str, Any]:
    return {
        "plan": plan.id,
        "state": plan.state,
        "total": plan.total,
        "delivered": plan.delivered,
        "dead": plan.dead,
        "skipped": plan.skipped,
        "left": plan.left,
        "stoppedWhy": plan.stopped_why,
    }


def _summary(plan: Plan) -> str:
    parts = [f"{plan.delivered} delivered", f"{plan.dead} dead again"]
    parts += [f"{plan.skipped} skipped (no longer that dead letter)"] if plan.skipped else []
    parts += [f"{plan.left} not sent"] if plan.left else []
    why = f" ({plan.stopped_why})" if plan.stopped_why else ""
    return f"Replay {plan.id} {plan.state}{why}: {', '.join(parts)} of {plan.total}"
