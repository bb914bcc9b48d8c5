"""The keys in use: those of `console.actions`, or those that the operator has chosen in place of them.

Texts name keys by `key_of`, so that a text names the key in use.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from textual.binding import Binding, BindingType

from console.actions import ACTIONS, PLACES, VIEWS
from console.key_names import is_passed_on, shown_key, types_character

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from console.actions import Action


class KeymapError(Exception):
    """Keys that cannot be used. `slug` names the action."""

    def __init__(self, slug: str, fault: str) -> None:
        super().__init__(fault)
        self.slug = slug
        self.fault = fault


class _Table:
    """The actions in use: those of `ACTIONS`, with the keys that the operator has chosen for them."""

    actions: tuple[Action, ...] = ACTIONS


def use_keys(chosen: Mapping[str, tuple[str, ...]]) -> None:
    """Give actions other keys, by their `slug`. To be called before any screen is imported: classes hold bindings.

    Raises:
        KeymapError: there is no such action, a key is none that every terminal passes, or two actions share one.
    """
    _Table.actions = rebound(chosen)


def rebound(chosen: Mapping[str, tuple[str, ...]]) -> tuple[Action, ...]:
    """Return `ACTIONS` with the keys chosen.

    Raises:
        KeymapError: as for `use_keys`.
    """
    known = {action.slug for action in ACTIONS}
    for slug, keys in chosen.items():
        if slug not in known:
            raise KeymapError(slug, "there is no such action; `console --keys` names them all")
        typed = any(action.slug == slug and action.is_beside_text for action in ACTIONS)
        for key in keys:
            if not is_passed_on(key):
                raise KeymapError(slug, f"{shown_key(key)} is not a key that every terminal passes on")
            if typed and types_character(key):
                raise KeymapError(
                    slug, f"{shown_key(key)} types a character there; choose ctrl and a letter, or F1 to F12"
                )
    actions = tuple(
        replace(action, keys=chosen[action.slug]) if action.slug in chosen else action for action in ACTIONS
    )
    for place in PLACES:
        _check_clashes(place, actions, chosen)
    _check_confirmations(actions, chosen)
    return actions


def _check_confirmations(actions: tuple[Action, ...], chosen: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse keys by which pressing a key twice would begin and confirm a write."""
    confirming = [action for action in actions if action.slug in {"agree", "accept"}]
    for action in actions:
        for one in confirming:
            begins = action.write and action not in confirming and action.slug != "file"  # has no question of its own
            both = set(action.keys) & set(one.keys) if begins else set()
            slug = next((slug for slug in (one.slug, action.slug) if slug in chosen), None)
            if both and slug is not None:
                raise KeymapError(slug, f"{shown_key(min(both))} would begin {action.slug} and confirm it ({one.slug})")


def _check_clashes(place: str, actions: tuple[Action, ...], chosen: Mapping[str, tuple[str, ...]]) -> None:
    owners: dict[str, Action] = {}
    for action in actions:
        if not action.belongs_to(place):
            continue
        for key in action.keys:
            other = owners.setdefault(key, action)
            if other is not action and not other.conditional:
                slug = action.slug if action.slug in chosen else other.slug
                both = f"{other.slug} and {action.slug}"
                raise KeymapError(slug, f"{shown_key(key)} would be both {both} in {PLACES[place].lower()}")


def actions_of(place: str, *, read_only: bool) -> Iterator[Action]:
    """Return the actions of a place, in the table's order; without the writes when `read_only`."""
    return (action for action in _Table.actions if action.belongs_to(place) and not (read_only and action.write))


def action_of(place: str, key: str) -> str | None:
    """Return the name of the action that `key` has in a place; None if it has none there."""
    return next((action.name for action in _Table.actions if key in action.keys and action.belongs_to(place)), None)


def key_of(place: str, name: str) -> str:
    """Return the first key of an action in a place, as it is written on the screen. Texts name their keys by it."""
    found = next(action for action in _Table.actions if action.name == name and action.belongs_to(place))
    return shown_key(found.keys[0])


def view_key(view: str) -> str:
    """Return the key that goes to a view, as it is written on the screen."""
    return key_of(view, f"view('{view}')")


def view_keys() -> str:
    """Return the keys that go to the views, in short: `1-6`."""
    keys = "".join(map(view_key, VIEWS))
    return f"{keys[0]}-{keys[-1]}" if keys in "123456789" else keys


def is_refused(place: str, key: str) -> bool:
    """Return True if `key` has only writes in a place: with --read-only it does nothing there."""
    writes = [action.write for action in _Table.actions if key in action.keys and action.belongs_to(place)]
    return bool(writes) and all(writes)


def bindings_of(place: str, *, priority: bool = False) -> list[BindingType]:
    """Return Textual's bindings of a place, writes included: with --read-only those say why they are refused.

    With `priority` the keys that type no character come before those of the focused widget.
    """
    return [
        Binding(
            ",".join(action.keys),
            action.name,
            action.label,
            show=action.shown,
            priority=priority and any(len(key) > 1 for key in action.keys),
        )
        for action in _Table.actions
        if action.belongs_to(place)
    ]


def key_table() -> list[str]:
    """Return every key as a line of text: the keys, the action's name in the configuration, what it does, where."""
    rows = []
    for action in _Table.actions:
        where = "" if action.where is None else f"  ({', '.join(PLACES[one] for one in PLACES if one in action.where)})"
        rows.append(f"{' '.join(map(shown_key, action.keys)):<16}  {action.slug:<18}  {action.text}{where}")
    return rows
