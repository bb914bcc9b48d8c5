"""Breaks or shortens lines that are too long for their room. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from textual.content import Content

if TYPE_CHECKING:
    from collections.abc import Iterable

_BEGINNING = re.compile(r"\s*(?:[✓✗?!→▸-] |\d+\. |#+ |\|)?\s*")
_LEAST = 12


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


def flowing(parts: Iterable[Content], width: int) -> list[Content]:
    """Return `parts` two cells apart in as few rows of `width` cells as possible; no part is broken."""
    rows: list[Content] = []
    for part in parts:
        if rows and rows[-1].cell_length + 2 + part.cell_length <= width:
            rows[-1] = rows[-1] + "  " + part
        else:
            rows.append(part)
    return rows


def shortened(condition: str, room: int) -> str:
    """Return an alert rule's condition in at most `room` characters, with its threshold if that fits."""
    if len(condition) > room:
        condition = condition.replace("for more than", ">").replace("more than", ">")
    return condition if len(condition) <= room else condition[: max(0, room - 1)] + "…"
