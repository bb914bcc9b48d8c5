"""The choice of the columns of a list: each is shown or hidden by its number, and remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from console.render.rows import choosable, columns_of, usual
from console.widgets.prompt import Kind, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from console.flows.host import Host
    from console.render.rows import Column


class ColumnChoice:
    """The columns of the list at `place` of the key map. `when_chosen` is called after each change."""

    def __init__(self, host: Host, place: str, *, is_dead: bool, when_chosen: Callable[[], None]) -> None:
        self._host = host
        self._place = place
        self._is_dead = is_dead
        self._when_chosen = when_chosen

    @property
    def names(self) -> list[str]:
        """The names of the columns shown, besides mark, id and cause."""
        return self._host.context.choices.columns.get(self._place, list(usual(dead=self._is_dead)))

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns."""
        return columns_of(self.names, dead=self._is_dead)

    def ask(self) -> None:
        """Ask for a column to show or hide, again and again until the operator cancels."""
        known, names = choosable(dead=self._is_dead), self.names
        lines = [Content("Show or hide a column; id and cause are always shown, and where there is no room, fewer")]
        lines += [
            Content(f"  {number}  {'■' if name in names else ' '} {name}") for number, name in enumerate(known, 1)
        ]
        self._host.dialog.ask(Prompt(title="columns", lines=lines, kind=Kind.CHOICE, choices=known), self._toggle)

    def _toggle(self, name: str) -> None:
        names, choices = self.names, self._host.context.choices
        chosen = [one for one in names if one != name] if name in names else [*names, name]
        choices.choose_columns(self._place, chosen)
        self._when_chosen()
        self.ask()
