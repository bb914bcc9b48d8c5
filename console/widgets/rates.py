"""A sparkline of success rates: Textual's own, on a scale that always reaches from 0 to 100 %."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Container
from textual.widgets import Sparkline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual.app import ComposeResult


class RateSparkline(Container):
    """One cell a stretch of time. `show` takes what gives the rates (percent) for a number of cells."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._rates: Callable[[int], Sequence[float]] = lambda _: ()

    def compose(self) -> ComposeResult:
        """The sparkline, which begins where the rates do."""
        yield Sparkline([], summary_function=_last)

    def show(self, rates: Callable[[int], Sequence[float]]) -> None:
        """Show `rates(cells)`, oldest first."""
        self._rates = rates
        self._fit()

    def on_resize(self) -> None:
        """As many cells as there are now."""
        self._fit()

    def _fit(self) -> None:
        """Each cell's bucket holds its rate three times; the first one 0 and 100 as well, which set the scale.

        The time before the first rate stays empty.
        """
        cells = max(1, self.size.width)
        rates = self._rates(cells)
        sparkline = self.query_one(Sparkline)
        sparkline.styles.margin = (0, 0, 0, max(0, cells - len(rates)))
        anchored = [value for rate in rates for value in (rate, rate, rate)]
        sparkline.data = [0.0, 100.0, *anchored[2:]] if anchored else []


def _last(bucket: Sequence[float]) -> float:
    return bucket[-1]
