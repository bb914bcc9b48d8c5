"""How long the relay waits between attempts: the runbook's schedule, Retry-After, the cap and the jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.domain.retry import RetryPolicy, retry_after_ms, wait_ms

NOW = datetime(2026, 11, 23, 14, 2, 0, tzinfo=UTC)


@pytest.mark.parametrize(("failed_attempts", "pause_ms"), [(1, 200), (2, 400)])
def test_the_runbooks_waits_are_200_and_400_ms(failed_attempts: int, pause_ms: float) -> None:
    assert wait_ms(RetryPolicy(), failed_attempts, None) == pause_ms


def test_the_runbook_makes_three_attempts() -> None:
    assert RetryPolicy().max_attempts == 3


@pytest.mark.parametrize(
    ("base_delay_ms", "factor", "waits"),
    [
        (200, 2, [200, 400, 800, 1_600]),
        (100, 3, [100, 300, 900, 2_700]),
        (250, 1, [250, 250, 250, 250]),
        (10, 1.5, [10, 15, 22.5, 33.75]),
        (0, 2, [0, 0, 0, 0]),
    ],
)
def test_each_wait_is_the_one_before_times_the_factor(base_delay_ms: float, factor: float, waits: list[float]) -> None:
    policy = RetryPolicy(base_delay_ms=base_delay_ms, factor=factor)
    assert [wait_ms(policy, failed, None) for failed in (1, 2, 3, 4)] == waits


@pytest.mark.parametrize(
    ("asked_ms", "pause_ms"),
    [(None, 200), (0, 200), (199, 200), (200, 200), (201, 201), (1_000, 1_000), (5_000, 5_000), (5_001, 5_000)],
)
def test_a_longer_retry_after_replaces_the_wait_up_to_the_cap(asked_ms: float | None, pause_ms: float) -> None:
    assert wait_ms(RetryPolicy(max_delay_ms=5_000), 1, asked_ms) == pause_ms


@pytest.mark.parametrize(("failed_attempts", "pause_ms"), [(8, 25_600), (9, 30_000), (99, 30_000), (100_000, 30_000)])
def test_the_schedule_itself_stays_under_the_cap(failed_attempts: int, pause_ms: float) -> None:
    assert wait_ms(RetryPolicy(), failed_attempts, None) == pause_ms


@given(st.floats(0, 1), st.integers(1, 12))
def test_jitter_spreads_a_wait_by_no_more_than_its_share(jitter: float, failed_attempts: int) -> None:
    policy = RetryPolicy(jitter=jitter, max_delay_ms=10_000)
    plain = 200 * 2.0 ** (failed_attempts - 1)
    pause_ms = wait_ms(policy, failed_attempts, None)
    assert min(plain * (1 - jitter), 10_000) * 0.999 <= pause_ms <= min(plain * (1 + jitter) * 1.001, 10_000)


def test_jitter_makes_waits_differ_in_both_directions() -> None:
    waits = [wait_ms(RetryPolicy(jitter=0.5), 1, None) for _ in range(200)]
    assert min(waits) < 190
    assert max(waits) > 210


def test_jitter_does_not_shorten_what_the_agent_asked_for() -> None:
    assert {wait_ms(RetryPolicy(jitter=1), 1, 2_000) for _ in range(50)} == {2_000}


@pytest.mark.parametrize(
    ("header", "asked_ms"),
    [
        ("0", 0),
        ("1", 1_000),
        ("120", 120_000),
        (" 3 ", 3_000),
        ("Mon, 23 Nov 2026 14:02:02 GMT", 2_000),
        ("Monday, 23-Nov-26 14:02:30 GMT", 30_000),
        ("Mon Nov 23 14:03:00 2026", 60_000),
        ("Mon, 23 Nov 2026 14:02:00 GMT", 0),
        ("Mon, 23 Nov 2020 14:02:00 GMT", 0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("1 s", None),
        ("\N{ARABIC-INDIC DIGIT ONE}", None),
        ("\N{SUPERSCRIPT TWO}", None),
        ("Mon, 99 Nov 2026 14:02:00 GMT", None),
        ("Mon, 23 Nov 99999 14:02:00 GMT", None),
        (",,,", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(header: str | None, asked_ms: float | None) -> None:
    assert retry_after_ms(header, now=NOW) == asked_ms


@given(st.integers(0, 10**6))
def test_a_retry_after_date_means_what_the_same_seconds_mean(seconds: int) -> None:
    date = (NOW + timedelta(seconds=seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert retry_after_ms(date, now=NOW) == retry_after_ms(str(seconds), now=NOW) == seconds * 1_000


@given(st.text(max_size=40) | st.from_regex(r"[0-9]{1,400}", fullmatch=True))
def test_no_retry_after_makes_a_wait_that_cannot_be_waited(header: str) -> None:
    pause_ms = wait_ms(RetryPolicy(), 1, retry_after_ms(header, now=NOW))
    assert 200 <= pause_ms <= 30_000
