"""Moving in the log: the cursor, following and holding, the search, and reading older lines for either. Pure.

Every value is frozen, every method returns a new value. The screen calls the method of the key that was pressed, reads
older lines while `wants_older`, and paints the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from console.data.log_buffer import LEVELS, LogBuffer
from console.data.log_gaps import Gaps

if TYPE_CHECKING:
    from datetime import tzinfo

    from console.data.log_buffer import Page
    from console.data.log_entry import Entry


class Goal(Enum):
    """What older lines are read for."""

    LINE_ABOVE = auto()
    START = auto()
    MATCH = auto()
    FAILURE = auto()
    SCREENFUL = auto()


class Notice(Enum):
    """What the last key has found. It is shown until the next key."""

    NONE = auto()
    TOP_REACHED = auto()
    WRAPPED_TO_BOTTOM = auto()
    WRAPPED_TO_TOP = auto()
    NO_FAILURE_ABOVE = auto()
    NO_FAILURE_BELOW = auto()
    NO_SEARCH = auto()


@dataclass(frozen=True, slots=True)
class LogNavigation:
    """A buffer with a cursor.

    `cursor` is the id of a shown line; None if no line is shown. While `is_following`, it is on the last shown line.
    `goal` is what older lines are read for, above the id `goal_from`; None if none are read. `is_behind` is True while
    newer lines are to be read than those held. `screen_rows` is how many lines the screen has room for;
    `may_fill_screen` is False once the operator has stopped the reading of older lines that fill it.
    """

    buffer: LogBuffer = field(default_factory=LogBuffer)
    gaps: Gaps = field(default_factory=Gaps)
    cursor: int | None = None
    is_following: bool = True
    is_behind: bool = False
    goal: Goal | None = None
    goal_from: int = 0
    notice: Notice = Notice.NONE
    screen_rows: int = 1
    may_fill_screen: bool = True

    @property
    def wants_older(self) -> bool:
        """True while lines before the first one held are to be read."""
        return self.goal is not None

    @property
    def current(self) -> Entry | None:
        """The line under the cursor; None if no line is shown."""
        return self.buffer.line(self.cursor)

    @property
    def here(self) -> int:
        """The id that a step begins at: that of the cursor; one after the last line held if no line is shown."""
        return self.cursor if self.cursor is not None else (self.buffer.last_id or 0) + 1

    # What comes from outside

    def with_page(self, page: Page, *, now: float) -> LogNavigation:
        """The state with the lines that were read for it. `now` is the time of reading, in seconds."""
        was_empty = not self.buffer.lines
        last = self.buffer.last_id
        if was_empty and page.reaches_start:
            last = 0  # the log began a moment ago: a line before the first one may still be committed
        state = replace(
            self,
            buffer=self.buffer.with_page(page, asked_for_older=self.wants_older),
            gaps=self.gaps.after_reading([line.id for line in page.newer], after=last, now=now),
            is_behind=page.more_newer and not was_empty,
        )
        if state.notice is Notice.NO_FAILURE_BELOW and any(map(_is_failure, page.newer)):
            state = replace(state, notice=Notice.NONE)
        return _advanced(_with_valid_cursor(state))

    def in_zone(self, zone: tzinfo | None) -> LogNavigation:
        """The state with its times in `zone`; None is this machine's. Search, level, marks and cursor stay."""
        return _with_valid_cursor(replace(self, buffer=self.buffer.in_zone(zone)))

    def as_seen(self, *, cursor: int | None, rows: int) -> LogNavigation:
        """The state as the list on the screen has it: with `rows` rows, and its cursor moved there by key or mouse.

        A cursor that leaves the last line holds the log. One that moves ends what older lines are read for.
        """
        state = self if rows == self.screen_rows else replace(self, screen_rows=rows)
        if cursor == self.cursor or self.buffer.line(cursor) is None:
            return state
        stays = self.is_following and cursor == self.buffer.shown[-1].id
        goal = self.goal if self.goal is Goal.SCREENFUL else None
        return replace(state, cursor=cursor, is_following=stays, goal=goal, notice=Notice.NONE)

    # Keys that move the cursor

    def held(self) -> LogNavigation:
        """Hold: new lines do not move the cursor. Nothing is read or said any more for an earlier key."""
        return replace(self, is_following=False, goal=None, notice=Notice.NONE)

    def followed(self) -> LogNavigation:
        """Follow: the cursor stays on the newest line."""
        return _with_valid_cursor(replace(self, is_following=True, goal=None, notice=Notice.NONE))

    def follow_toggled(self) -> LogNavigation:
        """Follow, or hold."""
        return self.held() if self.is_following else self.followed()

    def at_start(self) -> LogNavigation:
        """The cursor on the first line of the log; older lines are read until it is there."""
        return _reading_for(_on_first_line(self.held()), Goal.START)

    def above_first(self) -> LogNavigation:
        """The cursor on the line above the first one, once that is read."""
        return _reading_for(self.held(), Goal.LINE_ABOVE, above=self.here)

    def next_failure(self) -> LogNavigation:
        """The cursor on the next failure below, if there is one."""
        below = self.buffer.failure_below(self.here)
        return _at(self.held(), below) if below is not None else _saying(self, Notice.NO_FAILURE_BELOW)

    def previous_failure(self) -> LogNavigation:
        """The cursor on the failure above. It may have to be read; if there is none, the cursor stays."""
        return _gone_up(_saying(self, Notice.NONE), Goal.FAILURE, above=self.here)

    # The search

    def searched(self, text: str) -> LogNavigation:
        """Search for `text`. The cursor goes to the nearest match at or above it.

        If all matches held are below, it wraps around to the last of them. If no line held matches, older lines are
        read until one does. An empty text ends the search.
        """
        find, here = text.strip(), self.here
        buffer = self.buffer.with_search(find, only_matches=self.buffer.only_matches and bool(find))
        if not find:
            return _rearranged(self, buffer)
        state = _rearranged(self.held(), buffer)
        if buffer.matches and buffer.matches[0] > here:
            return replace(_at(state, buffer.matches[-1]), notice=Notice.WRAPPED_TO_BOTTOM)
        return _gone_up(state, Goal.MATCH, above=here + 1)

    def next_match(self) -> LogNavigation:
        """The cursor on the next match below; after the last one it wraps around to the first one held.

        If no line held matches, older lines are read until one does.
        """
        if not self.buffer.find:
            return _saying(self, Notice.NO_SEARCH)
        if not self.buffer.matches:
            return _reading_for(self.held(), Goal.MATCH, above=self.here)
        below = self.buffer.match_below(self.here)
        return _wrapped(self.held(), Notice.WRAPPED_TO_TOP) if below is None else _at(self.held(), below)

    def previous_match(self) -> LogNavigation:
        """The cursor on the match above, which may have to be read; above the first one it wraps to the last one."""
        if not self.buffer.find:
            return _saying(self, Notice.NO_SEARCH)
        return _gone_up(self.held(), Goal.MATCH, above=self.here)

    # Choices of what is shown

    def next_level(self) -> LogNavigation:
        """The next level as the lowest one shown; after the worst one, all lines again."""
        return _rearranged(self, self.buffer.with_level((self.buffer.level + 1) % len(LEVELS)))

    def only_matches_toggled(self) -> LogNavigation:
        """Show only the lines that match, or all again."""
        find, only = self.buffer.find, self.buffer.only_matches
        if not find:
            return _saying(self, Notice.NO_SEARCH)
        return _rearranged(self, self.buffer.with_search(find, only_matches=not only))

    def mark_toggled(self) -> LogNavigation:
        """Mark the line under the cursor, or unmark it."""
        return self if self.cursor is None else replace(self, buffer=self.buffer.with_mark(self.cursor))

    def reading_stopped(self) -> LogNavigation:
        """Read no further back, also not to fill the screen, until another key asks for it."""
        return replace(_saying(self, Notice.NONE), may_fill_screen=False)


