"""Draws lines of the forwarding log when they come into sight. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from textual.content import Content

from console.render.line import Line
from relay.domain.format import exact_clock
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from console.data.log_entry import Entry

_LEVELS = {"warning": ("! ", "$text-warning"), "error": ("✗ ", "$text-error")}
_MUTED = "$text-muted"


def draw(entry: Entry, *, width: int = 0) -> Content:
    """Return the line in the runbook's form, with its time, cut to `width` cells unless that is 0."""
    glyph, style = _LEVELS.get(entry.level, ("  ", ""))
    reference = "" if entry.delivery_id is None else f"{clean(entry.delivery_id[:8])}  "
    content = Content.assemble(
        (f"{exact_clock(entry.at)} ", _MUTED),
        (glyph, style),
        (reference, "$text-accent"),
        (entry.message, style),
        (f"  {entry.details}" if entry.details else "", _MUTED),
    )
    return content.truncate(width, ellipsis=True) if width else content


class DrawnLines(Sequence[Line]):
    """`entries`, by ascending id, as rows. Each row is drawn when the list asks for it."""

    def __init__(self, entries: Sequence[Entry], draw_one: Callable[[Entry], Content]) -> None:
        self._entries = entries
        self._draw = draw_one

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Line]: ...
    def __getitem__(self, index: int | slice) -> Line | Sequence[Line]:
        if isinstance(index, slice):
            return DrawnLines(self._entries[index], self._draw)
        entry = self._entries[index]
        return Line(entry.id, self._draw(entry))
