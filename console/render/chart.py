"""Bars and the success rates of a sparkline, as data and text. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta


def bar(value: float, top: float, width: int) -> str:
    """Return a bar of `value` on a scale from 0 to `top`, at most `width` cells wide."""
    console = Console(file=StringIO(), width=max(1, width), color_system=None, legacy_windows=False)
    lines = console.render_lines(Bar(size=top or 1, begin=0, end=value, width=max(1, width)), pad=False)
    drawn = "".join(segment.text for segment in lines[0]).rstrip()
    return drawn or ("▏" if value else "")


_NOTE_ROOM = 17
_LEAST_CELLS = 40


@dataclass(frozen=True, slots=True)
class Trace:
    """Success rates in percent, oldest first; None where nothing was delivered. Each covers `minutes` minutes."""

    rates: tuple[float | None, ...]
    minutes: int

    @property
    def note(self) -> str:
        """The scale, as text."""
        return f"1 cell = {self.minutes} min"


def resample(minutes: Sequence[tuple[datetime, int, int]], now: datetime, window: timedelta, cells: int) -> Trace:
    """Return the success rates of the last `window` in at most `cells` cells, leaving room for the note if it fits.

    A cell covers one whole minute or more, so no minute is drawn twice. A cell without data is None, not 0 %.
    """
    asked = int(window.total_seconds() // 60)
    room = cells - _NOTE_ROOM if cells >= _LEAST_CELLS else cells
    step = -(-asked // max(1, room))
    totals = [[0, 0] for _ in range(-(-asked // step))]
    for minute, delivered, failed in minutes:
        place = len(totals) - 1 - int((now - minute).total_seconds() // 60) // step
        if 0 <= place < len(totals):
            totals[place][0] += delivered
            totals[place][1] += failed
    return Trace(tuple(100 * good / (good + bad) if good + bad else None for good, bad in totals), step)
