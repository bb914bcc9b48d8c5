"""The lines of the log that the console holds, and which of them it shows. Pure.

Every value is frozen, every method returns a new value. `LogNavigation` has the cursor, a buffer has none.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from console.data.log_entry import Entry

CAPACITY = 50_000
"""Lines that are held; the oldest are dropped."""

LEVELS = ("info", "warning", "error")
"""Levels that may be the lowest one shown. A line of another level is always shown."""


@dataclass(frozen=True, slots=True)
class Page:
    """Lines that were read, each list by ascending id.

    `newer` follow the last line held, or come late and belong between lines that are held. `older` precede the first
    line held. `reaches_start` is True if the log has no line before those that were read. `more_newer` is True if
    there may be more lines after `newer`.
    """

    newer: Sequence[Entry] = ()
    older: Sequence[Entry] = ()
    reaches_start: bool = False
    more_newer: bool = False

    def in_zone(self, zone: tzinfo | None) -> Page:
        """The page with its times in `zone`; None is this machine's."""
        return replace(self, newer=_in_zone(self.newer, zone), older=_in_zone(self.older, zone))


@dataclass(frozen=True, slots=True)
class LogBuffer:
    """A window of the log that ends with its newest line.

    `lines` are those held, by ascending id, at most `capacity`. `shown` are those of them that pass the level and,
    with `only_matches`, the search. `matches` are the ids of the shown lines that contain `find`, whatever its case.
    `marks` are the ids of the marked lines. `reaches_start` is True if the log has no line before the first one held.
    """

    lines: tuple[Entry, ...] = ()
    shown: tuple[Entry, ...] = ()
    matches: tuple[int, ...] = ()
    marks: frozenset[int] = frozenset()
    find: str = ""
    only_matches: bool = False
    level: int = 0
    reaches_start: bool = False
    capacity: int = CAPACITY

    @property
    def first_id(self) -> int | None:
        """The id of the oldest line held; None if there is none."""
        return self.lines[0].id if self.lines else None

    @property
    def last_id(self) -> int | None:
        """The id of the newest line held; None if there is none."""
        return self.lines[-1].id if self.lines else None

    @property
    def has_older(self) -> bool:
        """True if the log has lines before those held, and there is room for them."""
        return not self.reaches_start and 0 < len(self.lines) < self.capacity

    @property
    def hides_lines(self) -> bool:
        """True if the level or the search may hide lines."""
        return bool(self.level or (self.only_matches and self.find))

    def shows(self, line: Entry) -> bool:
        """True if `line` passes the level and, with `only_matches`, the search."""
        if line.level in LEVELS and LEVELS.index(line.level) < self.level:
            return False
        return not (self.only_matches and self.find) or self.is_match(line)

    def is_match(self, line: Entry) -> bool:
        """True if there is a search and `line` contains its text."""
        return bool(self.find) and line.mentions(self.find.lower())

    # Lines come

    def with_page(self, page: Page, *, asked_for_older: bool) -> LogBuffer:
        """The buffer with what was read for it. The first page fills the buffer; `older` are used if asked for."""
        was_empty = not self.lines
        lowest = 0 if was_empty or self.reaches_start else self.lines[0].id
        newer = [line for line in page.newer if line.id > lowest]
        older = list(page.older) if asked_for_older else []
        is_whole = page.reaches_start if was_empty or asked_for_older else self.reaches_start
        if not older and not newer:
            return replace(self, reaches_start=is_whole)
        lines = _merged(older, self.lines, newer)
        fits = len(lines) <= self.capacity
        return self._with_lines(older, newer, lines[-self.capacity :], reaches_start=is_whole and fits)

    def _with_lines(
        self, older: list[Entry], newer: list[Entry], lines: tuple[Entry, ...], *, reaches_start: bool
    ) -> LogBuffer:
        """The buffer that holds `lines`: among them the `older` and `newer` ones, if there is room for them."""
        first = lines[0].id
        shown_older, shown_newer = list(filter(self.shows, older)), list(filter(self.shows, newer))
        shown = _merged(shown_older, self.shown, shown_newer)
        older_ids = [line.id for line in shown_older if self.is_match(line)]
        newer_ids = [line.id for line in shown_newer if self.is_match(line)]
        matches = (*older_ids, *self.matches, *newer_ids)
        if self.matches and newer_ids and newer_ids[0] < self.matches[-1]:
            matches = tuple(sorted(set(matches)))
        return replace(
            self,
            lines=lines,
            shown=shown[bisect_left(shown, first, key=_id) :],
            matches=matches[bisect_left(matches, first) :],
            marks=frozenset(line_id for line_id in self.marks if line_id >= first),
            reaches_start=reaches_start,
        )

    # Choices of the operator

    def with_level(self, level: int) -> LogBuffer:
        """The buffer that shows `LEVELS[level]` and worse."""
        return _chosen_anew(replace(self, level=level))

    def with_search(self, find: str, *, only_matches: bool) -> LogBuffer:
        """The buffer that searches for `find`, and shows only the lines that match if `only_matches`."""
        return _chosen_anew(replace(self, find=find, only_matches=only_matches))

    def with_mark(self, line_id: int) -> LogBuffer:
        """The buffer with this line marked, or unmarked if it was."""
        return replace(self, marks=self.marks ^ {line_id})

    def in_zone(self, zone: tzinfo | None) -> LogBuffer:
        """The buffer with its times in `zone`; None is this machine's. A search finds times as they are shown."""
        return _chosen_anew(replace(self, lines=_in_zone(self.lines, zone)))

    # Places and neighbours

    def place_of(self, line_id: int) -> int:
        """The index among the shown lines of the one with this id, else of the next one, else of the last one."""
        return max(0, min(bisect_left(self.shown, line_id, key=_id), len(self.shown) - 1))

    def line(self, line_id: int | None) -> Entry | None:
        """The shown line with this id; None if there is none."""
        if line_id is None or not self.shown:
            return None
        line = self.shown[self.place_of(line_id)]
        return line if line.id == line_id else None

    def match_number(self, line_id: int | None) -> int | None:
        """Which match this line is, from 1; None if it is none."""
        place = bisect_left(self.matches, line_id) if line_id is not None else len(self.matches)
        return place + 1 if place < len(self.matches) and self.matches[place] == line_id else None

    def shown_above(self, line_id: int) -> int | None:
        """The id of the shown line before this id; None if there is none."""
        place = bisect_left(self.shown, line_id, key=_id)
        return self.shown[place - 1].id if place else None

    def match_above(self, line_id: int) -> int | None:
        """The id of the nearest match before this id; None if there is none."""
        place = bisect_left(self.matches, line_id)
        return self.matches[place - 1] if place else None

    def match_below(self, line_id: int) -> int | None:
        """The id of the nearest match after this id; None if there is none."""
        place = bisect_right(self.matches, line_id)
        return self.matches[place] if place < len(self.matches) else None

    def failure_above(self, line_id: int) -> int | None:
        """The id of the nearest shown failure before this id; None if there is none."""
        above = self.shown[: bisect_left(self.shown, line_id, key=_id)]
        return next((line.id for line in reversed(above) if line.is_failure), None)

    def failure_below(self, line_id: int) -> int | None:
        """The id of the nearest shown failure after this id; None if there is none."""
        below = self.shown[bisect_right(self.shown, line_id, key=_id) :]
        return next((line.id for line in below if line.is_failure), None)


def _in_zone(lines: Sequence[Entry], zone: tzinfo | None) -> tuple[Entry, ...]:
    return tuple(replace(line, at=line.at.astimezone(zone)) for line in lines)


def _id(line: Entry) -> int:
    return line.id


def _chosen_anew(buffer: LogBuffer) -> LogBuffer:
    """`buffer` with the shown lines and the matches chosen among all lines held."""
    shown = tuple(filter(buffer.shows, buffer.lines))
    return replace(buffer, shown=shown, matches=tuple(line.id for line in shown if buffer.is_match(line)))


def _merged(older: list[Entry], held: tuple[Entry, ...], newer: list[Entry]) -> tuple[Entry, ...]:
    """All of them by ascending id, each id once. `newer` may hold late lines, which belong among the `held` ones."""
    lines = (*older, *held, *newer)
    if not held or not newer or held[-1].id < newer[0].id:
        return lines
    return tuple({line.id: line for line in sorted(lines, key=_id)}.values())
