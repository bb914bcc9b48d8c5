"""Breaks or shortens lines that are too long for their room. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from textual.content import Content

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from relay.domain.alerts import Rule

_BEGINNING = re.compile(r"\s*(?:[✓✗?!→▸-] |\d+\. |#+ |\|)?\s*")
_LEAST = 12
_TITLE_EDGE = 4


def hanging(lines: Iterable[Content], width: int) -> list[Content]:
    """Return `lines` as rows of `width` cells. Continuation rows are indented below the text of the first."""
    rows: list[Content] = []
    for line in lines:
        rows += [line] if line.cell_length <= width else _broken(line, width)
    return rows


def _broken(line: Content, width: int) -> list[Content]:
    found = _BEGINNING.match(line.plain)
    indent = min(found.end() if found else 0, max(0, width - _LEAST))
    return in_two_columns(line[:indent], line[indent:], width)


def in_two_columns(head: Content, text: Content, width: int) -> list[Content]:
    """Return `text` to the right of `head` in rows of at most `width` cells, all indented like the first."""
    indent = head.cell_length
    first, *rest = text.wrap(max(1, width - indent)) or [Content("")]
    return [head + first, *(Content(" " * indent) + row for row in rest)]


def flowing(parts: Iterable[Content], width: int, gap: int = 2) -> list[Content]:
    """Return `parts` `gap` cells apart in as few rows of `width` cells as possible; no part is broken."""
    rows: list[Content] = []
    for part in parts:
        if rows and rows[-1].cell_length + gap + part.cell_length <= width:
            rows[-1] = rows[-1] + " " * gap + part
        else:
            rows.append(part)
    return rows


def title_of(width: int, *parts: str, keys: Sequence[str] = ()) -> str:
    """Return a pane's title: as many of `parts` as fit on its edge, the first one always; then as many `keys`."""
    room = width - _TITLE_EDGE
    title = parts[0]
    for part in parts[1:]:
        title += f" ─ {part}" if len(title) + 3 + len(part) <= room else ""
    separator = " ─ "
    for key in keys:
        if len(title) + len(separator) + len(key) <= room:
            title, separator = f"{title}{separator}{key}", ", "
    return title


def shortened(rules: Sequence[Rule], room: int) -> list[str]:
    """Return the conditions of alert rules in at most `room` characters each, in a short form if only that fits.

    Where one of them has `>` in place of "more than", all have.
    """
    wholes = [rule.condition for rule in rules]
    symbols = [whole.replace("for more than", ">").replace("more than", ">") for whole in wholes]
    usual = wholes if all(len(whole) <= room for whole in wholes) else symbols
    return [
        _cut(rule.brief or form if len(form) > room else form, room) for rule, form in zip(rules, usual, strict=True)
    ]


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(0, room - 1)] + "…"
