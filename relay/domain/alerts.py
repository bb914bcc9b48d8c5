"""The alert rules as one table, and their evaluation: measures in, verdicts out. No I/O.

RUNBOOK, "Alert Thresholds", "Alerts Setup" and "When to Escalate"; DESIGN, 7. A rate without data does not fire;
silence and refusals are data. Test webhooks are not counted. Console, `relay status` and `/metrics` show the verdicts
of this table.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime


SUSTAINED_PERCENT = 70
"""Below this success rate for half an hour, the runbook escalates."""

LEAST_DELIVERIES = 5
"""A success rate of fewer finished deliveries than this raises no alert."""

OLDEST_WITHIN_S = 60
"""A rate "for N minutes" needs a delivery of the first of those minutes."""

SILENT_TIMES, LEAST_SILENCE_S = 3, 900
"""Silence is so many times the longest gap usual at this hour of the week, and so many seconds at least."""

CLEAR_AFTER_S = 60
"""An alert clears once its condition has not held for this long, so that it does not flap at its threshold."""


class Severity(StrEnum):
    """How bad an alert is, worst first."""

    P0 = "P0"
    P1 = "P1"
    CRITICAL = "Critical"
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
    def total(self) -> int:
        """All of them."""
        return self.delivered + self.failed

    @property
    def percent(self) -> float | None:
        """The success rate in percent; None without data, for 0 of 0 is not 0 %."""
        return None if self.total == 0 else 100 * self.delivered / self.total


@dataclass(frozen=True, slots=True)
class Buckets:
    """The last minutes that had finished deliveries, each as a rate, and whether the first one of the window had any.

    `reaches_back` is True if the oldest delivery of the window is from its first minute.
    """

    rates: tuple[Rate, ...] = ()
    reaches_back: bool = False

    def stay_below(self, percent: float) -> bool:
        """True if the success rate was below `percent` for the whole window: in each of its minutes with deliveries."""
        is_enough = self.reaches_back and sum(rate.total for rate in self.rates) >= LEAST_DELIVERIES
        return is_enough and all(rate.percent is None or rate.percent < percent for rate in self.rates)


@dataclass(frozen=True, slots=True)
class Measures:
    """The input of the rules. Durations are in seconds unless named otherwise; None where there is no data.

    `failing_s` is how long no minute has reached `SUSTAINED_PERCENT`, `agent_failing_s` how long the agent's health
    has failed without a break, `oldest_customer_wait_s` the age of the oldest customer's message that is not
    delivered (of dead letters of the second: one failure on a quiet night is no stall), `backlog_overdue_s` the age
    of the oldest delivery that waits for anything but an operator's hold. `facts_aside` counts facts that
    `dashboard_facts` refuses or has not taken for a minute. `accepted_5min` are the webhooks that were stored,
    `refused_5min` those answered 401, 413 or 503, `lost_1h` those answered 413 or 503, `turned_away_1h` those
    answered 401 or 404. `store_away_s` is how long Postgres has been away. `spool_waits_s` is how long a spool has
    held webhooks although Postgres is up, `spool_share` how full the fullest is, from 0 to 1. `arrival_age_s` is
    how long ago a webhook came, accepted or refused, `usual_gap_s` the longest gap between two that is usual at
    this hour of the week.
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
    backlog_overdue_s: float | None = None
    minutes_10: Buckets = field(default_factory=Buckets)
    minutes_15: Buckets = field(default_factory=Buckets)
    accepted_5min: int = 0
    refused_5min: int = 0
    lost_1h: int = 0
    turned_away_1h: int = 0
    store_away_s: float | None = None
    spool_waits_s: float | None = None
    spool_share: float | None = None
    arrival_age_s: float | None = None
    usual_gap_s: float | None = None

    @classmethod
    def of_nothing(cls, **known: Any) -> Measures:
        """Measures without data, but for those that are `known`."""
        nothing: dict[str, Any] = {
            "rate_10min": Rate(0, 0), "rate_15min": Rate(0, 0), "rate_30min": Rate(0, 0), "failing_s": None,
            "dead_letters_1h": 0, "average_attempts_1h": None, "average_ms_15min": None, "agent_failing_s": None,
            "oldest_customer_wait_s": None, "heartbeat_age_s": None, "last_webhook_age_s": None, "webhooks_24h": 0,
        }  # fmt: skip
        return cls(**(nothing | known))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `value` reads the measure (None: no data); it fires when the value is beyond the threshold.

    `condition` is the sentence that screens show, `brief` the same where there is little room, `unit` what the value
    is counted in. `at_threshold`: it fires at the threshold too. `provided` must hold as well; `or_if` makes it fire
    whatever the value is. `threshold_of` gives the threshold where it depends on the measures.
    """

    name: str
    severity: Severity
    condition: str
    unit: str
    threshold: float
    value: Callable[[Measures], float | None]
    fires_below: bool = False
    at_threshold: bool = False
    provided: Callable[[Measures], bool] | None = None
    or_if: Callable[[Measures], bool] | None = None
    threshold_of: Callable[[Measures], float] | None = None
    brief: str = ""

    def evaluate(self, measures: Measures) -> Verdict:
        """The verdict on `measures` alone."""
        value = self.value(measures)
        threshold = self.threshold if self.threshold_of is None else self.threshold_of(measures)
        holds = value is not None and (self.provided is None or self.provided(measures))
        holds = holds and self.fires(value, threshold)
        holds = holds or (self.or_if is not None and self.or_if(measures))
        return Verdict(self, firing=holds, value=value, holds=holds, measured_against=threshold)

    def fires(self, value: float | None, threshold: float | None = None) -> bool:
        """True if `value` is beyond the threshold, the rule's own if none is given."""
        threshold = self.threshold if threshold is None else threshold
        if value is None or value == threshold:
            return value is not None and self.at_threshold
        return value < threshold if self.fires_below else value > threshold


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """A recorded alert: when it was raised, and when its condition last held."""

    since: datetime
    held_at: datetime


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Who has taken note of an alert, why, since when and until when it is not sent again."""

    who: str
    reason: str
    at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one rule.

    It fires while its condition `holds`, and for `CLEAR_AFTER_S` longer if it was active before. `since` is when it
    was raised; None if it does not fire, or if no relay has recorded it yet. `measured_against` is the threshold at
    this moment, None for the rule's own. `acknowledged` is set only while it fires.
    """

    rule: Rule
    firing: bool
    value: float | None
    holds: bool = False
    since: datetime | None = None
    measured_against: float | None = None
    acknowledged: Acknowledgement | None = None

    @property
    def threshold(self) -> float:
        """What the value was compared with."""
        return self.rule.threshold if self.measured_against is None else self.measured_against


