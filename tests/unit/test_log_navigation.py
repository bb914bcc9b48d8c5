"""The log screen's state machine, key by key, against a model that knows only lists of lines and predicates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from console.data.log_buffer import LEVELS, LogBuffer, Page
from console.data.log_entry import Entry
from console.data.log_navigation import Goal, LogNavigation, Notice
from console.render.log_state import state_line

_CAPACITY, _FIRST, _OLDER, _NEWER = 14, 4, 3, 5
_WORDS = ("alpha", "beta", "Alpha beta")


def line(line_id: int, level: str = "info", message: str = "alpha") -> Entry:
    return Entry(line_id, datetime(2026, 11, 27, 9, 30, tzinfo=UTC), level, message, "", None)


@dataclass
class Log:
    """The log in the database, and reads of it as `LogReading` makes them, with small pages."""

    lines: dict[int, Entry]
    next_id: int = 1

    @property
    def all(self) -> list[Entry]:
        return [self.lines[line_id] for line_id in sorted(self.lines)]

    def page_for(self, state: LogNavigation) -> Page:
        first, last = state.buffer.first_id, state.buffer.last_id
        if first is None or last is None:
            newest = self.all[-_FIRST:]
            return Page(newer=newest, reaches_start=len(newest) < _FIRST)
        older = [one for one in self.all if one.id < first][-_OLDER:] if state.wants_older else []
        newer = [one for one in self.all if one.id > last][:_NEWER]
        late = [one for one in self.all if one.id in state.gaps.ids]
        return Page([*late, *newer], older, state.wants_older and len(older) < _OLDER, len(newer) >= _NEWER)


class LogScreenKeys(RuleBasedStateMachine):
    """Every key, every read and every move of the list's cursor, in any order."""

    @initialize(begun=st.integers(0, 30), level=st.sampled_from(LEVELS), rows=st.integers(1, 6))
    def a_log_begins(self, begun: int, level: str, rows: int) -> None:
        self.log = Log({i: line(i, level, _WORDS[i // 6 % 3]) for i in range(1, begun + 1)}, begun + 1)
        self.uncommitted: list[Entry] = []
        self.state = LogNavigation(buffer=LogBuffer(capacity=_CAPACITY), screen_rows=rows)
        self.held: list[Entry] = []
        self.fills = True  # older lines are read until the screen is full
        self.starts = False  # known to hold the first line of the log
        self.find, self.level, self.only, self.marks = "", 0, False, set[int]()

    # The model: what is shown, and where the nearest line is

    @property
    def shown(self) -> list[Entry]:
        return [one for one in self.held if LEVELS.index(one.level) >= self.level and (not self.only or self.hits(one))]

    def hits(self, one: Entry) -> bool:
        return self.find.lower() in one.message.lower() if self.find else False

    @property
    def hit_ids(self) -> list[int]:
        return [one.id for one in self.shown if self.hits(one)]

    @property
    def failure_ids(self) -> list[int]:
        return [one.id for one in self.shown if one.level != "info"]

    @property
    def may_read_older(self) -> bool:
        return not self.starts and 0 < len(self.held) < _CAPACITY

    # Lines are written and read

    @rule(
        levels=st.lists(st.sampled_from(LEVELS), min_size=1, max_size=8),
        word=st.sampled_from(_WORDS),
        late=st.booleans(),
    )
    def lines_are_written(self, levels: list[str], word: str, late: bool) -> None:
        """With `late` the first of them is committed later."""
        for level in levels:
            written = line(self.log.next_id, level, word)
            self.log.next_id += 1
            if late:
                self.uncommitted.append(written)
            else:
                self.log.lines[written.id] = written
            late = False
        self.read_a_page()

    @precondition(lambda self: self.uncommitted)
    @rule()
    def a_late_line_is_committed(self) -> None:
        """A line before all those held is rolled back instead, unless it is asked for."""
        late = self.uncommitted.pop(0)
        if not self.held or late.id > self.held[0].id or late.id in self.state.gaps.ids:
            self.log.lines[late.id] = late
        self.read_a_page()

    @rule()
    def a_page_is_read(self) -> None:
        self.read_a_page()

    @rule()
    def pages_are_read_until_the_goal_is_reached(self) -> None:
        self.read_a_page()
        while self.state.wants_older:
            self.read_a_page()

    def read_a_page(self) -> None:
        before, page = self.state, self.log.page_for(self.state)
        self.state = before.with_page(page, now=0)
        added = [one for one in page.newer if not self.held or self.starts or one.id > self.held[0].id]
        self.starts = page.reaches_start if before.wants_older or not self.held else self.starts
        held = sorted([*self.held, *added, *page.older], key=lambda one: one.id)
        self.starts = self.starts and len(held) <= _CAPACITY
        self.held = held[-_CAPACITY:]
        self.marks = {one.id for one in self.held if one.id in self.marks}
        self.check_goal(before)

    def check_goal(self, before: LogNavigation) -> None:
        """Where the cursor is after a read for `before.goal`, and what is said."""
        ids, goal, state = [one.id for one in self.shown], before.goal, self.state
        if goal in {None, Goal.SCREENFUL}:
            too_few = bool(self.level or self.only) and len(ids) < state.screen_rows
            assert (state.goal is Goal.SCREENFUL) == (too_few and self.fills and self.may_read_older)
        wanted = {Goal.MATCH: self.hit_ids, Goal.FAILURE: self.failure_ids, Goal.LINE_ABOVE: ids}.get(goal)
        if goal is Goal.START:
            assert state.cursor == (ids[0] if ids else None)
            assert state.goal is Goal.START or state.notice is Notice.TOP_REACHED
        elif wanted is not None:
            above = [line_id for line_id in wanted if line_id < before.goal_from]
            if above:
                assert (state.cursor, state.goal) == (above[-1], None)
            elif goal is Goal.MATCH and state.goal is None and wanted:
                assert state.cursor == wanted[-1]
                assert state.notice is Notice.WRAPPED_TO_BOTTOM or before.cursor in {None, wanted[-1]}
            elif state.goal is None and goal is not Goal.MATCH:
                assert state.notice in {Notice.NO_FAILURE_ABOVE, Notice.TOP_REACHED}

    # Keys

    @rule(text=st.sampled_from([*_WORDS, "ALPHA", " beta ", "gamma", ""]))
    def slash_and_enter(self, text: str) -> None:
        before = self.state
        self.find, self.only, self.fills = text.strip(), self.only and bool(text.strip()), True
        self.state = before.searched(text)
        if not self.find:
            return
        assert not self.state.is_following
        at_or_above = [line_id for line_id in self.hit_ids if line_id <= before.here]
        if at_or_above:
            assert (self.state.cursor, self.state.notice) == (at_or_above[-1], Notice.NONE)
        elif self.hit_ids:
            assert (self.state.cursor, self.state.notice) == (self.hit_ids[-1], Notice.WRAPPED_TO_BOTTOM)
        else:
            assert (self.state.goal is Goal.MATCH) == self.may_read_older

    @rule()
    def n(self) -> None:
        before, self.state = self.state, self.state.next_match()
        below = [line_id for line_id in self.hit_ids if line_id > before.here]
        self.check_step(before, below[:1], self.hit_ids[:1], Notice.WRAPPED_TO_TOP, reads=not self.hit_ids)

    @rule()
    def shift_n(self) -> None:
        before, self.state = self.state, self.state.previous_match()
        above = [line_id for line_id in self.hit_ids if line_id < before.here]
        self.check_step(before, above[-1:], self.hit_ids[-1:], Notice.WRAPPED_TO_BOTTOM, reads=True)

    def check_step(
        self, before: LogNavigation, nearest: list[int], far_end: list[int], notice: Notice, *, reads: bool
    ) -> None:
        state = self.state
        if not self.find:
            assert (state.notice, state.cursor) == (Notice.NO_SEARCH, before.cursor)
        elif nearest:
            assert (state.cursor, state.notice, state.is_following) == (nearest[0], Notice.NONE, False)
        elif reads and self.may_read_older:
            assert (state.goal, state.cursor) == (Goal.MATCH, before.cursor)
        elif far_end and far_end[0] != before.cursor:
            assert (state.cursor, state.notice) == (far_end[0], notice)
        else:
            assert (state.cursor, state.notice, state.goal) == (before.cursor, Notice.NONE, None)

    @rule()
    def next_failure(self) -> None:
        before, self.state = self.state, self.state.next_failure()
        below = [line_id for line_id in self.failure_ids if line_id > before.here]
        expected = (below[0], Notice.NONE) if below else (before.cursor, Notice.NO_FAILURE_BELOW)
        assert (self.state.cursor, self.state.notice) == expected

    @rule()
    def previous_failure(self) -> None:
        before, self.state = self.state, self.state.previous_failure()
        above = [line_id for line_id in self.failure_ids if line_id < before.here]
        if above:
            assert (self.state.cursor, self.state.notice) == (above[-1], Notice.NONE)
        elif self.may_read_older:
            assert (self.state.cursor, self.state.goal) == (before.cursor, Goal.FAILURE)
        else:
            assert (self.state.cursor, self.state.notice) == (before.cursor, Notice.NO_FAILURE_ABOVE)

    @rule(waits=st.booleans())
    def g(self, waits: bool) -> None:
        self.state = self.state.at_start()
        assert self.state.current is (self.shown[0] if self.shown else None)
        assert self.state.goal is Goal.START or (self.state.notice is Notice.TOP_REACHED and not self.may_read_older)
        if waits:
            self.pages_are_read_until_the_goal_is_reached()

    @rule()
    def shift_g(self) -> None:
        self.state = self.state.followed()
        assert self.state.is_following

    @rule()
    def f(self) -> None:
        before, self.state = self.state, self.state.follow_toggled()
        assert self.state.is_following != before.is_following

    @rule()
    def k_at_the_top(self) -> None:
        self.state = self.state.held().above_first()
        assert (self.state.goal is Goal.LINE_ABOVE) == self.may_read_older

    @rule()
    def l(self) -> None:  # noqa: E743 - the key
        self.level, self.fills = (self.level + 1) % len(LEVELS), True
        self.state = self.state.next_level()

    @rule()
    def o(self) -> None:
        self.only, self.fills = bool(self.find) and not self.only, self.fills or bool(self.find)
        self.state = self.state.only_matches_toggled()

    @rule()
    def m(self) -> None:
        self.marks ^= set() if self.state.cursor is None else {self.state.cursor}
        self.state = self.state.mark_toggled()

    @rule()
    def esc_stops_reading(self) -> None:
        self.state, self.fills = self.state.reading_stopped(), False
        assert not self.state.wants_older

    @precondition(lambda self: self.shown)
    @rule(data=st.data(), rows=st.integers(1, 6))
    def the_list_moves_its_cursor(self, data: st.DataObject, rows: int) -> None:
        before, place = self.state, data.draw(st.integers(0, len(self.shown) - 1))
        self.state = before.as_seen(cursor=self.shown[place].id, rows=rows)
        assert self.state.current is self.shown[place]
        if self.state.cursor != before.cursor:
            assert self.state.goal in {None, Goal.SCREENFUL}
            assert self.state.is_following == (before.is_following and place == len(self.shown) - 1)

    # What is always so

    @invariant()
    def the_state_is_that_of_the_model(self) -> None:
        buffer, state = self.state.buffer, self.state
        assert list(buffer.lines) == self.held
        assert list(buffer.shown) == self.shown
        assert list(buffer.matches) == self.hit_ids
        assert buffer.marks == self.marks
        assert (buffer.find, buffer.level, buffer.only_matches) == (self.find, self.level, self.only)
        assert state.current is None if not self.shown else state.current in self.shown
        if state.is_following and self.shown:
            assert state.cursor == self.shown[-1].id
        assert buffer.reaches_start == self.starts
        if buffer.reaches_start:
            assert not [one for one in self.log.all if self.held and one.id < self.held[0].id]

    @invariant()
    def what_is_said_is_true(self) -> None:
        said, state = state_line(self.state, width=200).plain, self.state
        assert ("FOLLOWING" in said or "CATCHING UP" in said) == state.is_following
        assert ("no match in" in said or "no match of" in said) == (
            bool(self.find) and not self.hit_ids and state.goal is not Goal.MATCH
        )
        if self.find and state.cursor in self.hit_ids:
            assert f"match {self.hit_ids.index(state.cursor) + 1} of {len(self.hit_ids)}" in said
        assert ("reading older lines" in said) == state.wants_older
        if state.wants_older:
            assert self.held
        if "the log begins here" in said and self.held and state.notice is not Notice.NONE:
            assert self.held[0] is self.log.all[0]


LogScreenKeys.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestLogScreenKeys = pytest.mark.timeout(300)(LogScreenKeys.TestCase)


def held(lines: list[Entry]) -> LogNavigation:
    """A state that holds these lines; the log may have older ones."""
    return LogNavigation().with_page(Page(newer=lines), now=0)


def test_a_line_that_is_committed_after_the_first_one_of_the_log_is_read() -> None:
    state = LogNavigation().with_page(Page(reaches_start=True), now=0)
    state = state.with_page(Page([line(2)], reaches_start=True), now=1)
    assert state.gaps.ids == (1,)
    assert [one.id for one in state.with_page(Page([line(1), line(3)]), now=2).buffer.lines] == [1, 2, 3]


def test_a_search_that_hides_all_lines_ends_at_the_nearest_older_match() -> None:
    state = held([line(9, message="new")]).searched("new").only_matches_toggled().searched("old")
    assert (state.cursor, state.goal) == (None, Goal.MATCH)
    older = [line(6, message="old"), line(7, message="old"), line(8, message="new")]
    assert state.with_page(Page(older=older), now=0).cursor == 7


def test_a_failure_that_comes_while_older_lines_are_read_is_not_the_one_above() -> None:
    state = held([line(8), line(9)]).previous_failure()
    assert (state.goal, state.is_following) == (Goal.FAILURE, True)
    new, older = [line(10, "error"), line(11)], [line(6, "error"), line(7)]
    assert state.with_page(Page(newer=new, older=older), now=0).cursor == 6


def test_a_full_buffer_keeps_no_mark_on_a_line_that_it_has_dropped() -> None:
    state = LogNavigation(buffer=LogBuffer(capacity=2)).with_page(Page([line(1)], reaches_start=True), now=0)
    state = state.mark_toggled().with_page(Page([line(2)]), now=0).mark_toggled()
    assert (state.buffer.marks, state.buffer.reaches_start) == ({1, 2}, True)
    state = state.with_page(Page([line(3)]), now=0)
    assert (state.buffer.marks, state.buffer.reaches_start) == ({2}, False)


def test_a_search_among_matches_alone_says_that_it_wrapped() -> None:
    lines = [line(1, message="old"), line(2, message="old"), line(3, message="new")]
    state = held(lines).searched("old").only_matches_toggled().searched("new")
    assert (state.cursor, state.notice) == (3, Notice.WRAPPED_TO_BOTTOM)


def test_esc_ends_the_reading_of_older_lines_that_fill_the_screen_until_the_choice_changes() -> None:
    state = held([line(8), line(9)]).next_level()
    assert state.goal is Goal.SCREENFUL
    stopped = state.reading_stopped().with_page(Page([line(10)]), now=1)
    assert stopped.goal is None
    assert stopped.next_level().goal is Goal.SCREENFUL
