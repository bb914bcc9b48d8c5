"""Figures drawn from tallies: weights, what counts and what does not, and how long failing has lasted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from relay.domain.alerts import Rate
from relay.domain.delivery import FactType
from relay.domain.stats import Tally, failing_since_s, figures

NOW = datetime(2026, 11, 23, 14, 30, 20, tzinfo=UTC)


def tally(
    facts: int, *, kind: FactType = FactType.RETRY, success: bool = True, attempts: int = 1, status: str = "",
    each_ms: int = 0, slot: int = 0,
) -> Tally:  # fmt: skip
    """So many facts that are alike, each of a forwarding time."""
    status = status or ("200" if success else "503")
    return Tally(kind, success, attempts, status, slot, facts, facts * each_ms)


def test_averages_weigh_every_run_alike() -> None:
    found = figures([tally(97, attempts=1, each_ms=100), tally(1, attempts=2, each_ms=500), tally(2, attempts=3)])
    assert found.average_attempts == (97 + 2 + 6) / 100
    assert found.average_ms == (97 * 100 + 500) / 100


def test_the_average_time_is_that_of_the_successful_ones() -> None:
    found = figures([tally(3, each_ms=40), tally(5, success=False, attempts=3, each_ms=90_000)])
    assert found.average_ms == 40


def test_the_histogram_counts_delivered_and_dead_for_each_number_of_attempts() -> None:
    found = figures([
        tally(4, attempts=3, success=False), tally(7), tally(2, attempts=3), tally(1, attempts=3, each_ms=9),
        tally(5, success=False, status="422"),
    ])  # fmt: skip
    assert found.histogram == {1: (7, 5), 3: (3, 4)}
    assert list(found.histogram) == [1, 3]


def test_failures_are_counted_by_final_status_the_most_frequent_first() -> None:
    found = figures([tally(2, success=False, status="429"), tally(9, success=False, status="timeout"), tally(100)])
    assert list(found.failures.items()) == [("timeout", 9), ("429", 2)]


def test_replays_dead_letters_and_rejections_do_not_touch_the_rate() -> None:
    found = figures([
        tally(3), tally(1, success=False),
        tally(8, kind=FactType.REPLAY), tally(2, kind=FactType.REPLAY, success=False),
        tally(6, kind=FactType.DEAD_LETTER, success=False),
        tally(40, kind=FactType.REJECTED, success=False, status="invalid_signature"),
    ])  # fmt: skip
    assert (found.rate, found.replayed, found.dead_letters) == (Rate(3, 1), Rate(8, 2), 6)
    assert (found.rejected, found.failures, found.average_attempts) == ({"invalid_signature": 40}, {"503": 1}, 1)


def test_the_p95_is_in_the_slot_of_the_95th_of_a_hundred() -> None:
    slots = 8  # to a doubling
    found = figures([tally(94, slot=5 * slots), tally(2, slot=7 * slots), tally(4, slot=9 * slots)])
    assert found.p95_ms is not None
    assert 2**7 - 1 <= found.p95_ms <= 2 ** (7 + 1 / slots) - 1


def _minutes(*minutes: tuple[int, int, int]) -> list[tuple[datetime, int, int]]:
    """Minutes as `(minutes ago, delivered, failed)`, oldest first."""
    whole = NOW.replace(second=0)
    return [(whole - timedelta(minutes=ago), delivered, failed) for ago, delivered, failed in minutes]


@pytest.mark.parametrize(
    ("minutes", "since_s"),
    [
        ([], None),
        ([(3, 0, 0)], None),
        ([(3, 7, 3)], None),
        ([(3, 69, 31)], 200),
        ([(40, 0, 1), (3, 0, 1)], 2_420),
        ([(40, 0, 1), (20, 1, 0), (3, 0, 1)], 200),
        ([(40, 0, 1), (20, 0, 0), (3, 0, 1)], 2_420),
        ([(40, 0, 1), (3, 1, 0)], None),
        ([(40, 0, 1), (3, 0, 0)], 2_420),
    ],
)
def test_failing_lasts_since_the_last_minute_that_was_good(
    minutes: list[tuple[int, int, int]], since_s: float | None
) -> None:
    assert failing_since_s(_minutes(*minutes), NOW) == since_s
