"""Draws how deliveries are spread over events and inboxes, a line each. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content

from console.render.chart import bar
from console.render.formatting import brief_event
from relay.domain.format import DASH, clipped, milliseconds, percent
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.store.breakdown import Share

_MUTED = "$text-muted"
_NAME, _LEAST_NAME, _BAR = 30, 20, 16


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: its head, its text and style. Those that are worth `least` go first where there is no room."""

    head: str
    width: int
    text: Callable[[Share], str]
    style: Callable[[Share], str]
    least: int = 0


def _count(head: str, width: int, number: Callable[[Share], int], style: str, least: int = 0) -> _Column:
    """Return the column of a number, which is muted while it is 0."""
    return _Column(
        head, width, lambda share: f"{number(share):,}", lambda share: style if number(share) else _MUTED, least
    )


def _rate(share: Share) -> str:
    finished = share.delivered + share.dead
    return percent(100 * share.delivered / finished if finished else None)


_COLUMNS = (
    _count("ALL", 6, lambda share: share.total, ""),
    _count("DELIVERED", 9, lambda share: share.delivered, "$text-success"),
    _count("DEAD", 5, lambda share: share.dead, "$text-error bold"),
    _count("WAIT", 5, lambda share: share.waiting, "$text-warning"),
    _count("DISCARDED", 9, lambda share: share.discarded, "", 3),
    _count("IGNORED", 7, lambda share: share.ignored, ""),
    _Column("SUCCESS", 8, _rate, lambda _: "", 1),
    _Column("AVG", 8, lambda share: milliseconds(share.average_ms), lambda _: _MUTED, 2),
)


def header(what: str, width: int) -> Content:
    """Return the header of a list whose first column is `what`."""
    columns, name_width, _ = _fitted(width)
    heads = " ".join(f"{column.head:>{column.width}}" for column in columns)
    return Content(f" {what:<{name_width}} {heads}")


def share_line(share: Share, largest: int, width: int) -> Content:
    """Return one share as a line; its bar compares it with the `largest` one."""
    columns, name_width, has_bar = _fitted(width)
    cells = [Content.styled(f"{column.text(share):>{column.width}}", column.style(share)) for column in columns]
    line = Content(" ").join([Content.styled(f" {_name(share, name_width)}", "bold"), *cells])
    if has_bar:
        line += Content.styled(f"  {bar(share.total, largest, _BAR)}", "$primary")
    return line


def _fitted(width: int) -> tuple[list[_Column], int, bool]:
    """Return the columns that fit, how wide the name is, and whether there is room for the bar."""
    columns = list(_COLUMNS)
    while (taken := 1 + sum(column.width + 1 for column in columns)) + _LEAST_NAME > width:
        worth = max(column.least for column in columns)
        if not worth:
            break
        columns = [column for column in columns if column.least != worth]
    name_width = max(8, min(_NAME, width - taken))
    return columns, name_width, width - taken - name_width >= _BAR + 2


def _name(share: Share, width: int) -> str:
    name = clean(share.name, limit=None) or DASH
    if share.is_inbox and share.title:
        name = f"{name} {' '.join(clean(share.title, limit=None).split())}"
    elif len(name) > width:
        name = brief_event(name)
    shown = Content(clipped(name, width)).truncate(width, ellipsis=True)
    return shown.plain + " " * (width - shown.cell_length)
