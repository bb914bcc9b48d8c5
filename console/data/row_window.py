"""The state of a filtered list of deliveries: which window of rows it shows, and which rows are marked. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from console.data.readings import WINDOW, Page, RowsReading
from console.data.snapshot import TooSlow
from relay.domain.delivery import State
from relay.store.sorted_rows import Order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from console.data.snapshot import Snapshot
    from relay.store.browse import Key, Row
    from relay.store.conversation import MessagePreview


class RowWindow:
    """A window over the deliveries in `states` (None: any) that `filter` matches.

    `page` is the last one read, at `taken_at` (`time.monotonic()`). `is_too_slow` is True once reading this window took
    too long: it is not tried again until `retry`.
    """

    def __init__(self, states: tuple[State, ...] | None) -> None:
        self.states = states
        self.filter = ""
        self.order = Order.NEWEST
        self.page: Page | None = None
        self.taken_at = 0.0
        self._anchor: Key | None = None
        self._up = False
        self._skipped = 0
        self._too_slow: RowsReading | None = None
        self._shown: RowsReading | None = None

    @property
    def rows(self) -> Sequence[Row]:
        """The rows of the page."""
        return () if self.page is None else self.page.rows

    @property
    def is_too_slow(self) -> bool:
        """True if reading this window took too long."""
        return self._wanted() == self._too_slow

    @property
    def is_settled(self) -> bool:
        """True once the page is the one wanted."""
        return self.is_too_slow or self._shown == self._wanted()

    def reading(
        self, marked: frozenset[int], words: dict[int, MessagePreview], wordless: frozenset[int] = frozenset()
    ) -> RowsReading | None:
        """Return what is to be read; None if reading it took too long.

        The words of the rows `wordless` are to be read into `words`.
        """
        if self.is_too_slow:
            return None
        return replace(self._wanted(), marked=marked, words=words, wordless=wordless)

    def take(self, snapshot: Snapshot) -> bool:
        """Take the page of `snapshot`. Returns False if it is not the one wanted by now."""
        if snapshot.reading is None or snapshot.reading != self._wanted():
            return False
        wanted = self._shown = self._wanted()
        if isinstance(snapshot.view, TooSlow):
            self._too_slow = wanted
        elif isinstance(snapshot.view, Page):
            self.page, self.taken_at = snapshot.view, snapshot.seen.read_at
            if self._up:
                self._up = False
                self._anchor = None if self.page.live else self._key_of(self.page.rows[0])
            if not self.page.rows:  # what was there is gone: what is left begins further up
                self.to_newest()
        return True

    def filter_by(self, text: str) -> None:
        """Show what the valid filter `text` matches, from the newest row on."""
        self.filter = text
        self.to_newest()

    def to_newest(self) -> bool:
        """Begin at the newest row. Returns False if the window began there already."""
        moved = self._anchor is not None or self._skipped > 0
        self._anchor, self._up, self._skipped = None, False, 0
        return moved

    def sort_by(self, order: Order) -> None:
        """Show the rows in another order, from its first row on."""
        self.order = order
        self.to_newest()

    def turn(self, *, up: bool) -> bool:
        """Move the window by half a page or more. Returns False if there is nothing further that way."""
        if not self.rows:
            return False
        if self.order is not Order.NEWEST:
            return self._skip(up=up)
        if up and self._anchor is not None:
            self._anchor, self._up = self._key_of(self.rows[0]), True
        elif not up and len(self.rows) >= WINDOW:
            self._anchor = self._key_of(self.rows[WINDOW // 2])
        else:
            return False
        return True

    def _skip(self, *, up: bool) -> bool:
        if (up and not self._skipped) or (not up and len(self.rows) < WINDOW):
            return False
        self._skipped = max(0, self._skipped + (-1 if up else 1) * WINDOW // 2)
        return True

    def retry(self) -> None:
        """Read again what took too long before."""
        self._too_slow = None

    def _wanted(self) -> RowsReading:
        return RowsReading(self.filter, self.states, self._anchor, self._up, self.order, self._skipped)

    def _key_of(self, row: Row) -> Key:
        return row.dead_key if self.states == (State.DEAD,) else row.key


@dataclass(slots=True)
class Marks:
    """Marked rows by id; or, with `all_but`, every row that matches the filter but these."""

    ids: set[int] = field(default_factory=set)
    all_but: set[int] | None = None
    _last: int | None = None

    def __bool__(self) -> bool:
        return self.all_but is not None or bool(self.ids)

    def __contains__(self, row_id: int) -> bool:
        return row_id in self.ids if self.all_but is None else row_id not in self.all_but

    def __str__(self) -> str:
        """Return how many rows are marked, as text; empty if none is."""
        if self.all_but is not None:
            return f"all but {len(self.all_but)} marked" if self.all_but else "all marked"
        return f"{len(self.ids)} marked" if self.ids else ""

    def toggle(self, row_id: int) -> None:
        """Mark a row, or unmark it."""
        if self.all_but is None:
            self.ids ^= {row_id}
        else:
            self.all_but ^= {row_id}
        self._last = row_id if row_id in self else None

    def mark_range(self, row_id: int, rows: Sequence[int]) -> None:
        """Mark all of `rows` from the row marked last to this one; without such a row, mark this one."""
        here = rows.index(row_id)
        there = rows.index(self._last) if self._last in rows else here
        self.ids |= set(rows[min(here, there) : max(here, there) + 1])
        self._last = row_id

    def mark_all(self) -> None:
        """Mark all that match the filter, shown or not."""
        self.all_but = set()

    def forget_all(self) -> None:
        """Unmark all rows that `mark_all` marked."""
        self.all_but = None

    def clear(self) -> None:
        """Unmark all."""
        self.ids.clear()
        self.all_but = self._last = None
