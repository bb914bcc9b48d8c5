"""Deliveries as rows: what is cut where there is little room, and what is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from console.render.rows import ALL_COLUMNS, DEAD_COLUMNS, Column, fitted, header, line
from relay.domain.delivery import State
from relay.domain.retry import Failure, short_status, verdict_of_failure, verdict_of_status
from relay.store.browse import Row
from relay.store.filters import compile_filter

_NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)
_LONGEST = "conversation_status_changed"
IN_80, IN_120 = 79, 82
"""What the list has of screens of 80 and 120 columns; in the wider one a payload stands beside it."""


def drawn(
    columns: tuple[Column, ...],
    width: int,
    *,
    status: str = "connection_reset",
    age: timedelta = timedelta(hours=3),
    error: str | None = None,
) -> str:
    """The header and a row below it."""
    row = Row(
        id=1, delivery_id="01234567-89", state=State.DEAD, run=1, event=_LONGEST, conversation_id="812345", test=False,
        attempts=3, duration_ms=1_234, final_status=status, last_error=error,
        received_at=_NOW - age, finished_at=_NOW - timedelta(minutes=8),
    )  # fmt: skip
    columns = fitted(columns, width)
    both = [header(columns, width), line(row, columns, width, _NOW, {}, marked=False)]
    assert all(one.cell_length <= width for one in both)
    return "\n".join(one.plain for one in both)


@pytest.mark.parametrize(("columns", "width"), [(DEAD_COLUMNS, 90), (ALL_COLUMNS, 160)])
def test_the_longest_event_is_shown_whole(columns: tuple[Column, ...], width: int) -> None:
    shown = drawn(columns, width)
    assert f" {_LONGEST} 812345 " in shown
    assert "…" not in shown


def test_where_it_cannot_it_is_said_in_fewer_letters_and_no_column_is_missing() -> None:
    shown = drawn(ALL_COLUMNS, IN_80)
    assert " conv_status_changed 812345 " in shown
    assert "…" not in shown
    assert all(head in shown for head in ("ID", "AGE", "STATE", "EVENT", "CONV", "TRY", "STATUS", "CAUSE"))
    assert "in 1234 ms" in shown


@pytest.mark.parametrize("columns", [DEAD_COLUMNS, ALL_COLUMNS])
@pytest.mark.parametrize("width", [IN_80, IN_120])
@pytest.mark.parametrize(("answer", "shown"), [(503, "answered 503"), (429, "rate limiting"), (422, "refused payload")])
def test_the_causes_of_an_outage_are_shown_whole(
    columns: tuple[Column, ...], width: int, answer: int, shown: str
) -> None:
    error = verdict_of_status(answer).error
    assert drawn(columns, width, status=str(answer), error=error).rstrip().endswith(f" {answer}     {shown}")


@pytest.mark.parametrize("width", [59, IN_80, IN_120])
def test_among_dead_letters_every_cause_is_shown_whole(width: int) -> None:
    verdicts = [verdict_of_failure(failure, timeout_ms=30_000) for failure in Failure]
    assert [one.error for one in verdicts if "…" in drawn(DEAD_COLUMNS, width, error=one.error)] == []


@pytest.mark.parametrize("status", [*Failure, "503"])
def test_every_status_is_shown_whole_and_can_be_filtered_by_as_shown(status: str) -> None:
    shown = short_status(status)
    assert f" {shown:<7} " in drawn(ALL_COLUMNS, IN_80, status=status)
    assert compile_filter(f"status:{shown}") == compile_filter(f"status:{status}")


def test_what_is_headed_age_is_what_age_filters_by() -> None:
    """Of a letter that was received three hours ago and died eight minutes ago."""
    assert "AGE" in drawn(ALL_COLUMNS, IN_120)
    assert "  3h dead" in drawn(ALL_COLUMNS, IN_120)
    assert "received_at" in compile_filter("age:<4h").sql.as_string()
    dead = drawn(DEAD_COLUMNS, IN_120)
    assert " DIED " in dead
    assert " 8m " in dead
    assert "AGE" not in dead


@pytest.mark.parametrize(
    ("age", "shown"),
    [
        (timedelta(minutes=59), "59m"),
        (timedelta(hours=12, minutes=5), "12h"),
        (timedelta(days=9, hours=9), " 9d"),
        (timedelta(days=12, hours=11), "12d"),
    ],
)
def test_an_age_is_never_cut(age: timedelta, shown: str) -> None:
    assert f" {shown} dead " in drawn(ALL_COLUMNS, IN_80, age=age)
