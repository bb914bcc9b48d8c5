"""Text from outside, made fit for a terminal or a file of one's own: what is not printable becomes its escape."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""`text` in one line: `\n`, `\x1b`, `\u202e` and their like stand as such."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