def _sustained_success(measures: Measures) -> float | None:
    """The half hour's success rate, once failing has lasted longer than that; None before."""
    if measures.failing_s is None or measures.failing_s <= 1800:
        return None
    return measures.rate_30min.percent


def _refused_percent(measures: Measures) -> float | None:
    """The share of the last five minutes' webhooks that were refused; None below five webhooks."""
    total = measures.accepted_5min + measures.refused_5min
    return 100 * measures.refused_5min / total if total >= LEAST_DELIVERIES else None


def _silent_minutes(measures: Measures) -> float | None:
    """Minutes since a webhook came, if it is known what is usual at this hour of the week."""
    return None if measures.usual_gap_s is None else _minutes(measures.arrival_age_s)


def _silence_threshold(measures: Measures) -> float:
    return max(SILENT_TIMES * (measures.usual_gap_s or 0), LEAST_SILENCE_S) / 60


def _spool_is_half_full(measures: Measures) -> bool:
    return measures.spool_share is not None and measures.spool_share > 0.5


def _has_enough(rate: Callable[[Measures], Rate]) -> Callable[[Measures], bool]:
    return lambda measures: rate(measures).total >= LEAST_DELIVERIES


def _no_webhooks(measures: Measures) -> float | None:
    """Minutes since the last webhook, if the last day averaged more than ten an hour."""
    if measures.last_webhook_age_s is None or measures.webhooks_24h <= 240:
        return None
    return measures.last_webhook_age_s / 60


