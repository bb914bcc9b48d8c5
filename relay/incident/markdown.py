"""Markdown of reports: sections, lists, tables, and text from outside that marks nothing up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

_TEXT_CHARS = 300


_MARKS = re.compile(r"[\\`*\[\]|]|^[>#]|<(?=[A-Za-z/!?])|>(?<=\S>)")
"""What marks text up: `<` before what may be a tag, `>` after one, and `>` and `#` at the beginning."""


def text(given: str) -> str:
    """`given` from outside as text in Markdown: one line, nothing in it marks anything up."""
    shown = clean(given, limit=_TEXT_CHARS).lstrip()
    return _MARKS.sub(r"\\\g<0>", shown)


def section(title: str, lines: str | list[str]) -> str:
    """A section of the third level."""
    return f"### {title}\n\n" + (lines if isinstance(lines, str) else "\n".join(lines))


def bullets(items: Iterable[str]) -> str:
    """A list; its items are Markdown."""
    return "\n".join(f"- {item}" for item in items)


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    """A table, a line each; its cells are text from outside."""
    return [
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *("| " + " | ".join(text(str(cell)) for cell in row) + " |" for row in rows),
    ]
