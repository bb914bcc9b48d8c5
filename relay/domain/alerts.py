"""The alert rules as one table, and their evaluation: measures in, verdicts out. No I/O.

RUNBOOK, "Alert Thresholds", "Alerts Setup" and "When to Escalate"; DESIGN, 7. A rule without data does not fire,
and test webhooks are not counted. Console, `relay status` and `/metrics` show the verdicts of this table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from relay.domain.format import figure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime


SUSTAINED_PERCENT = 70
"""Below this success rate for half an hour, the runbook escalates."""

CLEAR_AFTER_S = 60
"""An alert clears once its condition has not held for this long, so that it does not flap at its threshold."""


class Severity(StrEnum):
    """How bad an alert is, worst first."""

    P0 = "P0"
    P1 = "P1"
    ESCALATE = "escalate"
    P2 = "P2"
    WARNING = "Warning"
    INFO = "Info"


@dataclass(frozen=True, slots=True)
class Rate:
    """The deliveries of a window that were delivered and that failed."""

    delivered: int
    failed: int

    @property
    def percent(self) -> float | None:
        """The success rate in percent; None without data, for 0 of 0 is not 0 %."""
        total = self.delivered + self.failed
        return None if total == 0 else 100 * self.delivered / total


@dataclass(frozen=True, slots=True)
class Measures:
    """The input of the rules. Durations are in seconds unless named otherwise; None where there is no data.

    `failing_s` is how long no minute has reached `SUSTAINED_PERCENT`, `agent_failing_s` how long the agent's
    health has failed without a break, `oldest_customer_wait_s` the age of the oldest customer's message that
    is not delivered, `backlog_overdue_s` the age of the oldest delivery that waits for anything but an operator's hold.
    `facts_aside` counts facts that `dashboard_facts` refuses or has not taken for a minute.
    """

    rate_10min: Rate
    rate_15min: Rate
    rate_30min: Rate
    failing_s: float | None
    dead_letters_1h: int
    average_attempts_1h: float | None
    average_ms_15min: float | None
    agent_failing_s: float | None
    oldest_customer_wait_s: float | None
    heartbeat_age_s: float | None
    last_webhook_age_s: float | None
    webhooks_24h: int
    facts_aside: int = 0
    spool_overdue: int = 0
    backlog_overdue_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `value` reads the measure (None: no data); it fires when `fires(value, threshold)`.

    `condition` is the sentence that screens show, `unit` what the value is counted in.
    """

    name: str
    severity: Severity
    condition: str
    unit: str
    threshold: float
    value: Callable[[Measures], float | None]
    fires_below: bool = False

    def fires(self, value: float | None) -> bool:
        """True if `value` is beyond the threshold. Exactly at it is not beyond it."""
        if value is None:
            return False
        return value < self.threshold if self.fires_below else value > self.threshold


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """A recorded alert: when it was raised, and when its condition last held."""

    since: datetime
    held_at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one rule.

    It fires while its condition `holds`, and for `CLEAR_AFTER_S` longer if it was active before. `since` is when it
    was raised; None if it does not fire, or if no relay has recorded it yet.
    """

    rule: Rule
    firing: bool
    value: float | None
    holds: bool = False
    since: datetime | None = None


def _sustained_success(measures: Measures) -> float | None:
    """The half hour's success rate, once failing has lasted longer than that; None before."""
    if measures.failing_s is None or measures.failing_s <= 1800:
        return None
    return measures.rate_30min.percent


def _silence(measures: Measures) -> float | None:
    """Minutes since the last webhook, if the last day averaged more than ten an hour."""
    if measures.last_webhook_age_s is None or measures.webhooks_24h <= 240:
        return None
    return measures.last_webhook_age_s / 60


