"""A notification of an alert, and how each kind of channel wants it written. No I/O: `relay.monitoring.channels` sends.

Slack and what is compatible with it take a text, PagerDuty an event (Events API v2), Opsgenie an alert (Alert API).
The dedup key is the same when an alert is raised and when it is cleared, so that "cleared" resolves the incident.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from relay.domain.alerts import Severity
from relay.domain.format import day_clock, figure, span
from relay.text import chat_text, clean, rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.domain.alerts import Transition

SUMMARY_CHARS = 1_000
_TITLE_CHARS = 130
_DETAIL_CHARS = 14_000


class AlertFormat(StrEnum):
    """The kinds of channels (`RELAY_ALERT_FORMAT`)."""

    SLACK = "slack"
    PAGERDUTY = "pagerduty"
    OPSGENIE = "opsgenie"


_PAGERDUTY = {
    Severity.P0: "critical", Severity.P1: "error", Severity.CRITICAL: "error", Severity.ESCALATE: "error",
    Severity.P2: "warning", Severity.WARNING: "warning", Severity.INFO: "info",
}  # fmt: skip
_OPSGENIE = {
    Severity.P0: "P1", Severity.P1: "P2", Severity.CRITICAL: "P2", Severity.ESCALATE: "P2", Severity.P2: "P3",
    Severity.WARNING: "P4", Severity.INFO: "P5",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Origin:
    """Where notifications come from: the installation as its operators call it, and the database's name."""

    installation: str
    database: str


@dataclass(frozen=True, slots=True)
class Message:
    """One notification. `headline` is what is so now, `command` what to type next. Moments are ISO 8601, in UTC."""

    installation: str
    database: str
    headline: str
    command: str
    rule: str
    severity: str
    condition: str
    raised: bool
    value: str
    threshold: str
    since: str
    at: str

    @property
    def key(self) -> str:
        """The dedup key: installation, database and rule."""
        whole = f"{self.installation}/{self.database}/{self.rule}"
        return f"hotdash-relay/{self.rule}/{hashlib.sha256(whole.encode()).hexdigest()[:16]}"

    @property
    def state(self) -> str:
        """`raised` or `cleared`."""
        return "raised" if self.raised else "cleared"

    @property
    def lines(self) -> tuple[str, ...]:
        """The notification as text, the headline first."""
        since, at = datetime.fromisoformat(self.since), datetime.fromisoformat(self.at)
        after = "" if self.raised else f" after {span((at - since).total_seconds())}"
        return (
            self.headline,
            f"{self.severity} {self.state}{after} on {self.installation}: {self.condition} (rule {self.rule})",
            f"now {self.value}, threshold {self.threshold}, since {day_clock(since, at)}Z; database {self.database}",
            f"next: {self.command}",
        )

    @property
    def text(self) -> str:
        """`lines`, a line each."""
        return "\n".join(self.lines)

    def as_dict(self) -> dict[str, Any]:
        """The message as JSON keeps it."""
        return asdict(self)


def message_from(document: Mapping[str, Any]) -> Message:
    """The message that `as_dict` gave. Names that this version does not know are left out."""
    return Message(**{field.name: document[field.name] for field in fields(Message)})


def message_of(change: Transition, origin: Origin, headline: str, command: str) -> Message:
    """The notification of an alert that was raised or cleared."""
    verdict = change.verdict
    rule = verdict.rule
    return Message(
        installation=origin.installation,
        database=origin.database,
        headline=clean(headline, limit=SUMMARY_CHARS),
        command=command,
        rule=rule.name,
        severity=rule.severity.value,
        condition=rule.condition,
        raised=change.raised,
        value=figure(verdict.value, rule.unit),
        threshold=figure(verdict.threshold, rule.unit),
        since=rfc3339(change.since),
        at=rfc3339(change.at),
    )


def for_slack(message: Message) -> dict[str, Any]:
    """The JSON of an incoming webhook of Slack, Mattermost, Rocket.Chat, Discord's `/slack` and their like."""
    return {"text": chat_text(message.text)}


def for_pagerduty(message: Message, routing_key: str) -> dict[str, Any]:
    """The JSON of PagerDuty's Events API v2 (developer.pagerduty.com, "Send an Alert Event")."""
    return {
        "routing_key": routing_key,
        "event_action": "trigger" if message.raised else "resolve",
        "dedup_key": message.key,
        "client": "hotdash-relay",
        "payload": {
            "summary": message.headline,
            "source": message.installation,
            "severity": _PAGERDUTY[Severity(message.severity)],
            "timestamp": message.at,
            "component": message.database,
            "class": message.rule,
            "custom_details": message.as_dict(),
        },
    }


def for_opsgenie(message: Message) -> dict[str, Any]:
    """The JSON of Opsgenie's Alert API: of "Create Alert" if it was raised, of "Close Alert" if it was cleared."""
    if not message.raised:
        return {"source": message.installation, "note": message.text[:_DETAIL_CHARS]}
    return {
        "message": message.headline[:_TITLE_CHARS],
        "alias": message.key,
        "description": message.text[:_DETAIL_CHARS],
        "priority": _OPSGENIE[Severity(message.severity)],
        "source": message.installation,
        "entity": message.database,
        "tags": ["hotdash-relay", message.severity],
        "details": {name: str(value) for name, value in message.as_dict().items()},
    }
