"""The console's colour themes, its stylesheet, and the filter that draws with ASCII alone. No widget."""

from __future__ import annotations

import colorsys
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual.css.stylesheet import Stylesheet
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
"""Only colours of the 256-colour cube, so that 256-colour terminals show the same ones."""

COLOURS = tuple(name for name in THEMES[0] if name not in {"name", "variables", "dark"})
"""The colours that a theme names."""
VARIABLES = tuple(THEMES[0]["variables"])
"""The colours that the console's style sheet needs besides."""

_ALIKE = {
    "▌": "|", "▎": "|", "▏": "|", "▕": "|", "▔": "-", "▁": "_", "▂": "_", "▃": ".", "▄": "-", "▅": "=", "▆": "=",
    "▍": "|", "▐": "|", "▀": "-", "░": ".", "▒": ":",
    "▲": "!", "◆": "!", "◈": "!", "‼": "!", "●": "*", "▪": "*", "·": ".", "◉": "o", "■": "x", "▸": ">", "→": ">",
    "←": "<", "✓": "+", "✗": "x", "…": ".", "–": "-", "—": "-", "×": "x", "−": "-", "↑": "^", "↓": "v", "⏎": "<",
    "⌫": "<",
    "▶": ">", "►": ">", "▷": ">", "▹": ">", "‣": ">", "◀": "<", "◄": "<", "◁": "<", "◂": "<", "▼": "v", "▾": "v",
    "▽": "v", "△": "^", "▴": "^", "•": "*", "◦": "o", "○": "o", "⭘": "o", "◯": "o", "⭑": "*", "★": "*", "✔": "+",
    "✕": "x", "✖": "x", "⚠": "!", "🔎": "/", "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip
_PICTURE = "^"  # of a control character, as `relay.text.clean` shows it


class AsciiFilter(LineFilter):
    """Replaces known glyphs by similar ASCII, any other character by one question mark a cell."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 - Textual's interface
        """Return `segments` in ASCII, with unchanged widths."""
        return [
            segment if segment.control else Segment(ascii_of(segment.text, segment.cell_length), segment.style)
            for segment in segments
        ]


def ascii_of(text: str, cells: int) -> str:
    """Return `text` in ASCII, `cells` cells wide."""
    if text.isascii():
        return text
    return "".join(map(_alike, text)).ljust(cells, "?")[:cells]


@cache
def _alike(character: str) -> str:
    """Return similar ASCII of the same width; one question mark a cell if there is none."""
    if character.isascii():
        return character
    width = cell_len(character)
    glyph = _ALIKE.get(character) or _of_its_kind(character)
    return (glyph or "?" * width).ljust(width) if width else ""


def _of_its_kind(character: str) -> str | None:
    """Return the ASCII for a line, block, control picture or braille character; None for any other."""
    code = ord(character)
    if 0x2500 <= code < 0x2580:  # lines, by what Unicode's name for them says
        words = set(unicodedata.name(character).split())
        if "DIAGONAL" in words:
            return {"╱": "/", "╲": "\\"}.get(character, "X")
        across, upright = words & {"HORIZONTAL", "LEFT", "RIGHT"}, words & {"VERTICAL", "UP", "DOWN"}
        return "+" if across and upright else "-" if across else "|"
    if 0x2580 <= code < 0x2600:  # blocks and geometric shapes
        return "#"
    if 0x2400 <= code < 0x2440:
        return _PICTURE
    return "." if 0x2800 <= code < 0x2900 else None


_BLACK, _RED, _GREEN, _YELLOW, _BLUE, _MAGENTA, _CYAN, _WHITE, _GREY = range(9)
_HUES = ((20, _RED), (72, _YELLOW), (165, _GREEN), (235, _CYAN), (270, _BLUE), (330, _MAGENTA), (361, _RED))
_LEAST_SATURATION = 0.22
_DARK = {_RED, _GREY, _CYAN, _BLUE, _MAGENTA}
_UNREADABLE_ON = {
    _WHITE: {_YELLOW, _GREEN, _CYAN, _BLUE, _GREY},
    _BLUE: {*_DARK, _GREEN},
    **dict.fromkeys((_RED, _MAGENTA, _GREY), _DARK),
    **{light: {*_DARK, _WHITE} for light in (_GREEN, _YELLOW, _CYAN)},
}
"""Colours of text that are hard to read on a background, by the background."""
_GROUNDS_ON_WHITE = {_YELLOW, _GREEN}
"""Hues that mean something but are hard to read on white: they become the ground of black text."""


class SixteenColours(LineFilter):
    """Draws with the eight ANSI colours and bold: Textual's nearest ones make a pale red white."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 - Textual's interface
        """Return `segments` with each colour replaced by the ANSI colour of its hue."""
        return [
            segment if segment.control or segment.style is None else Segment(segment.text, _in_sixteen(segment.style))
            for segment in segments
        ]


@cache
def _in_sixteen(style: Style) -> Style:
    below = _BLACK if style.bgcolor is None else _ansi_background(style.bgcolor)
    above = _WHITE if style.color is None else _ansi_foreground(style.color)
    if below == _WHITE and above in _GROUNDS_ON_WHITE:
        above, below = _BLACK, above
    elif above == below or above in _UNREADABLE_ON.get(below, ()):
        above = _BLACK if below in {_GREEN, _YELLOW, _CYAN, _WHITE} else _WHITE
    ground = RichColor.default() if below == _BLACK else RichColor.from_ansi(below)
    return style + Style.from_color(RichColor.from_ansi(above), ground)


def _ansi_foreground(color: RichColor) -> int:
    hue, lightness = _hue_of(color)
    if hue is not None:
        return hue
    return _BLACK if lightness < 0.2 else _GREY if lightness < 0.45 else _WHITE


def _ansi_background(color: RichColor) -> int:
    """Return a dark ground as black, a panel's grey as blue; a tint counts however dark it is."""
    hue, lightness = _hue_of(color)
    if hue is not None and lightness > 0.12:
        return _BLUE if hue == _CYAN else hue
    return _BLACK if lightness < 0.17 else _BLUE if lightness < 0.6 else _WHITE


def _hue_of(color: RichColor) -> tuple[int | None, float]:
    """Return the ANSI colour of a colour's hue, None for a grey; and its lightness."""
    if color.is_default:
        return None, 0.0
    red, green, blue = (part / 255 for part in color.get_truecolor())
    hue, lightness, _ = colorsys.rgb_to_hls(red, green, blue)
    top = max(red, green, blue)
    if not top or (top - min(red, green, blue)) / top < _LEAST_SATURATION:
        return None, lightness
    return next(number for limit, number in _HUES if hue * 360 < limit), lightness


class ThemedStylesheet(Stylesheet):
    """A stylesheet that is parsed again only after a change of theme.

    Textual (8.2) parses all rules again for each screen that it builds, about 40 ms each, though no variable changed.
    """

    def __init__(self, *, variables: dict[str, str]) -> None:
        super().__init__(variables=variables)
        self._given = dict(variables)
        self._parsed_with: dict[str, str] | None = None

    def set_variables(self, variables: dict[str, str]) -> None:
        """Take the variables of a theme."""
        if variables != self._given:
            self._given = dict(variables)
            super().set_variables(variables)

    def reparse(self) -> None:
        """Parse all rules with the variables, unless they are those of the last time."""
        if self._parsed_with != self._given:
            super().reparse()
            self._parsed_with = self._given
