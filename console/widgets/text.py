"""Texts and titles that are not painted again while they stay the same: over a slow link, a repaint is bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from textual.content import Content
from textual.widgets import Static

from console.render.changes import changed_regions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.geometry import Region
    from textual.visual import VisualType
    from textual.widget import Widget


class Text(Static):
    """A `Static` that parses no markup, and of which `update` paints only the cells that have changed."""

    def __init__(
        self,
        content: VisualType = "",
        *,
        id: str | None = None,  # noqa: A002 - Textual's name
        classes: str | None = None,
    ) -> None:
        super().__init__(content, id=id, classes=classes, markup=False)
        self._changed: Sequence[Region] = ()

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        """Show another text. Its place is computed again only if its size depends on what has changed."""
        before = self.content
        if isinstance(content, Content) and isinstance(before, Content):
            if content.is_same(before):
                return
            found = changed_regions(before, content, self.content_size.width)
            if found == []:
                return
            depends_on_text = found is None or self.styles.is_auto_width
            layout = (
                layout
                and depends_on_text
                and (_lengths(content) != _lengths(before) or self._rows(content) != self._rows(before))
            )
            self._changed = () if layout else found or ()
        try:
            super().update(content, layout=layout)
        finally:
            self._changed = ()

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        """Paint `regions`, or what `update` has changed, or all of it."""
        return super().refresh(*(regions or self._changed), repaint=repaint, layout=layout, recompose=recompose)

    def _rows(self, content: Content) -> int:
        """Return how many rows the text takes: lines of equal lengths may break at other words."""
        width = self.content_size.width
        return len(content.wrap(width)) if width else 0


def _lengths(content: Content) -> list[int]:
    return [line.cell_length for line in content.split("\n", allow_blank=True)]


def entitle(pane: Widget, title: str) -> None:
    """Give `pane` another title, which is not parsed as markup.

    Textual paints a pane and all in it whenever its title is set, so the same one is not set again.
    """
    content = Content(title)
    if pane.border_title != content.markup:
        pane.border_title = content
