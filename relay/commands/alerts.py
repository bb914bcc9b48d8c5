"""`relay alerts`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from relay.commands.common import as_json, print_json, run, say
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
@as_json
def test(*, as_json: bool) -> None:
    """Send one notification of each notified severity, raised and then cleared, to every channel.

    Reads no database and records nothing. Exit 1 if one was not accepted.
    """
    settings = load_settings()
    found = channels(settings)
    if not found:
        raise ConfigurationError("RELAY_ALERT_WEBHOOK_URL: not set; it is where notifications are sent to")
    run(_send(found, _messages(settings), as_json=as_json))


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


async def _send(found: Sequence[Channel], messages: Sequence[Message], *, as_json: bool) -> int:
    tried: list[dict[str, object]] = []
    for number, channel in enumerate(found, start=1):
        for message in messages:
            failure = await channel.send(message)
            tried.append({
                "channel": number, "format": channel.format, "severity": message.severity, "state": message.state,
                "sent": failure is None, "error": failure,
            })  # fmt: skip
            if not as_json:
                verdict = "sent" if failure is None else f"FAILED: {failure}"
                say(f"{channel.format}: {message.severity} {message.state}: {verdict}")
    all_sent = all(one["sent"] for one in tried)
    if as_json:
        print_json({"ok": all_sent, "notifications": tried})
    return 0 if all_sent else 1
