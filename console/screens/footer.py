"""What the footer shows: the views, and the keys of what has the focus. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.actions import VIEWS
from console.key_names import shown_key
from console.keymap import view_key, view_keys
from console.widgets.key_bar import KeyHint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from console.actions import Action


def hints(actions: Iterable[Action]) -> list[KeyHint]:
    """Return a hint for each action, with its first key."""
    return [KeyHint(action.keys[0], shown_key(action.keys[0]), action.label) for action in actions]


def own_first(actions: Iterable[Action]) -> list[Action]:
    """Return the actions that this screen has before those that every screen has; the help stays the last."""
    return sorted(actions, key=lambda action: (action.name == "keys", action.is_everywhere))


def ways(here: str, *, is_wide: bool) -> list[KeyHint]:
    """Return a hint for each view, `here` marked; unless `is_wide`, one for all of them."""
    if not is_wide:
        return [KeyHint("", view_keys(), "views")]
    return [KeyHint(view_key(view), view_key(view), title, is_here=view == here) for view, title in VIEWS.items()]
