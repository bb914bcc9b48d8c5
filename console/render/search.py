"""Searches a text on the screen: finds matches, highlights them, and returns the row of a match. Pure."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from textual.content import Content, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 2_000
"""At most so many matches of one text are returned."""

Place = tuple[int, int]
"""Start and end of a match, in characters."""


def places(text: str, wanted: str) -> list[Place]:
    """Return the first `MOST` places where `text` contains `wanted`; case is ignored."""
    pattern = re.compile(re.escape(wanted), re.IGNORECASE)
    return [match.span() for match in islice(pattern.finditer(text), MOST)] if wanted else []


def highlighted(content: Content, found: Sequence[Place], current: Place | None) -> Content:
    """Return `content` with the places `found` in reverse video, the `current` one underlined as well."""
    spans = [Span(*place, "bold reverse underline" if place == current else "reverse") for place in found]
    return content.add_spans(spans)


def row_of(text: str, place: Place, width: int) -> int:
    """Return the row, from 0, of `place` when `text` is wrapped to `width` cells."""
    *above, line = text[: place[0]].split("\n")
    rest_of_word = re.compile(r"\S*").match(text, place[1])
    to = rest_of_word.end() if rest_of_word else place[1]
    line += text[place[0] : to].partition("\n")[0]
    return sum(_rows(one, width) for one in above) + _rows(line, width) - 1


def _rows(line: str, width: int) -> int:
    content = Content(line)
    return 1 if content.cell_length <= width else len(content.wrap(max(1, width)))
