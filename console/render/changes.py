"""Finds the cells in which two texts differ, so that only those are painted. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.geometry import Region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.content import Content


def changed_regions(before: Content, after: Content, width: int) -> list[Region] | None:
    """Return where two texts of several lines differ, a region for each line that does; None if all is to be painted.

    That is so if they have not as many lines, or a line is longer than `width` cells: it is wrapped or cut.
    A line has one region only, because Textual (8.2) paints each from the line's beginning on.
    """
    old, new = before.split("\n", allow_blank=True), after.split("\n", allow_blank=True)
    if len(old) != len(new) or any(line.cell_length > width for line in (*old, *new)):
        return None
    differ = [(y, was, now) for y, (was, now) in enumerate(zip(old, new, strict=True)) if not now.is_same(was)]
    return [region for y, was, now in differ if (region := _changed(was, now, y)) is not None]


def _changed(before: Content, after: Content, y: int) -> Region | None:
    """Return the cells of one line from the first that differs to the last."""
    old, new = list(_cells(before)), list(_cells(after))
    length = max(len(old), len(new))
    old += [None] * (length - len(old))
    new += [None] * (length - len(new))
    places = [place for place, (was, now) in enumerate(zip(old, new, strict=True)) if was != now]
    return Region(places[0], y, places[-1] + 1 - places[0], 1) if places else None


def _cells(line: Content) -> Iterator[tuple[str, tuple[object, ...]] | None]:
    """Yield each cell's character and styles. The second cell of a wide character has the same ones."""
    plain = line.plain
    styles: list[tuple[object, ...]] = [()] * len(plain)
    for span in line.spans:
        for place in range(span.start, min(span.end, len(plain))):
            styles[place] = (*styles[place], span.style)
    for character, style in zip(plain, styles, strict=True):
        for _ in range(cell_len(character)):
            yield character, style
