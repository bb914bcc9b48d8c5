"""`relay ack`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.commands.common import Done, act, as_json, operator, refused_as_usage, seconds
from relay.domain.alerts import RULES
from relay.settings import load_settings
from relay.store import alerts

if TYPE_CHECKING:
    from relay.store.database import Connection

_NAMES = [rule.name for rule in RULES]


@click.command("ack")
@click.argument("rule", type=click.Choice(_NAMES), metavar="RULE")
@click.option("--for", "for_s", metavar="TIME", default="1h", show_default=True, callback=seconds, help="For how long.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; recorded in the audit and shown.")
@as_json
def command(rule: str, for_s: float, reason: str, *, as_json: bool) -> None:
    """Acknowledge the alert of RULE: it stays visible, with your name, and is not sent again until the time is over.

    That it clears is still sent. RULE is a name that `relay status` shows, such as success-rate-p0.
    """

    async def acknowledge(connection: Connection) -> Done:
        with refused_as_usage():
            until = await alerts.acknowledge(connection, operator(), rule, reason, for_s)
        fires = rule in await alerts.active(connection)
        now = "" if fires else " It does not fire now."
        return Done(
            {"rule": rule, "by": operator(), "reason": reason, "until": until, "fires": fires},
            [f"{rule} is acknowledged until {until:%Y-%m-%d %H:%M:%S}Z and is not sent again before then.{now}"],
        )

    act(load_settings(), acknowledge, as_json=as_json)