def _minutes(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 60


RULES: tuple[Rule, ...] = (
    Rule("success-rate-p0", Severity.P0, "success rate < 50 % over 10 min", "%", 50,
         lambda m: m.rate_10min.percent, fires_below=True),
    Rule("relay-down", Severity.P0, "no relay heartbeat for 60 s", "s", 60, lambda m: m.heartbeat_age_s),
    Rule("success-rate-critical", Severity.P1, "success rate < 80 % over 15 min", "%", 80,
         lambda m: m.rate_15min.percent, fires_below=True),
    Rule("facts-aside-p1", Severity.P1, "facts refused by dashboard_facts wait aside", "", 0,
         lambda m: float(m.facts_aside)),
    Rule("backlog-p1", Severity.P1, "a delivery waits for more than 5 min", "min", 5,
         lambda m: _minutes(m.backlog_overdue_s)),
    Rule("spool-p1", Severity.P1, "receipts in a spool for 60 s though Postgres is up, or it is over half full", "", 0,
         lambda m: float(m.spool_overdue)),
    Rule("escalate-dlq", Severity.ESCALATE, "more than 20 dead letters in 1 h", "", 20,
         lambda m: float(m.dead_letters_1h)),
    Rule("escalate-success", Severity.ESCALATE, "success rate < 70 % for more than 30 min", "%", SUSTAINED_PERCENT,
         _sustained_success, fires_below=True),
    Rule("escalate-agent-down", Severity.ESCALATE, "Agent SDK health failing for more than 5 min", "min", 5,
         lambda m: _minutes(m.agent_failing_s)),
    Rule("escalate-replies-stalled", Severity.ESCALATE, "a customer's message undelivered for more than 30 min",
         "min", 30, lambda m: _minutes(m.oldest_customer_wait_s)),
    Rule("dlq-p2", Severity.P2, "more than 10 dead letters in 1 h", "", 10, lambda m: float(m.dead_letters_1h)),
    Rule("dlq-warning", Severity.WARNING, "more than 5 dead letters in 1 h", "", 5,
         lambda m: float(m.dead_letters_1h)),
    Rule("attempts-info", Severity.INFO, "average attempts > 1.5 over 1 h", "", 1.5,
         lambda m: m.average_attempts_1h),
    Rule("agent-slow-info", Severity.INFO, "average forwarding time > 2 s over 15 min", "ms", 2000,
         lambda m: m.average_ms_15min),
    Rule("no-webhooks-info", Severity.INFO, "no webhook for 30 min, though more than 10 an hour is usual", "min", 30,
         _silence),
)  # fmt: skip


_BY_NAME = {rule.name: rule for rule in RULES}


def rule_named(name: str) -> Rule:
    """The rule of this name: for what shows or checks its threshold elsewhere."""
    return _BY_NAME[name]


def evaluate(measures: Measures) -> list[Verdict]:
    """The verdict of every rule on `measures` alone, in the table's order: worst first."""
    verdicts = []
    for rule in RULES:
        value = rule.value(measures)
        holds = rule.fires(value)
        verdicts.append(Verdict(rule, firing=holds, value=value, holds=holds))
    return verdicts


def sustain(verdicts: Sequence[Verdict], active: Mapping[str, ActiveAlert], now: datetime) -> list[Verdict]:
    """`verdicts` with the time they were raised, and with alerts that have not cleared yet. `active` is by rule."""
    return [_sustained(verdict, active.get(verdict.rule.name), now) for verdict in verdicts]


def _sustained(verdict: Verdict, alert: ActiveAlert | None, now: datetime) -> Verdict:
    if alert is None:
        return verdict
    lingers = (now - alert.held_at).total_seconds() < CLEAR_AFTER_S
    firing = verdict.holds or lingers
    return replace(verdict, firing=firing, since=alert.since if firing else None)


@dataclass(frozen=True, slots=True)
class Transition:
    """An alert that was raised, or cleared. `since` is when it was raised."""

    verdict: Verdict
    raised: bool
    at: datetime
    since: datetime

    @property
    def state(self) -> str:
        """`raised` or `cleared`."""
        return "raised" if self.raised else "cleared"

    @property
    def text(self) -> str:
        """The sentence of the notification."""
        rule = self.verdict.rule
        now = f"now {figure(self.verdict.value, rule.unit)}"
        if self.raised:
            return f"{rule.severity} raised: {rule.condition} ({now}; rule {rule.name})"
        minutes = (self.at - self.since).total_seconds() / 60
        return f"{rule.severity} cleared after {minutes:.0f} min: {rule.condition} ({now}; rule {rule.name})"
