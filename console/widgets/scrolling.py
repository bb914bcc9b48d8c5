"""Scrolls a pane by the cursor keys of the key map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.keymap import action_of

if TYPE_CHECKING:
    from textual.containers import VerticalScroll

_CURSOR = "cursor('"


def scroll_to(pane: VerticalScroll, where: str) -> None:
    """Scroll `up`, `down`, `page_up`, `page_down`, to the `top` or to the `bottom`."""
    moves = {
        "up": pane.scroll_up, "down": pane.scroll_down, "page_up": pane.scroll_page_up,
        "page_down": pane.scroll_page_down, "top": pane.scroll_home, "bottom": pane.scroll_end,
    }  # fmt: skip
    moves[where](animate=False)


def scroll_by_key(pane: VerticalScroll, place: str, key: str) -> bool:
    """Scroll as `key` moves the cursor in `place`. Returns False if it moves none there."""
    action = action_of(place, key) or ""
    if not action.startswith(_CURSOR):
        return False
    scroll_to(pane, action.removeprefix(_CURSOR).removesuffix("')"))
    return True
