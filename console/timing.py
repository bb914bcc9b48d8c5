"""How long the console takes to be of use: `console --timing` opens it, waits for figures, closes it and says.

The clock starts with the process, so that Python's own start and every import are in it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from console.app import ConsoleApp

if TYPE_CHECKING:
    from console.data.snapshot import Snapshot

PAINT_GOAL_S, DATA_GOAL_S = 0.6, 0.9
PATIENCE_S = 10.0
_BEGAN = time.monotonic()


def process_age_s() -> float:
    """Seconds since this process began, to a hundredth; since this module was loaded where /proc does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _BEGAN


class TimedConsole(ConsoleApp):
    """Notes when it was painted first, and when with figures; then ends."""

    first_paint_s: float | None = None
    first_data_s: float | None = None

    def on_mount(self) -> None:
        """Begin, and give up after a while."""
        super().on_mount()
        self.call_after_refresh(self._painted)
        self.set_timer(PATIENCE_S, self.exit)

    def _painted(self) -> None:
        self.first_paint_s = process_age_s()

    def show(self, snapshot: Snapshot) -> None:
        """The first figures are the end of it."""
        super().show(snapshot)
        if self.view is not None and self.first_data_s is None:
            self.view.call_after_refresh(self._shown)

    def _shown(self) -> None:
        self.first_data_s = process_age_s()
        self.exit()

    def told(self) -> tuple[list[str], bool]:
        """What was measured as lines, and whether there was something to measure."""
        lines = []
        for name, taken, goal in (
            ("first paint", self.first_paint_s, PAINT_GOAL_S),
            ("first data", self.first_data_s, DATA_GOAL_S),
        ):
            shown = "–" if taken is None else f"{taken:.2f} s"
            lines.append(f"{name:<12} {shown:>7}   goal {goal:.1f} s")
        if self.first_data_s is None:
            lines.append(f"no figures within {PATIENCE_S:.0f} s: {self.trouble or 'the console was closed'}")
        return lines, self.first_data_s is not None
