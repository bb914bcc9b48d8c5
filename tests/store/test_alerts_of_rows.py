"""The alert rules from the rows up: each fires beyond its threshold and its window, and not a step before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from relay.domain.alerts import RULES, Severity
from relay.store import overview, traffic
from relay.store.database import connection_parameters
from tests.servers import Rows, database_like
from tests.store.plant import REJECTED, REPLAY, Plant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from relay.domain.alerts import Verdict

_ALL_TABLES = """
    TRUNCATE dashboard_facts, relay.facts_aside, relay.deliveries, relay.instances, relay.usual_gaps, relay.holds
"""


@pytest.fixture(scope="module")
def shared_rows(postgres: str) -> Iterator[Rows]:
    with database_like("migrated", postgres) as dsn, Rows(dsn).connected() as rows:
        yield rows


@pytest.fixture
def plant(shared_rows: Rows) -> Plant:
    shared_rows(_ALL_TABLES)
    return Plant(shared_rows)


def verdicts(plant: Plant) -> dict[str, Verdict]:
    """What each rule says of what was planted."""

    async def read() -> overview.Overview:
        parameters = connection_parameters(plant.rows.dsn, "tests")
        async with await psycopg.AsyncConnection.connect(autocommit=True, **parameters) as connection:
            return await overview.read(connection)

    return {verdict.rule.name: verdict for verdict in asyncio.run(read()).verdicts}


def _outage(plant: Plant, minutes: range, *, delivered: int, failed: int) -> None:
    for minute in minutes:
        plant.runs(delivered=delivered, failed=failed, age_s=60 * minute)


def _busy_day(plant: Plant, webhooks: int, *, last_age_s: float) -> None:
    plant.runs(delivered=webhooks, age_s=40_000)
    plant.delivery("delivered", age_s=last_age_s)


def _refused(plant: Plant, reason: str, count: int, *, age_s: float = 60, test: bool = False) -> None:
    plant.facts(REJECTED, {"reason": reason, "status": 401, "count": count}, {"test": test}, age_s=age_s)


def _accepted(plant: Plant, count: int, *, age_s: float = 60) -> None:
    for _ in range(count):
        plant.delivery("delivered", age_s=age_s)


def _usual_gap(plant: Plant, gap_s: float, *, last_age_s: float) -> None:
    """A gap that is usual at this hour, learned from four weeks, one of which had a longer one."""
    plant.rows("TRUNCATE relay.usual_gaps")
    for week, gap in enumerate((gap_s, gap_s, gap_s, gap_s * 9), start=1):
        plant.rows(
            "INSERT INTO relay.usual_gaps VALUES"
            " (date_trunc('hour', now(), 'UTC') - make_interval(hours => 168 * %s), %s)", (week, gap),
        )  # fmt: skip
    plant.delivery("delivered", age_s=last_age_s)


_NEVER_OF_ROWS = {"store-down-p0", "spool-p1"}
"""Rules of what is not in rows here: Postgres itself, and parts with tests of their own."""

CASES: list[tuple[str, bool, str, Callable[[Plant], object]]] = [
    ("success-rate-p0", True, "49 % in every minute", lambda p: _outage(p, range(1, 10), delivered=49, failed=51)),
    ("success-rate-p0", True, "with quiet minutes", lambda p: (p.runs(failed=2, age_s=560), p.runs(failed=3, age_s=5))),
    ("success-rate-p0", False, "50 % in one minute",
     lambda p: (_outage(p, range(1, 10), delivered=49, failed=51), p.runs(delivered=2, failed=0, age_s=560))),
    ("success-rate-p0", False, "a good minute between",
     lambda p: (p.runs(failed=9, age_s=580), p.runs(delivered=1, age_s=300), p.runs(failed=9, age_s=5))),
    ("success-rate-p0", False, "for 8 minutes", lambda p: _outage(p, range(1, 9), delivered=0, failed=2)),
    ("success-rate-p0", True, "the oldest 9 min ago", lambda p: p.runs(failed=5, age_s=545)),
    ("success-rate-p0", False, "the oldest not 9 min ago", lambda p: p.runs(failed=5, age_s=535)),
    ("success-rate-p0", False, "before the window", lambda p: p.runs(failed=9, age_s=601)),
    ("success-rate-p0", False, "what was well before the window does not count, but four are too few",
     lambda p: (p.runs(delivered=50, age_s=602), p.runs(failed=4, age_s=560))),
    ("success-rate-p0", True, "what was well before the window does not count",
     lambda p: (p.runs(delivered=50, age_s=602), p.runs(failed=5, age_s=560))),
    ("success-rate-p0", False, "tests", lambda p: p.runs(failed=9, age_s=560, test=True)),
    ("success-rate-p0", True, "replays do not mask an outage",
     lambda p: (p.runs(failed=5, age_s=560), p.runs(delivered=50, age_s=560, fact_type=REPLAY))),
    ("success-rate-p0", False, "replays make no outage",
     lambda p: (p.runs(delivered=5, age_s=560), p.runs(failed=50, age_s=560, fact_type=REPLAY))),
    ("success-rate-p1", True, "79 % in every minute", lambda p: _outage(p, range(1, 15), delivered=79, failed=21)),
    ("success-rate-p1", False, "80 % in one minute",
     lambda p: (_outage(p, range(1, 15), delivered=79, failed=21), p.runs(delivered=5, age_s=860))),
    ("success-rate-p1", False, "for 13 minutes", lambda p: _outage(p, range(1, 14), delivered=79, failed=21)),
    ("success-rate-p1", False, "four", lambda p: p.runs(failed=4, age_s=860)),
    ("success-rate-critical", True, "79 %", lambda p: p.runs(delivered=79, failed=21, age_s=860)),
    ("success-rate-critical", False, "80 %", lambda p: p.runs(delivered=80, failed=20, age_s=860)),
    ("success-rate-critical", False, "before the window", lambda p: p.runs(failed=9, age_s=901)),
    ("success-rate-critical", False, "four", lambda p: p.runs(failed=4)),
    ("success-rate-critical", True, "five", lambda p: p.runs(failed=5)),
    ("success-rate-critical", False, "tests", lambda p: p.runs(failed=9, test=True)),
    ("refused-p0", True, "3 of 5", lambda p: (_refused(p, "invalid_signature", 3), _accepted(p, 2))),
    ("refused-p0", False, "3 of 6", lambda p: (_refused(p, "invalid_signature", 3), _accepted(p, 3))),
    ("refused-p0", False, "4 of 4", lambda p: _refused(p, "not_stored", 4)),
    ("refused-p0", True, "5 of 5, all reasons together",
     lambda p: [_refused(p, reason, 1)
                for reason in ("missing_signature", "body_too_large", "not_stored", "stale_timestamp", "overloaded")]),
    ("refused-p0", False, "before the window", lambda p: _refused(p, "invalid_signature", 9, age_s=301)),
    ("refused-p0", True, "what was accepted before the window does not count",
     lambda p: (_refused(p, "invalid_signature", 9, age_s=290), _accepted(p, 50, age_s=310))),
    ("refused-p0", False, "bad bodies and wrong paths",
     lambda p: (_refused(p, "invalid_json", 9), _refused(p, "wrong_path", 9))),
    ("refused-p0", False, "tests", lambda p: _refused(p, "invalid_signature", 9, test=True)),
    ("lost-p1", True, "one body too large", lambda p: _refused(p, "body_too_large", 1, age_s=3_540)),
    ("lost-p1", True, "one not stored", lambda p: _refused(p, "not_stored", 1)),
    ("lost-p1", False, "before the window", lambda p: _refused(p, "not_stored", 1, age_s=3_601)),
    ("lost-p1", False, "a bad signature", lambda p: _refused(p, "invalid_signature", 9)),
    ("refused-warning", True, "5 in one burst", lambda p: _refused(p, "missing_signature", 5, age_s=3_540)),
    ("refused-warning", True, "3 and 2", lambda p: (_refused(p, "missing_signature", 3), _refused(p, "wrong_path", 2))),
    ("refused-warning", False, "4", lambda p: _refused(p, "missing_signature", 4)),
    ("refused-warning", False, "before the window", lambda p: _refused(p, "missing_signature", 5, age_s=3_601)),
    ("refused-warning", False, "scanners",
     lambda p: (_refused(p, "unknown_path", 50), _refused(p, "wrong_method", 50))),
    ("silence-p1", True, "thrice the usual gap of 6 min", lambda p: _usual_gap(p, 360, last_age_s=1_090)),
    ("silence-p1", False, "less", lambda p: _usual_gap(p, 360, last_age_s=1_070)),
    ("silence-p1", True, "15 min at least", lambda p: _usual_gap(p, 60, last_age_s=905)),
    ("silence-p1", False, "less than 15 min", lambda p: _usual_gap(p, 60, last_age_s=895)),
    ("silence-p1", False, "at night", lambda p: _usual_gap(p, 20_000, last_age_s=50_000)),
    ("silence-p1", False, "nothing known", lambda p: p.delivery("delivered", age_s=50_000)),
    ("silence-p1", False, "refused webhooks come",
     lambda p: (_usual_gap(p, 60, last_age_s=905), _refused(p, "invalid_signature", 1))),
    ("silence-p1", True, "only a test since",
     lambda p: (_usual_gap(p, 60, last_age_s=905), p.delivery("delivered", test=True, age_s=5))),
    ("dlq-warning", True, "6", lambda p: p.dead_letters(6, age_s=3_540)),
    ("dlq-warning", False, "5", lambda p: p.dead_letters(5, age_s=3_540)),
    ("dlq-warning", False, "before the window", lambda p: p.dead_letters(6, age_s=3_601)),
    ("dlq-warning", False, "tests", lambda p: p.dead_letters(6, test=True)),
    ("dlq-p2", True, "11", lambda p: p.dead_letters(11, age_s=3_540)),
    ("dlq-p2", False, "10", lambda p: p.dead_letters(10, age_s=3_540)),
    ("escalate-dlq", True, "21", lambda p: p.dead_letters(21, age_s=3_540)),
    ("escalate-dlq", False, "20", lambda p: p.dead_letters(20, age_s=3_540)),
    ("attempts-info", True, "1.51", lambda p: (p.runs(delivered=49), p.runs(failed=51, attempts=2, age_s=3_540))),
    ("attempts-info", False, "1.5", lambda p: (p.runs(delivered=50), p.runs(failed=50, attempts=2, age_s=3_540))),
    ("attempts-info", False, "before the window", lambda p: p.runs(delivered=9, attempts=3, age_s=3_601)),
    ("agent-slow-info", True, "2001 ms", lambda p: p.runs(delivered=3, duration_ms=2_001, age_s=860)),
    ("agent-slow-info", False, "2000 ms", lambda p: p.runs(delivered=3, duration_ms=2_000, age_s=860)),
    ("agent-slow-info", False, "before the window", lambda p: p.runs(delivered=3, duration_ms=9_000, age_s=901)),
    ("escalate-success", True, "69 % for 33 min", lambda p: _outage(p, range(1, 34), delivered=69, failed=31)),
    ("escalate-success", False, "70 % for 33 min", lambda p: _outage(p, range(1, 34), delivered=70, failed=30)),
    ("escalate-success", False, "for 27 min", lambda p: _outage(p, range(1, 28), delivered=0, failed=2)),
    ("escalate-success", True, "with quiet minutes", lambda p: _outage(p, range(1, 40, 6), delivered=1, failed=3)),
    ("escalate-success", False, "with a good minute between",
     lambda p: (_outage(p, range(20, 40), delivered=0, failed=2), p.runs(delivered=1, age_s=1_000),
                _outage(p, range(1, 10), delivered=0, failed=2))),
    ("escalate-success", False, "long over", lambda p: _outage(p, range(35, 70), delivered=0, failed=2)),
    ("escalate-agent-down", True, "for 301 s",
     lambda p: (p.probe(ok=True, age_s=331), p.probe(ok=False, age_s=301), p.probe(ok=False, age_s=1))),
    ("escalate-agent-down", False, "for 4 min", lambda p: (p.probe(ok=True, age_s=270), p.probe(ok=False, age_s=240))),
    ("escalate-agent-down", False, "well between",
     lambda p: (p.probe(ok=False, age_s=400), p.probe(ok=True, age_s=100), p.probe(ok=False, age_s=10))),
    ("escalate-agent-down", False, "Chatwoot down instead", lambda p: p.probe(ok=False, age_s=600, target="chatwoot")),
    ("escalate-replies-stalled", True, "two dead for 1801 s",
     lambda p: [p.delivery("dead", customer=True, age_s=1_801) for _ in range(2)]),
    ("escalate-replies-stalled", False, "one dead letter", lambda p: p.delivery("dead", customer=True, age_s=9_000)),
    ("escalate-replies-stalled", False, "the second dead for 29 min",
     lambda p: [p.delivery("dead", customer=True, age_s=age_s) for age_s in (9_000, 1_740)]),
    ("escalate-replies-stalled", True, "on its way", lambda p: p.delivery("received", customer=True, age_s=1_801)),
    ("escalate-replies-stalled", False, "for 29 min", lambda p: p.delivery("dead", customer=True, age_s=1_740)),
    ("escalate-replies-stalled", False, "no customer", lambda p: p.delivery("dead", age_s=9_000)),
    ("escalate-replies-stalled", False, "a test", lambda p: p.delivery("dead", customer=True, test=True, age_s=9_000)),
    ("escalate-replies-stalled", False, "delivered", lambda p: p.delivery("delivered", customer=True, age_s=9_000)),
    ("escalate-replies-stalled", False, "discarded", lambda p: p.delivery("discarded", customer=True, age_s=9_000)),
    ("backlog-p1", True, "received 301 s ago", lambda p: p.delivery("received", age_s=301)),
    ("backlog-p1", True, "between attempts", lambda p: p.delivery("waiting", age_s=301)),
    ("backlog-p1", False, "received 299 s ago", lambda p: p.delivery("received", age_s=299)),
    ("backlog-p1", False, "being forwarded", lambda p: p.delivery("forwarding", owner=uuid4(), age_s=301)),
    ("backlog-p1", False, "an operator's hold", lambda p: (p.delivery("received", age_s=301), p.hold())),
    ("facts-aside-p1", True, "one refused", lambda p: p.fact_aside(refused=True)),
    ("facts-aside-p1", True, "one late for 61 s", lambda p: p.fact_aside(refused=False, age_s=61)),
    ("facts-aside-p1", False, "one late for 30 s", lambda p: p.fact_aside(refused=False, age_s=30)),
    ("relay-down", True, "for 11 min", lambda p: p.relay(heartbeat_age_s=660)),
    ("relay-down", False, "30 s ago", lambda p: p.relay(heartbeat_age_s=30)),
    ("relay-down", False, "one of two", lambda p: (p.relay(heartbeat_age_s=600), p.relay(heartbeat_age_s=1))),
    ("no-webhooks-info", True, "241 a day", lambda p: _busy_day(p, 241, last_age_s=1_801)),
    ("no-webhooks-info", False, "240 a day", lambda p: _busy_day(p, 240, last_age_s=1_801)),
    ("no-webhooks-info", False, "29 min ago", lambda p: _busy_day(p, 241, last_age_s=1_740)),
    ("no-webhooks-info", True, "only a test since",
     lambda p: (_busy_day(p, 241, last_age_s=1_801), p.delivery("delivered", test=True, age_s=5))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "fires", "planting"), [(rule, fires, plant) for rule, fires, _, plant in CASES],
    ids=[f"{rule}: {'fires' if fires else 'silent'}, {why}" for rule, fires, why, _ in CASES],
)  # fmt: skip
def test_a_rule_fires_exactly_when_its_condition_holds(
    plant: Plant, rule: str, fires: bool, planting: Callable[[Plant], object]
) -> None:
    plant.rows("BEGIN")  # one now() for all: a minute that begins meanwhile would have the deliveries of another one
    planting(plant)
    plant.rows("COMMIT")
    verdict = verdicts(plant)[rule]
    assert verdict.firing is fires, verdict


def test_every_rule_is_tried_both_ways() -> None:
    assert {(rule, fires) for rule, fires, *_ in CASES} == {
        (rule.name, fires) for rule in RULES for fires in (True, False) if rule.name not in _NEVER_OF_ROWS
    }


def test_no_data_is_no_alert(plant: Plant) -> None:
    assert not any(verdict.firing for verdict in verdicts(plant).values())


def test_a_verdict_says_what_was_measured(plant: Plant) -> None:
    plant.runs(delivered=2, failed=6, attempts=3)
    plant.dead_letters(3)
    measured = {name: verdict.value for name, verdict in verdicts(plant).items()}
    assert (measured["success-rate-p0"], measured["success-rate-critical"]) == (25, 25)
    assert (measured["dlq-p2"], measured["attempts-info"], measured["relay-down"]) == (3, 3, None)


def test_a_quiet_night_with_one_failure_raises_nothing_above_info(plant: Plant) -> None:
    for age_s in (60, 1_900, 20_000):
        plant.rows(_ALL_TABLES)
        plant.relay()
        plant.delivery("dead", customer=True, age_s=age_s)
        plant.runs(failed=1, attempts=3, age_s=age_s)
        plant.dead_letters(1, age_s=age_s)
        firing = {verdict.rule.severity for verdict in verdicts(plant).values() if verdict.firing}
        assert firing <= {Severity.INFO}, age_s


def test_usual_gaps_are_learned_from_the_same_hour_of_the_last_weeks(plant: Plant) -> None:
    def facts(times: str) -> None:
        plant.rows(
            "INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)"
            f""" SELECT 'support.webhook.retry', 'support', '{{"success": true}}', '{{}}', at FROM ({times}) AS t(at)"""
        )

    hour = "date_trunc('hour', now(), 'UTC') - make_interval(hours => 168)"
    facts(f"SELECT {hour} - interval '10 min' + n * interval '4 min' FROM generate_series(0, 19) AS n")
    facts(f"SELECT {hour} - interval '168 hours' - interval '5 hours' UNION SELECT {hour} - interval '160 hours'")

    async def learn() -> float | None:
        parameters = connection_parameters(plant.rows.dsn, "tests")
        async with await psycopg.AsyncConnection.connect(autocommit=True, **parameters) as connection:
            for _ in range(2):
                await traffic.learn_usual_gaps(connection)
            return await traffic.usual_gap_s(connection)

    usual_s = asyncio.run(learn())
    found = plant.rows("SELECT longest_gap_s FROM relay.usual_gaps ORDER BY hour DESC")
    assert found == [240, 13 * 3_600]  # the second of the weeks has a night in this hour
    assert usual_s == 13 * 3_600
