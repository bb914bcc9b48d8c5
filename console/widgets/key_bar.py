"""The footer: keys and what they do, as far as they fit; a click does the same as the key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content
from textual.message import Message
from textual.widgets import Static

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events


@dataclass(frozen=True, slots=True)
class KeyHint:
    """A key and its label. `key` is Textual's name of it."""

    key: str
    shown: str
    label: str
    is_here: bool = False

    @property
    def content(self) -> Content:
        """The hint as it is drawn."""
        style = "bold reverse" if self.is_here else "$text-muted"
        return Content.assemble((self.shown, "bold $accent"), (f" {self.label}", style))


class KeyBar(Static):
    """One line of hints. It posts `Clicked` with the key."""

    class Clicked(Message):
        """The operator clicked on a hint."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__("", id=id, markup=False)
        self._places: list[tuple[int, int, str]] = []
        self._shown: tuple[KeyHint, ...] = ()

    def show(self, ways: Sequence[KeyHint], hints: Sequence[KeyHint], width: int) -> None:
        """Show `ways`, a bar, and as many of `hints` as fit; the last hint stays longest."""
        kept = list(hints)
        while len(kept) > 1 and self._width(ways, kept) > width:
            kept.pop(-2)
        shown = (*ways, *kept)
        if shown == self._shown:
            return
        self._shown, self._places = shown, []
        line = Content(" ")
        for place, hint in enumerate(shown):
            if place == len(ways) and ways:
                line += Content.styled("│ ", "$text-muted")
            self._places.append((line.cell_length, line.cell_length + hint.content.cell_length, hint.key))
            line += hint.content + (" " if place < len(ways) else "  ")
        self.update(line)

    @staticmethod
    def _width(ways: Sequence[KeyHint], hints: Sequence[KeyHint]) -> int:
        gaps = len(ways) + 2 * len(hints) + (2 if ways else 0) - 1
        return gaps + sum(hint.content.cell_length for hint in (*ways, *hints))

    def on_click(self, event: events.Click) -> None:
        """Post the key that the click is on."""
        key = next((key for first, last, key in self._places if first <= event.x < last), None)
        if key:
            event.stop()
            self.post_message(self.Clicked(key))
