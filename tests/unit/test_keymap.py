"""Every key of the console is in the key map, and an action does what its name says: each has a method of its name."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import string
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from textual.binding import Binding, BindingsMap

import console
from console.actions import ACTIONS, EDITOR, HELP, SCREENS, SEARCH_BOX
from console.app import ConsoleApp
from console.key_names import key_named, shown_key
from console.keymap import KeymapError, actions_of, bindings_of, rebound
from console.screens.editor import EditorScreen
from console.screens.help import HelpScreen
from console.screens.view import View
from console.widgets.search_box import SearchBox

if TYPE_CHECKING:
    from collections.abc import Iterator

INHERITED = {"action_paste", "action_quit", "action_help_quit"}
"""Actions of Textual's own widgets that the console overrides; their keys are Textual's."""


def classes() -> Iterator[type]:
    """Every class of the console."""
    for module in pkgutil.walk_packages(console.__path__, "console."):
        if module.name != "console.__main__":
            members = inspect.getmembers(import_module(module.name), inspect.isclass)
            yield from (one for _, one in members if one.__module__ == module.name)


def method(name: str) -> str:
    return f"action_{name.partition('(')[0]}"


def takers() -> dict[str, type]:
    """What takes the keys, by its place in the key map; the question strip finds its keys itself."""
    views = {one.VIEW: one for one in classes() if issubclass(one, View) and one is not View}
    return views | {EDITOR: EditorScreen, HELP: HelpScreen, SEARCH_BOX: SearchBox}


def test_every_action_has_a_method_of_its_name() -> None:
    assert set(SCREENS) < set(takers())
    wanted = [
        (ConsoleApp, action.name.removeprefix("app.")) if action.name.startswith("app.") else (taker, action.name)
        for place, taker in takers().items()
        for action in actions_of(place, read_only=False)
    ]
    assert [(taker.__name__, name) for taker, name in wanted if not hasattr(taker, method(name))] == []


def test_every_action_method_has_a_key() -> None:
    named = {method(action.name) for action in ACTIONS} | INHERITED
    written = {name for one in classes() for name in vars(one) if name.startswith("action_")}
    assert written - named == set()


def test_all_bindings_come_from_the_key_map() -> None:
    for place, taker in takers().items():
        assert taker.__dict__["BINDINGS"] == bindings_of(place, priority=taker is EditorScreen), place


def depth(one: type) -> int:
    """How many levels of the console's own classes `one` derives from, itself included."""
    own = one.__module__.split(".")[0] == "console"
    return own and 1 + max(map(depth, one.__bases__), default=0)


def test_no_class_is_more_than_two_levels_below_a_librarys() -> None:
    depths = {one.__name__: depth(one) for one in classes()}
    assert {name: levels for name, levels in depths.items() if levels > 2} == {}


def test_a_mark_has_the_name_that_textual_gives_its_key() -> None:
    marks = sorted(set(string.punctuation) - set(","))  # Textual separates keys by it
    named = {mark: list(BindingsMap([Binding(mark, "act", "act")]).key_to_bindings) for mark in marks}
    assert {mark: [key_named(mark)] for mark in marks} == named
    assert [shown_key(key_named(mark)) for mark in string.punctuation] == list(string.punctuation)


NAMED_KEY = re.compile(
    r"(?:^|[\s;,.(·─>])(?:esc|enter|tab|space|ctrl\+[a-z]|[a-zA-Z1-9/?*]) "
    r"(?!nothing)(?:(?<=\ba )(?:acknowledges|shows|opens)|(?<!\ba )(?:[a-z]+s|for|next|window|continues))\b"
)
"""A key and what it does, as texts say it: `enter opens`."""


def test_texts_name_keys_by_the_key_map() -> None:
    named = []
    for path in sorted(Path(console.__file__).parent.rglob("*.py")):
        if path.name == "actions.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bodies = (node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
        statements = (one for body in bodies for one in body if isinstance(one, ast.Expr))
        documentation = {id(one.value) for one in statements}
        named += [
            f"{path.name}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
            and NAMED_KEY.search(node.value)
        ]  # fmt: skip
    assert named == []


def test_the_key_that_begins_a_write_never_confirms_it() -> None:
    for slug, key in (("agree", "r"), ("accept", "e"), ("agree", "d")):
        with pytest.raises(KeymapError, match="confirm"):
            rebound({slug: (key,)})
    for chosen in ({"agree": ("f3",)}, {"file": ("f4",)}):
        rebound(chosen)
