"""Follows a replay plan from the command line to its end, for `relay replay` and `relay backfill`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from relay.commands.common import operator
from relay.store import instances, replays
from relay.store.replays import Control

if TYPE_CHECKING:
    from relay.store.database import Connection
    from relay.store.instances import Liveness
    from relay.store.replays import Plan

_LOOK_EVERY_S = 0.2


async def alive_relays(connection: Connection) -> list[Liveness]:
    """The relays that can work on a plan now."""
    return [relay for relay in await instances.liveness(connection) if relay.alive]


async def follow(connection: Connection, plan_id: int, *, quiet: bool) -> Plan:
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
                was_alone, alone = alone, not await alive_relays(connection)
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


NO_PLAN: dict[str, Any] = {
    "plan": None, "state": None, "total": 0, "delivered": 0, "dead": 0, "skipped": 0, "left": 0, "stopped_why": None,
}  # fmt: skip
"""The document where there was nothing to send."""


def document(plan: Plan) -> dict[str, Any]:
    """The plan for `--json`: the fields of `NO_PLAN`."""
    return {
        "plan": plan.id,
        "state": plan.state,
        "total": plan.total,
        "delivered": plan.delivered,
        "dead": plan.dead,
        "skipped": plan.skipped,
        "left": plan.left,
        "stopped_why": plan.stopped_why,
    }


def summary(plan: Plan) -> str:
    parts = [f"{plan.delivered} delivered", f"{plan.dead} dead again"]
    parts += [f"{plan.skipped} skipped (no longer that dead letter)"] if plan.skipped else []
    parts += [f"{plan.left} not sent"] if plan.left else []
    why = f" ({plan.stopped_why})" if plan.stopped_why else ""
    return f"Replay {plan.id} {plan.state}{why}: {', '.join(parts)} of {plan.total}"
