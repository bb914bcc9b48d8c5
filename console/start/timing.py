"""Times a start of the console for `console --timing`: opens it, waits for figures, closes it.

The clock starts with the process: Python's own start and every import count.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from console.app import ConsoleApp

PAINT_GOAL_S, DATA_GOAL_S = 0.6, 0.9
PATIENCE_S = 10.0
_BEGAN = time.monotonic()


def process_age_s() -> float:
    """Return seconds since this process began, to a hundredth; where /proc is missing, since this module was loaded."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _BEGAN


class StartTimer:
    """Times one start of `app`, then ends it. `first_paint_s` and `first_data_s` are seconds; None if not reached."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app
        self.first_paint_s: float | None = None
        self.first_data_s: float | None = None

    def run(self, *, headless: bool) -> None:
        """Open the console, wait until it shows figures, and close it."""
        self._app.run(headless=headless, auto_pilot=self._watch)

    async def _watch(self, pilot: Pilot[Any]) -> None:
        app = pilot.app
        app.call_after_refresh(self._painted)
        try:
            await asyncio.wait_for(self._app.has_figures.wait(), PATIENCE_S)
        except TimeoutError:
            app.exit()
        else:
            (self._app.view or app).call_after_refresh(self._shown)

    def _painted(self) -> None:
        self.first_paint_s = process_age_s()

    def _shown(self) -> None:
        self.first_data_s = process_age_s()
        self._app.exit()

    def lines(self) -> list[str]:
        """Return what was measured, a line each, and why there are no figures if there are none."""
        lines = []
        for name, taken, goal in (
            ("first paint", self.first_paint_s, PAINT_GOAL_S),
            ("first data", self.first_data_s, DATA_GOAL_S),
        ):
            shown = "–" if taken is None else f"{taken:.2f} s"
            lines.append(f"{name:<12} {shown:>7}   goal {goal:.1f} s")
        if self.first_data_s is None:
            trouble = self._app.context.trouble
            reason = "the console was closed" if trouble is None else trouble.reason
            lines.append(f"no figures within {PATIENCE_S:.0f} s: {reason}")
        return lines
