"""What is read of the forwarding log, and the lines that a list draws of it when they come into sight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from console.tail import entry_of
from console.widgets.lines import Line
from relay.store import browse

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.content import Content

    from console.tail import Entry
    from relay.store.database import Connection

FIRST = 1_000
"""Lines that are read at first."""

OLDER = 2_000
"""Lines that are read at once of those before."""

A_TICK = 2_000
"""Lines that are read at once of those after: as many of them mean that there may be more."""


@dataclass(frozen=True, slots=True)
class LogReading:
    """Read the lines after `after` (None: the newest), and those before `before` if it is asked for.

    `missing` are ids that were passed over, to be asked for again.
    """

    after: int | None
    before: int | None = None
    missing: tuple[int, ...] = ()

    async def read(self, connection: Connection) -> LogPage:
        """Read them."""
        older = [] if self.before is None else await browse.log_before(connection, self.before, OLDER)
        if self.after is None:
            newer = await browse.log_before(connection, None, FIRST)
        else:
            newer = await browse.log_after(connection, self.after, A_TICK, self.missing)
        return LogPage(
            newer=[entry_of(line_id, line) for line_id, line in newer],
            older=[entry_of(line_id, line) for line_id, line in older],
        )


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines, oldest first."""

    newer: list[Entry]
    older: list[Entry]


class DrawnLines(Sequence[Line]):
    """`entries`, by ascending id, as rows that are drawn when they are asked for."""

    def __init__(self, entries: Sequence[Entry], draw_one: Callable[[Entry], Content]) -> None:
        self._entries = entries
        self._draw = draw_one

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Line]: ...
    def __getitem__(self, index: int | slice) -> Line | Sequence[Line]:
        if isinstance(index, slice):
            return DrawnLines(self._entries[index], self._draw)
        entry = self._entries[index]
        return Line(entry.id, self._draw(entry))
