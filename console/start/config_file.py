"""The operator's own files: `console.toml` with keys, theme, clock, columns and filters, and `themes/NAME.toml`.

They are read once, at the start, from the user's configuration directory (`platformdirs`); the console never writes
them. What is wrong in them ends the start with one line that names file, line and fault.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from platformdirs.unix import Unix

from console.actions import DEAD, DELIVERIES
from console.data.choices import remembered
from console.key_names import key_named
from console.keymap import KeymapError, rebound
from console.render.rows import choosable
from console.theme import COLOURS, THEMES, VARIABLES
from relay.errors import ConfigurationError, FilterError
from relay.store.filters import compile_filter
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from console.data.choices import Choices

FILE = "console.toml"
_KNOWN = ("theme", "local_time", "mouse", "keys", "columns", "filters")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_LISTS = {"dead": (DEAD, True), "deliveries": (DELIVERIES, False)}


@dataclass(frozen=True, slots=True)
class Config:
    """What the files say. None and empty values leave the console's own choice.

    `keys` are by action, `columns` by list, `filters` are saved filters by name, `themes` are of the user's making.
    """

    theme: str | None = None
    local_time: bool | None = None
    mouse: bool = True
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    columns: Mapping[str, list[str]] = field(default_factory=dict)
    filters: Mapping[str, str] = field(default_factory=dict)
    themes: tuple[dict[str, Any], ...] = ()


def config_folder() -> Path:
    """Return the directory of the operator's own files."""
    return Unix("hotdash-relay").user_config_path


def choices_path() -> Path:
    """Return the file in which the console remembers what was chosen in it."""
    return Unix("hotdash-relay").user_state_path / "console.json"


def chosen(path: Path, config: Config) -> Choices:
    """Return what is remembered at `path`, over what the operator's configuration says for the first time.

    A theme that was chosen once and is no more counts as none.
    """
    choices = remembered(path)
    known = {theme["name"] for theme in (*THEMES, *config.themes)}
    if config.theme is not None and choices.theme not in known:
        choices.theme = config.theme
    if config.local_time is not None and choices.is_local_time is None:
        choices.is_local_time = config.local_time
    choices.columns = {**config.columns, **choices.columns}
    choices.saved = config.filters
    return choices


