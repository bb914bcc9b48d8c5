"""What the operator has chosen and the console remembers: theme, clock, columns, filters typed. Knows no widget.

The choices are kept in a file of the console's own. One that cannot be read or written is no reason to stop: the
choices then last as long as the console runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

_MOST_FILTERS = 50
MOST_CHARS = 2_000
"""A text that is typed into a search box has no more characters."""
_LOCK_TRIES, _LOCK_PAUSE_S = 20, 0.01

Change = Callable[[dict[str, Any]], dict[str, Any]]
"""Returns what the file is to hold, from what it holds."""


@dataclass(slots=True)
class Choices:
    """The choices, and the file that keeps them (None: none does).

    `theme` is a theme's name, empty for the default; `is_local_time` is None until it was chosen. `columns` are the
    columns of each list that has other than the usual ones, by the list's place in the key map. `filters` are those
    typed last, the newest first; `saved` are those that the operator's configuration names.
    """

    path: Path | None = None
    theme: str = ""
    is_local_time: bool | None = None
    columns: dict[str, list[str]] = field(default_factory=dict)
    filters: list[str] = field(default_factory=list)
    saved: Mapping[str, str] = field(default_factory=dict)
    _pending: list[Change] = field(default_factory=list)

    @property
    def zone(self) -> tzinfo | None:
        """The zone of the times shown: UTC, or None for this machine's."""
        return None if self.is_local_time else UTC

    def remember_filter(self, text: str) -> None:
        """Put a filter that was typed in front of the others."""
        text = text.strip()
        if text and len(text) <= MOST_CHARS and self.filters[:1] != [text]:
            self.filters = [text, *(one for one in self.filters if one != text)][:_MOST_FILTERS]
            self._change(lambda kept: kept | {"filters": [text, *(one for one in _filters(kept) if one != text)]})

    def choose_theme(self, name: str) -> None:
        """Choose a theme."""
        self.theme = name
        self._change(lambda kept: kept | {"theme": name})

    def choose_clock(self, *, is_local_time: bool) -> None:
        """Choose the zone of the times shown."""
        self.is_local_time = is_local_time
        self._change(lambda kept: kept | {"local_time": is_local_time})

    def choose_columns(self, place: str, names: list[str]) -> None:
        """Choose the columns of a list."""
        self.columns[place] = names
        self._change(lambda kept: kept | {"columns": _columns(kept) | {place: names}})

    def _change(self, change: Change) -> None:
        """Change what the file holds by now: other consoles of this operator choose too, and type filters.

        A change that cannot be written now is written with the next one.
        """
        self._pending.append(change)
        if self.path is None:
            return
        with suppress(OSError), _locked(self.path):
            kept = _read(self.path)
            for one in self._pending:
                kept = one(kept)
            _write(self.path, kept | {"filters": _filters(kept)})
            self.filters = _filters(kept)
            self._pending.clear()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of the file during the block.

    Raises:
        OSError: another console has held it for too long, or there can be no lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w", encoding="utf-8") as lock:
        for _ in range(_LOCK_TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(_LOCK_PAUSE_S)
        else:
            raise TimeoutError
        yield


def _read(path: Path) -> dict[str, Any]:
    """Return what the file holds; nothing if it cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept if isinstance(kept, dict) else {}
    return {}


def _write(path: Path, kept: dict[str, Any]) -> None:
    """Write the file in one piece; only its owner can read it, for a filter may name a customer."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            json.dump(kept, file, indent=1)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _filters(kept: dict[str, Any]) -> list[str]:
    return _texts(kept.get("filters"))[:_MOST_FILTERS]


def _columns(kept: dict[str, Any]) -> dict[str, list[str]]:
    columns = kept.get("columns")
    if not isinstance(columns, dict):
        return {}
    return {place: _texts(names) for place, names in columns.items() if isinstance(names, list)}


def remembered(path: Path) -> Choices:
    """Return the choices that the file at `path` keeps. What it does not hold, or holds wrongly, is as at first."""
    kept = _read(path)
    return Choices(
        path,
        theme=_text(kept.get("theme")),
        is_local_time=kept["local_time"] if isinstance(kept.get("local_time"), bool) else None,
        columns=_columns(kept),
        filters=_filters(kept),
    )


def _texts(value: object) -> list[str]:
    return [_text(one) for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return clean(value, limit=MOST_CHARS) if isinstance(value, str) else ""