def _minutes(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 60


RULES: tuple[Rule, ...] = (
    Rule("success-rate-p0", Severity.P0, "success rate < 50 % for 10 min", "%", 50,
         lambda m: m.rate_10min.percent, fires_below=True, provided=lambda m: m.minutes_10.stay_below(50),
         brief="success < 50 % for 10 min"),
    Rule("refused-p0", Severity.P0, "more than half of the webhooks refused in 5 min", "%", 50, _refused_percent,
         brief="> half refused in 5 min"),
    Rule("store-down-p0", Severity.P0, "Postgres away for 60 s", "s", 60, lambda m: m.store_away_s),
    Rule("relay-down", Severity.P0, "no relay heartbeat for 60 s", "s", 60, lambda m: m.heartbeat_age_s),
    Rule("success-rate-p1", Severity.P1, "success rate < 80 % for 15 min", "%", 80,
         lambda m: m.rate_15min.percent, fires_below=True, provided=lambda m: m.minutes_15.stay_below(80),
         brief="success < 80 % for 15 min"),
    Rule("lost-p1", Severity.P1, "webhooks refused with 413 or 503 in 1 h are lost", "", 0,
         lambda m: float(m.lost_1h),
         brief="refused with 413 or 503"),
    Rule("backlog-p1", Severity.P1, "a delivery waits for more than 5 min", "min", 5,
         lambda m: _minutes(m.backlog_overdue_s),
         brief="a delivery waits > 5 min"),
    Rule("spool-p1", Severity.P1, "the spool not empty for 60 s though Postgres is up, or half full", "s", 60,
         lambda m: m.spool_waits_s, or_if=_spool_is_half_full,
         brief="spool kept 60 s, or half full"),
    Rule("silence-p1", Severity.P1, "no webhook for three times the longest gap usual at this hour", "min", 15,
         _silent_minutes, threshold_of=_silence_threshold,
         brief="no webhook for 3 usual gaps"),
    Rule("facts-aside-p1", Severity.P1, "facts refused by dashboard_facts wait aside", "", 0,
         lambda m: float(m.facts_aside),
         brief="facts refused, kept aside"),
    Rule("success-rate-critical", Severity.CRITICAL, "success rate < 80 % over 15 min", "%", 80,
         lambda m: m.rate_15min.percent, fires_below=True, provided=_has_enough(lambda m: m.rate_15min),
         brief="success < 80 % over 15 min"),
    Rule("escalate-dlq", Severity.ESCALATE, "more than 20 dead letters in 1 h", "", 20,
         lambda m: float(m.dead_letters_1h)),
    Rule("escalate-success", Severity.ESCALATE, "success rate < 70 % for more than 30 min", "%", SUSTAINED_PERCENT,
         _sustained_success, fires_below=True, provided=_has_enough(lambda m: m.rate_30min),
         brief="success < 70 % for > 30 min"),
    Rule("escalate-agent-down", Severity.ESCALATE, "Agent SDK health failing for more than 5 min", "min", 5,
         lambda m: _minutes(m.agent_failing_s),
         brief="agent /health fails > 5 min"),
    Rule("escalate-replies-stalled", Severity.ESCALATE, "a customer's message undelivered for more than 30 min",
         "min", 30, lambda m: _minutes(m.oldest_customer_wait_s),
         brief="message waits > 30 min"),
    Rule("dlq-p2", Severity.P2, "more than 10 dead letters in 1 h", "", 10, lambda m: float(m.dead_letters_1h)),
    Rule("dlq-warning", Severity.WARNING, "more than 5 dead letters in 1 h", "", 5,
         lambda m: float(m.dead_letters_1h)),
    Rule("refused-warning", Severity.WARNING, "5 webhooks refused with 401 or 404 in 1 h", "", 5,
         lambda m: float(m.turned_away_1h), at_threshold=True,
         brief="5 refused (401, 404) in 1 h"),
    Rule("attempts-info", Severity.INFO, "average attempts > 1.5 over 1 h", "", 1.5,
         lambda m: m.average_attempts_1h,
         brief="> 1.5 attempts over 1 h"),
    Rule("agent-slow-info", Severity.INFO, "average forwarding time > 2 s over 15 min", "ms", 2000,
         lambda m: m.average_ms_15min,
         brief="forwarding > 2 s on average"),
    Rule("no-webhooks-info", Severity.INFO, "no webhook for 30 min, though more than 10 an hour is usual", "min", 30,
         _no_webhooks,
         brief="no webhook for 30 min"),
)  # fmt: skip


_BY_NAME = {rule.name: rule for rule in RULES}


def rule_named(name: str) -> Rule:
    """The rule of this name: for what shows or checks its threshold elsewhere."""
    return _BY_NAME[name]


def evaluate(measures: Measures) -> list[Verdict]:
    """The verdict of every rule on `measures` alone, in the table's order: worst first."""
    return [rule.evaluate(measures) for rule in RULES]


def sustain(
    verdicts: Sequence[Verdict],
    active: Mapping[str, ActiveAlert],
    now: datetime,
    acknowledged: Mapping[str, Acknowledgement] | None = None,
) -> list[Verdict]:
    """`verdicts` with the time they were raised, with alerts that have not cleared yet, and with who has taken note.

    `active` and `acknowledged` are by rule.
    """
    sustained = [_sustained(verdict, active.get(verdict.rule.name), now) for verdict in verdicts]
    notes = acknowledged or {}
    return [
        replace(verdict, acknowledged=notes.get(verdict.rule.name)) if verdict.firing else verdict
        for verdict in sustained
    ]


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