def _is_failure(line: Entry) -> bool:
    return line.is_failure


def _saying(state: LogNavigation, notice: Notice) -> LogNavigation:
    """`state` with this notice. Nothing is read any more for an earlier key."""
    return replace(state, goal=None, notice=notice)


def _at(state: LogNavigation, line_id: int) -> LogNavigation:
    """`state` with the cursor on this line, held."""
    return replace(state, cursor=line_id, is_following=False, goal=None)


def _on_first_line(state: LogNavigation) -> LogNavigation:
    return _at(state, state.buffer.shown[0].id) if state.buffer.shown else state


def _with_valid_cursor(state: LogNavigation) -> LogNavigation:
    """`state` with its cursor on a shown line: the last one while it follows, else the nearest one."""
    shown, cursor = state.buffer.shown, state.cursor
    if not shown:
        return replace(state, cursor=None)
    at_end = state.is_following or cursor is None
    return replace(state, cursor=shown[-1 if at_end or cursor is None else state.buffer.place_of(cursor)].id)


def _rearranged(state: LogNavigation, buffer: LogBuffer) -> LogNavigation:
    """`state` with other lines shown. Older ones are read if these do not fill the screen."""
    return _advanced(_with_valid_cursor(replace(_saying(state, Notice.NONE), buffer=buffer, may_fill_screen=True)))


def _reading_for(state: LogNavigation, goal: Goal, *, above: int = 0) -> LogNavigation:
    """`state` that reads older lines for `goal`. If there are none, it says so, or wraps around to a match."""
    if state.buffer.has_older:
        return replace(state, goal=goal, goal_from=above)
    if goal is Goal.MATCH:
        return _wrapped(replace(state, goal=None), Notice.WRAPPED_TO_BOTTOM)
    return _saying(state, Notice.NO_FAILURE_ABOVE if goal is Goal.FAILURE else Notice.TOP_REACHED)


def _gone_up(state: LogNavigation, goal: Goal, *, above: int) -> LogNavigation:
    """`state` with the cursor on the nearest line before the id `above` that `goal` is about, or reading for it."""
    nearest = {
        Goal.MATCH: state.buffer.match_above,
        Goal.FAILURE: state.buffer.failure_above,
        Goal.LINE_ABOVE: state.buffer.shown_above,
    }[goal](above)
    return _reading_for(state, goal, above=above) if nearest is None else _at(state, nearest)


def _wrapped(state: LogNavigation, notice: Notice) -> LogNavigation:
    """`state` with the cursor on the match at the other end, and a notice unless it was there before."""
    matches = state.buffer.matches
    if not matches:
        return state
    end = matches[-1] if notice is Notice.WRAPPED_TO_BOTTOM else matches[0]
    return state if end == state.cursor else replace(_at(state, end), notice=notice)


def _advanced(state: LogNavigation) -> LogNavigation:
    """`state` after lines have come: its goal is reached, or given up, or more lines are read for it."""
    goal = state.goal
    if goal is Goal.START:
        return _reading_for(_on_first_line(state), goal)
    if goal is not None and goal is not Goal.SCREENFUL:
        return _gone_up(state, goal, above=state.goal_from)
    has_too_few = state.buffer.hides_lines and len(state.buffer.shown) < state.screen_rows
    fills = has_too_few and state.may_fill_screen and state.buffer.has_older
    return replace(state, goal=Goal.SCREENFUL if fills else None)
