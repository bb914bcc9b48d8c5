"""The text of what a screen shows, whole: every row of its lists, also those out of sight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from console.widgets.lines import LineList

if TYPE_CHECKING:
    from textual.widget import Widget

_ESCAPED = "\\["
"""A bracket in a title, as Textual returns it."""


def text_of(body: Widget) -> str:
    """Return titles, texts and rows of the visible widgets in `body`, in their order."""
    parts: list[str] = []
    for widget in body.walk_children():
        if not all(one.display for one in (widget, *widget.ancestors_with_self) if hasattr(one, "display")):
            continue
        title = getattr(widget, "border_title", None)
        if title:
            parts += ["", f"── {title.replace(_ESCAPED, '[')} ──"]
        if isinstance(widget, LineList):
            parts += widget.texts
        elif isinstance(widget, Static) and isinstance(widget.content, Content | str):
            parts.append(widget.content.plain if isinstance(widget.content, Content) else widget.content)
    return "\n".join(parts).strip("\n") + "\n"
