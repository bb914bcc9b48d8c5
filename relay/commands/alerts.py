"""`relay alerts`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from relay.commands.common import run, say
from relay.domain.alerts import RULES, Transition, Verdict
from relay.domain.notifications import Origin, message_of
from relay.errors import ConfigurationError
from relay.monitoring.channels import channels
from relay.settings import load_settings
from relay.store.databases import database_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.domain.notifications import Message
    from relay.monitoring.channels import Channel
    from relay.settings import Settings

_HEADLINE = "TEST: this is a test of the notifications; nothing is wrong."


@click.group("alerts")
def command() -> None:
    """Notifications of alerts."""


@command.command("test")
def test() -> None:
    """Send one notification of each notified severity, raised and then cleared, to every channel.

    Reads no database and records nothing. Exit 1 if one was not accepted.
    """
    settings = load_settings()
    found = channels(settings)
    if not found:
        raise ConfigurationError("RELAY_ALERT_WEBHOOK_URL: not set; it is where notifications are sent to")
    run(_send(found, _messages(settings)))


def _messages(settings: Settings) -> list[Message]:
    now = datetime.now(UTC)
    origin = Origin(settings.installation, database_name(settings))
    firsts = {rule.severity: rule for rule in reversed(RULES) if rule.severity in settings.alert_severities}
    messages = []
    for severity in sorted(firsts, key=list(type(RULES[0].severity)).index):
        verdict = Verdict(firsts[severity], firing=True, value=None)
        for raised in (True, False):
            change = Transition(verdict, raised=raised, at=now, since=now if raised else now - timedelta(minutes=1))
            messages.append(message_of(change, origin, _HEADLINE, "relay status"))
    return messages


async def _send(found: Sequence[Channel], messages: Sequence[Message]) -> int:
    failed = 0
    for channel in found:
        for message in messages:
            failure = await channel.send(message)
            failed += failure is not None
            verdict = "sent" if failure is None else f"FAILED: {failure}"
            say(f"{channel.format}: {message.severity} {message.state}: {verdict}")
    return 1 if failed else 0
