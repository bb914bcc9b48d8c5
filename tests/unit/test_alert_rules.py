"""The alert rules as a table: each row of DESIGN 7 just under, exactly at and just over its threshold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from console.render.wrapping import shortened
from relay.domain.alerts import RULES, Buckets, Measures, Rate, Severity, Verdict, evaluate

NOTHING = Rate(0, 0)
NO_DATA = Measures(
    rate_10min=NOTHING, rate_15min=NOTHING, rate_30min=NOTHING, failing_s=None, dead_letters_1h=0,
    average_attempts_1h=None, average_ms_15min=None, agent_failing_s=None, oldest_customer_wait_s=None,
    heartbeat_age_s=None, last_webhook_age_s=None, webhooks_24h=0,
)  # fmt: skip


def verdict_of(rule: str, measures: Measures) -> Verdict:
    """What one rule says."""
    (verdict,) = [verdict for verdict in evaluate(measures) if verdict.rule.name == rule]
    return verdict


def per_mille(delivered: int) -> Rate:
    """A success rate of so many in a thousand."""
    return Rate(delivered, 1_000 - delivered)


# rule, what is measured, and under, at and over the threshold: a value and whether it fires
CASES = [
    ("success-rate-critical", "rate_15min", [(per_mille(799), True), (per_mille(800), False), (per_mille(801), False)]),
    ("dlq-p2", "dead_letters_1h", [(9, False), (10, False), (11, True)]),
    ("dlq-warning", "dead_letters_1h", [(4, False), (5, False), (6, True)]),
    ("attempts-info", "average_attempts_1h", [(1.49, False), (1.5, False), (1.51, True)]),
    ("agent-slow-info", "average_ms_15min", [(1_999, False), (2_000, False), (2_001, True)]),
    ("backlog-p1", "backlog_overdue_s", [(299, False), (300, False), (301, True)]),
    ("escalate-dlq", "dead_letters_1h", [(19, False), (20, False), (21, True)]),
    ("escalate-agent-down", "agent_failing_s", [(299, False), (300, False), (301, True)]),
    ("escalate-replies-stalled", "oldest_customer_wait_s", [(1_799, False), (1_800, False), (1_801, True)]),
    ("relay-down", "heartbeat_age_s", [(59, False), (60, False), (61, True)]),
    (
        "success-rate-critical",
        "rate_15min",
        [(Rate(3, 1), False), (Rate(0, 4), False), (Rate(0, 5), True), (Rate(4, 1), False)],
    ),
    ("store-down-p0", "store_away_s", [(59, False), (60, False), (61, True)]),
    ("spool-p1", "spool_waits_s", [(59, False), (60, False), (61, True)]),
    ("spool-p1", "spool_share", [(0.49, False), (0.5, False), (0.51, True)]),
    ("lost-p1", "lost_1h", [(0, False), (1, True)]),
    ("refused-warning", "turned_away_1h", [(4, False), (5, True), (6, True)]),
    ("facts-aside-p1", "facts_aside", [(0, False), (1, True)]),
]


@pytest.mark.parametrize(
    ("rule", "measure", "value", "fires"),
    [(rule, measure, value, fires) for rule, measure, steps in CASES for value, fires in steps],
)
def test_a_rule_fires_beyond_its_threshold_and_not_at_it(rule: str, measure: str, value: object, fires: bool) -> None:
    assert verdict_of(rule, replace(NO_DATA, **{measure: value})).firing is fires


@pytest.mark.parametrize(
    ("failing_s", "rate", "fires"),
    [
        (1_801, per_mille(699), True),
        (1_801, per_mille(700), False),
        (1_801, per_mille(701), False),
        (1_800, per_mille(699), False),
        (1_799, per_mille(0), False),
        (None, per_mille(0), False),
        (1_801, NOTHING, False),
        (1_801, Rate(0, 4), False),
        (1_801, Rate(0, 5), True),
    ],
)
def test_a_low_success_rate_escalates_once_it_has_lasted_half_an_hour(
    failing_s: float | None, rate: Rate, fires: bool
) -> None:
    measures = replace(NO_DATA, failing_s=failing_s, rate_30min=rate)
    assert verdict_of("escalate-success", measures).firing is fires


@pytest.mark.parametrize(
    ("age_s", "webhooks", "fires"),
    [(1_799, 241, False), (1_800, 241, False), (1_801, 241, True), (1_801, 240, False), (1_801, 239, False),
     (None, 241, False)],
)  # fmt: skip
def test_silence_fires_only_where_there_was_traffic(age_s: float | None, webhooks: int, fires: bool) -> None:
    measures = replace(NO_DATA, last_webhook_age_s=age_s, webhooks_24h=webhooks)
    assert verdict_of("no-webhooks-info", measures).firing is fires


LOW, MIDDLING = Rate(1, 2), Rate(1, 1)


@pytest.mark.parametrize(
    ("rule", "rates", "reaches_back", "fires"),
    [
        ("success-rate-p0", (LOW, LOW), True, True),
        ("success-rate-p0", (LOW, LOW), False, False),
        ("success-rate-p0", (LOW, MIDDLING, LOW), True, False),
        ("success-rate-p0", (LOW, NOTHING, LOW), True, True),
        ("success-rate-p0", (Rate(0, 4),), True, False),
        ("success-rate-p0", (Rate(0, 5),), True, True),
        ("success-rate-p0", (), False, False),
        ("success-rate-p1", (LOW, MIDDLING, LOW), True, True),
        ("success-rate-p1", (MIDDLING, Rate(4, 1)), True, False),
        ("success-rate-p1", (Rate(3, 2),), False, False),
    ],
)
def test_a_rate_for_some_minutes_is_low_in_each_of_them(
    rule: str, rates: tuple[Rate, ...], reaches_back: bool, fires: bool
) -> None:
    every = Rate(sum(rate.delivered for rate in rates), sum(rate.failed for rate in rates))
    buckets = Buckets(rates, reaches_back)
    measures = replace(NO_DATA, rate_10min=every, rate_15min=every, minutes_10=buckets, minutes_15=buckets)
    assert verdict_of(rule, measures).firing is fires


@pytest.mark.parametrize(
    ("accepted", "refused", "value"),
    [(2, 3, 60), (3, 3, 50), (0, 4, None), (0, 5, 100), (95, 5, 5), (0, 0, None), (5, 0, 0)],
)
def test_most_webhooks_are_refused_if_more_than_half_of_five_are(
    accepted: int, refused: int, value: float | None
) -> None:
    verdict = verdict_of("refused-p0", replace(NO_DATA, accepted_5min=accepted, refused_5min=refused))
    assert verdict.value == value
    assert verdict.firing is (value is not None and value > 50)


@pytest.mark.parametrize(
    ("age_s", "gap_s", "fires"),
    [(1_081, 360, True), (1_080, 360, False), (1_079, 360, False), (901, 60, True), (900, 60, False), (901, 0, True),
     (9_000, None, False), (None, 60, False)],
)  # fmt: skip
def test_silence_is_measured_by_what_is_usual(age_s: float | None, gap_s: float | None, fires: bool) -> None:
    verdict = verdict_of("silence-p1", replace(NO_DATA, arrival_age_s=age_s, usual_gap_s=gap_s))
    assert verdict.firing is fires
    assert verdict.threshold == max(15, (gap_s or 0) / 20)


def test_no_data_is_no_alert() -> None:
    assert [verdict.rule.name for verdict in evaluate(NO_DATA) if verdict.firing] == []


def test_nothing_of_nothing_is_no_rate() -> None:
    assert NOTHING.percent is None
    assert (Rate(0, 1).percent, Rate(1, 3).percent, Rate(1, 0).percent) == (0, 25, 100)


def test_the_table_is_the_documents() -> None:
    assert {rule.name: rule.severity for rule in RULES} == {
        "success-rate-p0": Severity.P0,
        "success-rate-p1": Severity.P1,
        "success-rate-critical": Severity.CRITICAL,
        "refused-p0": Severity.P0,
        "store-down-p0": Severity.P0,
        "lost-p1": Severity.P1,
        "refused-warning": Severity.WARNING,
        "backlog-p1": Severity.P1,
        "spool-p1": Severity.P1,
        "silence-p1": Severity.P1,
        "facts-aside-p1": Severity.P1,
        "dlq-p2": Severity.P2,
        "dlq-warning": Severity.WARNING,
        "attempts-info": Severity.INFO,
        "agent-slow-info": Severity.INFO,
        "escalate-dlq": Severity.ESCALATE,
        "escalate-success": Severity.ESCALATE,
        "escalate-agent-down": Severity.ESCALATE,
        "escalate-replies-stalled": Severity.ESCALATE,
        "relay-down": Severity.P0,
        "no-webhooks-info": Severity.INFO,
    }


def test_the_worst_verdicts_come_first() -> None:
    order = list(Severity)
    ranks = [order.index(verdict.rule.severity) for verdict in evaluate(NO_DATA)]
    assert ranks == sorted(ranks)


def test_a_verdict_carries_what_was_measured() -> None:
    assert verdict_of("success-rate-p0", replace(NO_DATA, rate_10min=Rate(1, 3))).value == 25
    assert verdict_of("escalate-agent-down", replace(NO_DATA, agent_failing_s=90)).value == 1.5
    assert verdict_of("relay-down", NO_DATA).value is None


def test_every_condition_has_a_form_for_narrow_screens() -> None:
    assert [rule.name for rule in RULES if "…" in shortened([rule], 29)[0]] == []
