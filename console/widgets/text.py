"""Texts and titles that are not painted again while they stay the same: over a slow link, a repaint is bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

if TYPE_CHECKING:
    from textual.visual import VisualType
    from textual.widget import Widget


class Text(Static):
    """A `Static` that parses no markup, and that `update` paints only if the text has changed."""

    def __init__(
        self,
        content: VisualType = "",
        *,
        id: str | None = None,  # noqa: A002 - Textual's name
        classes: str | None = None,
    ) -> None:
        super().__init__(content, id=id, classes=classes, markup=False)

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        """Show another text. Its place is computed again only if a line has another length, or wraps to more rows."""
        before = self.content
        if isinstance(content, Content) and isinstance(before, Content):
            if content.is_same(before):
                return
            layout = layout and (_lengths(content) != _lengths(before) or self._rows(content) != self._rows(before))
        super().update(content, layout=layout)

    def _rows(self, content: Content) -> int:
        """Return how many rows the text takes: lines of equal lengths may break at other words."""
        width = self.content_size.width
        return len(content.wrap(width)) if width else 0


def _lengths(content: Content) -> list[int]:
    return [line.cell_length for line in content.split("\n", allow_blank=True)]


def entitle(pane: Widget, title: str) -> None:
    """Give `pane` another title. Textual paints a pane and all in it whenever its title is set, so not the same one."""
    if pane.border_title != title:
        pane.border_title = title
