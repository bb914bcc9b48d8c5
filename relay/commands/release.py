"""`relay release`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.commands.common import Done, Finite, act, as_json, operator
from relay.domain.format import plural, verb
from relay.settings import load_settings
from relay.store import backlog, gate

if TYPE_CHECKING:
    from relay.store.database import Connection


@click.command("release")
@click.option(
    "--rate",
    type=Finite(0.001, 1_000_000),
    metavar="N",
    help="Drain the backlog at N deliveries a second over all relays. Default: as fast as it goes.",
)
@as_json
def command(rate: float | None, *, as_json: bool) -> None:
    """End the hold: what waits is forwarded in order. Exit 1 if forwarding is not held.

    While the backlog drains at a rate, this changes the rate; without --rate it lifts the limit.
    """

    async def release(connection: Connection) -> Done:
        released = await gate.release(connection, operator(), rate)
        waiting = (await backlog.read(connection)).waiting
        pace = "" if rate is None else f" at {rate:g} a second"
        left = f"{plural(waiting, 'delivery')} {verb(waiting, 'wait')} and {verb(waiting, 'are')} forwarded{pace}."
        done = f"Forwarding is released. {left}" if released else "Forwarding is not held."
        return Done({"released": released, "waiting": waiting}, [done], 0 if released else 1)

    act(load_settings(), release, as_json=as_json)
