"""What the operator has chosen and the console remembers: theme, clock, columns, filters typed. Knows no widget.

The choices are kept in a file of the console's own. One that cannot be read or written is no reason to stop: the
choices then last as long as the console runs.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any

from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo
    from pathlib import Path

_MOST_FILTERS = 50
_MOST_CHARS = 2_000


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

    @property
    def zone(self) -> tzinfo | None:
        """The zone of the times shown: UTC, or None for this machine's."""
        return None if self.is_local_time else UTC

    def remember_filter(self, text: str) -> None:
        """Put a filter that was typed in front of the others."""
        text = text.strip()
        if text and len(text) <= _MOST_CHARS and self.filters[:1] != [text]:
            self.filters = [text, *(one for one in self.filters if one != text)][:_MOST_FILTERS]
            self.save()

    def save(self) -> None:
        """Write the file, in one piece; only its owner can read it, for a filter may name a customer."""
        if self.path is None:
            return
        kept = {
            "theme": self.theme, "local_time": self.is_local_time, "columns": self.columns, "filters": self.filters
        }  # fmt: skip
        new = self.path.with_suffix(".new")
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new.touch(mode=0o600)
            new.write_text(json.dumps(kept, indent=1), encoding="utf-8")
            new.replace(self.path)


def remembered(path: Path) -> Choices:
    """Return the choices that the file at `path` keeps. What it does not hold, or holds wrongly, is as at first."""
    kept: Any = None
    with suppress(OSError, ValueError, RecursionError):
        kept = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(kept, dict):
        return Choices(path)
    columns = kept.get("columns")
    return Choices(
        path,
        theme=_text(kept.get("theme")),
        is_local_time=kept["local_time"] if isinstance(kept.get("local_time"), bool) else None,
        columns={place: _texts(names) for place, names in columns.items() if isinstance(names, list)}
        if isinstance(columns, dict)
        else {},
        filters=_texts(kept.get("filters"))[:_MOST_FILTERS],
    )


def _texts(value: object) -> list[str]:
    return [_text(one) for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return clean(value, limit=_MOST_CHARS) if isinstance(value, str) else ""
