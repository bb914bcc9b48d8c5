"""Draws how deliveries are spread over events and inboxes, a line each. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from console.render.chart import bar
from relay.domain.format import DASH, clipped, milliseconds, percent
from relay.text import clean

if TYPE_CHECKING:
    from relay.store.breakdown import Share

_MUTED = "$text-muted"
_NAME, _NARROW_NAME, _BAR = 30, 24, 16
_LEAST_WITH_BAR = 90


def header(what: str, width: int) -> Content:
    """Return the header of a list whose first column is `what`."""
    return Content(
        f" {what:<{_name_width(width)}} {'ALL':>7} {'DELIVERED':>10} {'DEAD':>6} {'WAIT':>6} {'SUCCESS':>8} {'AVG':>8}"
    )


def share_line(share: Share, largest: int, width: int) -> Content:
    """Return one share as a line; its bar compares it with the `largest` one."""
    finished = share.delivered + share.dead
    rate = 100 * share.delivered / finished if finished else None
    line = Content.assemble(
        (f" {_name(share, _name_width(width))} ", "bold"),
        f"{share.total:>7,} ",
        (f"{share.delivered:>10,} ", "$text-success" if share.delivered else _MUTED),
        (f"{share.dead:>6,} ", "$text-error bold" if share.dead else _MUTED),
        (f"{share.waiting:>6,} ", "$text-warning" if share.waiting else _MUTED),
        (f"{percent(rate):>8} ", ""),
        (f"{milliseconds(share.average_ms):>8}", _MUTED),
    )
    if width >= _LEAST_WITH_BAR:
        line += Content.styled(f"  {bar(share.total, largest, _BAR)}", "$primary")
    return line


def _name_width(width: int) -> int:
    return _NAME if width >= _LEAST_WITH_BAR else _NARROW_NAME


def _name(share: Share, width: int) -> str:
    name = clean(share.name, limit=None) or DASH
    if share.is_inbox and share.title:
        name = f"{name} {' '.join(clean(share.title, limit=None).split())}"
    shown = Content(clipped(name, width)).truncate(width, ellipsis=True)
    return shown.plain + " " * (width - shown.cell_length)
