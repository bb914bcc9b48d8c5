"""`relay hold`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.commands.common import Done, act, as_json, operator, refused_as_usage, seconds
from relay.settings import load_settings
from relay.store import gate

if TYPE_CHECKING:
    from relay.store.database import Connection


@click.command("hold")
@click.option("--reason", required=True, metavar="TEXT", help="Why; recorded in the audit and shown.")
@click.option("--for", "for_s", metavar="TIME", callback=seconds, help="End by itself after so long, e.g. 30m.")
@as_json
def command(reason: str, for_s: float | None, *, as_json: bool) -> None:
    """Stop forwarding on all relays within a second. Webhooks are stored and wait until `relay release`.

    Attempts in progress finish; no further one starts. For deploying the Agent SDK without a dead letter.
    """

    async def hold(connection: Connection) -> Done:
        with refused_as_usage():
            await gate.hold(connection, operator(), reason, for_s)
        current = await gate.current_hold(connection)
        until = None if current is None or current.until is None else current.until
        end = "until `relay release`" if until is None else f"until {until:%Y-%m-%d %H:%M:%S}Z or `relay release`"
        return Done({"held": True, "until": until}, [f"Forwarding is held {end}. Webhooks are stored and wait."])

    act(load_settings(), hold, as_json=as_json)
