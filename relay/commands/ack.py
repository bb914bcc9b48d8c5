"""`relay ack`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from relay.commands.common import as_json, database, operator, print_json, run, say, say_source, seconds, source_of
from relay.domain.alerts import RULES
from relay.settings import load_settings
from relay.store import alerts
from relay.store.sessions import connected

if TYPE_CHECKING:
    from relay.store.databases import Place

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
    settings = load_settings()

    async def acknowledge(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            until = await alerts.acknowledge(connection, operator(), rule, reason, for_s)
            fires = rule in await alerts.active(connection)
        if as_json:
            document = {"rule": rule, "by": operator(), "reason": reason, "until": until, "fires": fires}
            print_json({"database": source.document} | document)
        else:
            say_source(source, place)
            now = "" if fires else " It does not fire now."
            say(f"{rule} is acknowledged until {until:%Y-%m-%d %H:%M:%S}Z and is not sent again before then.{now}")
        return 0

    with database(settings, or_demo=True) as place:
        run(acknowledge(place))
