"""A scroll of text that breaks its lines to its width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from console.render.wrapping import hanging
from console.widgets.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult


class Report(VerticalScroll):
    """`text` until `show` is called."""

    DEFAULT_CSS = "Report { height: 1fr; padding: 0 1; scrollbar-gutter: stable; }"

    def __init__(self, text: str, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._lines: Sequence[Content] = [Content(text)]

    def compose(self) -> ComposeResult:
        """One text."""
        yield Text(Content("\n").join(self._lines), id="report-text")

    def show(self, lines: Sequence[Content]) -> None:
        """Show other lines."""
        self._lines = lines
        self._break_lines()

    def on_resize(self) -> None:
        """Break the lines to the new width."""
        self._break_lines()

    def _break_lines(self) -> None:
        width = self.scrollable_content_region.width or max(1, self.app.size.width - 3)
        self.query_one("#report-text", Static).update(Content("\n").join(hanging(self._lines, width)))
