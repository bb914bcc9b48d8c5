"""How the console looks: its themes, and the same in ASCII. No widget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.segment import Segment
from textual.filter import LineFilter

if TYPE_CHECKING:
    from textual.color import Color

DEFAULT = "hotdash"

THEMES: list[dict[str, Any]] = [
    {
        "name": "hotdash",
        "primary": "#5fafd7",
        "secondary": "#87afaf",
        "accent": "#87d7ff",
        "warning": "#ffaf5f",
        "error": "#ff5f5f",
        "success": "#5fd787",
        "foreground": "#d0d0d0",
        "background": "#121212",
        "surface": "#1c1c1c",
        "panel": "#303030",
        "variables": {"text-muted": "#8a8a8a", "rule": "#4e4e4e"},
        "dark": True,
    },
    {
        "name": "hotdash-light",
        "primary": "#005f87",
        "secondary": "#3a6363",
        "accent": "#005faf",
        "warning": "#af5f00",
        "error": "#af0000",
        "success": "#00702f",
        "foreground": "#262626",
        "background": "#ffffff",
        "surface": "#f4f4f4",
        "panel": "#d7d7d7",
        "variables": {"text-muted": "#626262", "rule": "#a8a8a8"},
        "dark": False,
    },
    {
        "name": "hotdash-contrast",
        "primary": "#00ffff",
        "secondary": "#00ffff",
        "accent": "#00ffff",
        "warning": "#ffff00",
        "error": "#ff8787",
        "success": "#00ff5f",
        "foreground": "#ffffff",
        "background": "#000000",
        "surface": "#000000",
        "panel": "#444444",
        "variables": {"text-muted": "#bcbcbc", "rule": "#8a8a8a"},
        "dark": True,
    },
]
"""Colours of the 256-colour cube, so that they look the same where there are no others."""

_ASCII = str.maketrans(
    {
        "─": "-", "│": "|", "┌": "+", "┐": "+", "└": "+", "┘": "+", "├": "+", "┤": "+", "┬": "+", "┴": "+",
        "▌": "|", "▎": "|", "▏": "|", "▕": "|", "▔": "-", "▁": "_", "▂": "_", "▃": ".", "▄": "-", "▅": "=", "▆": "=",
        "▇": "#", "█": "#", "▉": "#", "▊": "#", "▋": "#", "▍": "|", "▐": "|", "▀": "-",
        "░": ".",
        "▲": "!", "◆": "!", "‼": "!", "●": "*", "▪": "*", "·": ".", "◉": "o", "■": "x", "▸": ">", "→": ">", "←": "<",
        "✓": "+", "✗": "x", "…": ".", "–": "-", "×": "x", "−": "-", "↑": "^", "↓": "v",
    }
)  # fmt: skip


class AsciiFilter(LineFilter):
    """Draws with ASCII alone: known glyphs by their like, whatever else by a question mark a cell."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 - Textual's interface
        """`segments` with nothing but ASCII in them, as wide as before."""
        return [
            segment if segment.control else Segment(_ascii(segment.text, segment.cell_length), segment.style)
            for segment in segments
        ]


def _ascii(text: str, cells: int) -> str:
    if text.isascii():
        return text
    plain = "".join(c if ord(c) < 128 else "?" for c in text.translate(_ASCII))
    return plain.ljust(cells, "?")[:cells]
