"""The sparkline: whole minutes a cell, none drawn twice, and a gap where 0 of 0 is not 0 %."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from textual.app import App

from console.render.chart import resample
from console.widgets.rates import RateSparkline

if TYPE_CHECKING:
    from textual.app import ComposeResult

NOW = datetime(2026, 11, 22, 14, 31, 7, tzinfo=UTC)
MINUTE = NOW.replace(second=0)
HOUR = timedelta(hours=1)


def ago(minutes: int) -> datetime:
    return MINUTE - timedelta(minutes=minutes)


def test_a_minute_without_traffic_is_no_rate() -> None:
    trace = resample([(ago(3), 0, 4), (ago(1), 3, 1)], NOW, timedelta(minutes=5), 30)
    assert trace.rates == (None, 0.0, None, 75.0, None)


@pytest.mark.parametrize(
    ("window_min", "cells", "shown", "step"),
    [(15, 57, 15, 1), (60, 57, 30, 2), (60, 90, 60, 1), (60, 30, 30, 2), (360, 57, 40, 9), (1440, 57, 40, 36)],
)
def test_a_cell_is_of_whole_minutes(window_min: int, cells: int, shown: int, step: int) -> None:
    trace = resample([], NOW, timedelta(minutes=window_min), cells)
    assert (len(trace.rates), trace.note) == (shown, f"1 cell = {step} min")


def test_what_is_older_than_the_window_is_left_out() -> None:
    trace = resample([(ago(60), 0, 5), (ago(59), 5, 0)], NOW, HOUR, 90)
    assert trace.rates == (100.0, *[None] * 59)


class Shown(App[None]):
    def compose(self) -> ComposeResult:
        yield RateSparkline(id="sparkline")


async def test_no_data_differs_from_0_percent_and_the_scale_is_shown() -> None:
    app = Shown()
    async with app.run_test(size=(60, 3)):
        sparkline = app.query_one(RateSparkline)
        minutes = [(ago(4), 5, 0), (ago(3), 0, 5), (ago(1), 1, 1)]
        sparkline.show(lambda cells: resample(minutes, NOW, timedelta(minutes=6), cells))
        assert sparkline.render().plain == f"{'1 cell = 1 min':<54} █▁ ▄ "
