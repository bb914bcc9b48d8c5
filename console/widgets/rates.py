"""A sparkline of success rates on a fixed scale from 0 to 100 %, with gaps where there is no data."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.content import Content
from textual.style import Style
from textual.widget import Widget

if TYPE_CHECKING:
    from collections.abc import Callable

    from console.render.chart import Trace

BARS = "▁▂▃▄▅▆▇█"
NOTHING = " "
"""No data is not 0 %: the cell differs from a bar even without colours."""


class RateSparkline(Widget):
    """One cell a period, the newest at the right. `show` takes a function from a number of cells to their rates."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"sparkline--max-color", "sparkline--min-color"}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._rates: Callable[[int], Trace] | None = None
        self._shown: Trace | None = None

    def show(self, rates: Callable[[int], Trace]) -> None:
        """Show `rates(cells)`."""
        self._rates = rates
        trace = rates(self.size.width) if self.size.width else None
        if trace is None or trace != self._shown:
            self._shown = trace
            self.refresh()

    def render(self) -> Content:
        """Return the scale, if there is room for it, then the rates."""
        cells = self.size.width
        if self._rates is None or not cells:
            return Content("")
        trace = self._rates(cells)
        shown = Content("").join(map(self._cell, trace.rates[-cells:]))
        left = cells - len(trace.rates)
        note = trace.note if len(trace.note) + 2 <= left else ""
        return Content.styled(f"{note:<{max(0, left)}}", "$text-muted") + shown

    def _cell(self, rate: float | None) -> Content:
        if rate is None:
            return Content.styled(NOTHING, "$text-muted")
        _, base = self.background_colors
        worst = base + self.get_component_styles("sparkline--min-color").color
        best = base + self.get_component_styles("sparkline--max-color").color
        bar = BARS[int(rate / 100 * (len(BARS) - 1))]
        return Content.styled(bar, Style(foreground=worst.blend(best, rate / 100)))
