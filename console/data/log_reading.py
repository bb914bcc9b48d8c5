"""Reads the forwarding log, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from console.data.log_buffer import Page
from console.data.log_entry import entry_of
from relay.store import log
from relay.store.round_trip import together

if TYPE_CHECKING:
    from console.data.log_entry import Entry
    from relay.store.database import Connection
    from relay.store.log import LogLine

FIRST = 1_000
"""Lines of the first read: the newest ones."""

OLDER = 2_000
"""Older lines of one read."""

A_TICK = 2_000
"""Newer lines of one read. A read that returns as many may have left some."""


@dataclass(frozen=True, slots=True)
class LogReading:
    """Reads the lines after the id `after` (None: the newest ones), and those before `before` unless that is None.

    `missing` are skipped ids, which are asked for again.
    """

    after: int | None
    before: int | None = None
    missing: tuple[int, ...] = ()

    async def read(self, connection: Connection) -> Page:
        """Return the lines."""
        if self.after is None:
            newest = await log.before(connection, None, FIRST)
            return Page(newer=_entries(newest), reaches_start=len(newest) < FIRST)
        asked = [log.after(connection, self.after, A_TICK, self.missing)]
        if self.before is not None:
            asked.append(log.before(connection, self.before, OLDER))
        newer, *found = await together(connection, *asked)
        older = found[0] if found else []
        return Page(
            newer=_entries(newer),
            older=_entries(older),
            reaches_start=self.before is not None and len(older) < OLDER,
            more_newer=len(newer) >= A_TICK,
        )


def _entries(lines: list[tuple[int, LogLine]]) -> list[Entry]:
    return [entry_of(line_id, line) for line_id, line in lines]