class _File:
    """A TOML file that exists, and how its faults are said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._text = path.read_text(encoding="utf-8")
            self.values: dict[str, Any] = tomllib.loads(self._text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            place = re.search(r"at line (\d+)", str(error))
            line = int(place[1]) if place else self._text.count("\n") + 1
            raise ConfigurationError(f"{path}, line {line}: this is no TOML: {str(error).split(' (at ')[0]}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: the file cannot be read as UTF-8 text ({error})") from error

    def fault(self, key: str, what: str, table: str = "") -> ConfigurationError:
        """Return the error about a `key` in a `table`, with its line."""
        name = f"{table}.{key}" if table else key
        return ConfigurationError(f"{self._path}, line {self._line_of(key, table)}: {clean(name)}: {clean(what)}")

    def _line_of(self, key: str, table: str) -> int:
        here, quoted = "", rf"[\"']?{re.escape(key)}[\"']?\s*="
        dotted = rf"\s*{re.escape(table)}\.{quoted}"
        for number, line in enumerate(self._text.splitlines(), start=1):
            if head := re.match(r"\s*\[+\s*([^\[\]]+?)\s*\]", line):
                here = head[1].strip("\"' ")
                if not table and here == key:
                    return number
            elif (here == table and re.match(rf"\s*{quoted}", line)) or (table and re.match(dotted, line)):
                return number
        return self._line_of(table, "") if table else 1

    def table(self, name: str) -> dict[str, Any]:
        """Return a table of the file, empty if it has none."""
        value = self.values.get(name, {})
        if not isinstance(value, dict):
            raise self.fault(name, f"this must be a table: [{name}]")
        return value


def read_config(folder: Path) -> Config:
    """Return what the files in `folder` say.

    Raises:
        ConfigurationError: something in them cannot be used; the message names file, line and fault.
    """
    themes = tuple(_theme(path) for path in sorted((folder / "themes").glob("*.toml")))
    path = folder / FILE
    if not path.exists():
        return Config(themes=themes)
    file = _File(path)
    for name in file.values:
        if name not in _KNOWN:
            raise file.fault(name, f"there is no such setting; known are {', '.join(_KNOWN)}")
    names = [theme["name"] for theme in (*THEMES, *themes)]
    theme = file.values.get("theme")
    if theme is not None and theme not in names:
        raise file.fault("theme", f"there is no theme {theme!r}; known are {', '.join(names)}")
    return Config(
        theme=theme,
        local_time=_switch(file, "local_time", default=None),
        mouse=_switch(file, "mouse", default=True) is not False,
        keys=_keys(file),
        columns={place: names for key in file.table("columns") for place, names in [_columns(file, key)]},
        filters={name: _filter(file, name) for name in file.table("filters")},
        themes=themes,
    )


def _switch(file: _File, name: str, *, default: bool | None) -> bool | None:
    value = file.values.get(name, default)
    if value is not None and not isinstance(value, bool):
        raise file.fault(name, "say true or false")
    return value


def _keys(file: _File) -> dict[str, tuple[str, ...]]:
    chosen: dict[str, tuple[str, ...]] = {}
    for slug, value in file.table("keys").items():
        keys = [value] if isinstance(value, str) else value
        if not isinstance(keys, list) or not keys or not all(isinstance(key, str) and key for key in keys):
            raise file.fault(slug, 'say a key or a list of keys: "ctrl+y" or ["y", "f5"]', "keys")
        chosen[slug] = tuple(key_named(key) for key in keys)
    try:
        rebound(chosen)
    except KeymapError as error:
        raise file.fault(error.slug, error.fault, "keys") from error
    return chosen


def _columns(file: _File, key: str) -> tuple[str, list[str]]:
    if key not in _LISTS:
        raise file.fault(key, f"there is no such list; known are {', '.join(_LISTS)}", "columns")
    place, is_dead = _LISTS[key]
    names, known = file.table("columns")[key], choosable(dead=is_dead)
    if not isinstance(names, list) or not all(name in known for name in names):
        raise file.fault(key, f"say a list of columns; known are {', '.join(known)}", "columns")
    return place, names


def _filter(file: _File, name: str) -> str:
    text = file.table("filters")[name]
    if not isinstance(text, str) or not re.fullmatch(r"[\w-]+", name):
        raise file.fault(name, 'say NAME = "filter", the name of letters, digits, - and _', "filters")
    try:
        compile_filter(text)
    except FilterError as error:
        raise file.fault(name, str(error), "filters") from error
    return text


def _theme(path: Path) -> dict[str, Any]:
    """Return a theme of the user's; colours that it does not name are those of the theme that it `extends`."""
    file, built_in = _File(path), {theme["name"]: theme for theme in THEMES}
    base = file.values.get("extends", THEMES[0]["name"])
    if not isinstance(base, str) or base not in built_in:
        raise file.fault("extends", f"there is no theme {base!r}; known are {', '.join(built_in)}")
    theme = {**built_in[base], "name": path.stem, "variables": dict(built_in[base]["variables"])}
    checks: dict[str, Callable[[Any], bool]] = dict.fromkeys((*COLOURS, *VARIABLES), _is_colour)
    checks |= {"dark": lambda value: isinstance(value, bool), "extends": lambda _: True}
    for name, value in file.values.items():
        if name not in checks:
            raise file.fault(name, f"there is no such colour; known are {', '.join(checks)}")
        if not checks[name](value):
            raise file.fault(name, "say true or false" if name == "dark" else f"{value!r} is no colour such as #ffaf5f")
        if name in VARIABLES:
            theme["variables"][name] = value
        elif name != "extends":
            theme[name] = value
    return theme


def _is_colour(value: Any) -> bool:
    return isinstance(value, str) and _COLOUR.fullmatch(value) is not None
