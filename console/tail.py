"""Lines of the forwarding log as they are shown: cleaned once, kept small, drawn when they come into sight. Pure."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from textual.content import Content

from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from relay.store.log import LogLine

_LEVELS = {"warning": ("! ", "$text-warning"), "error": ("✗ ", "$text-error")}
_MISSED_FOR_S = 10.0
_MISSED_MOST = 2_000
_UNSHOWN = {"agentEndpoint", "deliveryId"}
_MUTED = "$text-muted"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log. Its text is clean; `details` are its fields as `attempt: 1, duration: 41`."""

    id: int
    at: datetime
    level: str
    message: str
    details: str
    delivery_id: str | None

    @property
    def is_failure(self) -> bool:
        """True for what was logged as a warning or an error."""
        return self.level in _LEVELS

    @property
    def text(self) -> str:
        """All that is shown of it, as plain text."""
        return draw(self).plain

    def mentions(self, wanted: str) -> bool:
        """True if the line shows `wanted`, which is in lower case. Does not draw it: there may be 50,000 to ask."""
        reference = (self.delivery_id or "")[:8]
        if wanted in f"{reference}  {self.message}  {self.details}".lower():
            return True
        return ":" in wanted and wanted in f"{self.at:%H:%M:%S.%f}"


class Missing:
    """Ids that were passed over: of lines that another relay is still committing, or of none at all.

    They are asked for again for ten seconds, two thousand of them at most.
    """

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    @property
    def ids(self) -> tuple[int, ...]:
        """Those to ask for."""
        return tuple(self._since)

    def look(self, read: Sequence[int], *, after: int | None, now: float) -> None:
        """Lines with the ids `read`, ascending, have come; all up to `after` had been read before. `now` in seconds."""
        for line_id in read:
            self._since.pop(line_id, None)
        for line_id in [line_id for line_id, since in self._since.items() if now - since > _MISSED_FOR_S]:
            del self._since[line_id]
        fresh = list(read) if after is None else [after, *(line_id for line_id in read if line_id > after)]
        for low, high in pairwise(fresh):
            self._since.update(dict.fromkeys(range(max(low + 1, high - _MISSED_MOST), high), now))
        for line_id in sorted(self._since)[:-_MISSED_MOST]:
            del self._since[line_id]


def entry_of(line_id: int, line: LogLine) -> Entry:
    """A line as it left the database, as it may be shown. Words that come again and again are kept once."""
    fields = ", ".join(f"{key}: {value}" for key, value in line.fields.items() if key not in _UNSHOWN)
    return Entry(
        id=line_id,
        at=line.at,
        level=sys.intern(clean(line.level, limit=20)),
        message=sys.intern(clean(line.message, limit=300)),
        details=sys.intern(clean(fields, limit=300)),
        delivery_id=None if line.delivery_id is None else sys.intern(line.delivery_id),
    )


def draw(entry: Entry, *, width: int = 0) -> Content:
    """The line in the runbook's form, with its time; cut to `width` if given."""
    glyph, style = _LEVELS.get(entry.level, ("  ", ""))
    reference = "" if entry.delivery_id is None else f"{clean(entry.delivery_id[:8])}  "
    content = Content.assemble(
        (f"{entry.at:%H:%M:%S}.{entry.at.microsecond // 1000:03d} ", _MUTED),
        (glyph, style),
        (reference, "$text-accent"),
        (entry.message, style),
        (f"  {entry.details}" if entry.details else "", _MUTED),
    )
    return content.truncate(width, ellipsis=True) if width else content
