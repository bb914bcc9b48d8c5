"""The dead-letter queue: find, mark, replay, edit, discard."""

from __future__ import annotations

from console.keymap import DEAD, bindings_of
from console.render import rows as layout
from console.screens.listing import RowsView
from console.widgets.lines import LineList
from relay.delivery import State


class DeadLettersView(RowsView):
    """The dead-letter queue: find, mark, replay, edit, discard."""

    VIEW = DEAD
    BINDINGS = bindings_of(DEAD)
    STATES = (State.DEAD,)
    COLUMNS = layout.DEAD_COLUMNS

    # Marks

    def _repaint_marks(self) -> None:
        if self.console.snapshot is not None:
            self.paint(self.console.snapshot)

    def action_mark(self) -> None:
        """Mark or unmark the row, and go on to the next."""
        row = self.row
        if row is None:
            return
        if self._all_marked:
            self._spared ^= {row.id}
        else:
            self._marks ^= {row.id}
        self._last_mark = row.id if self._is_marked(row.id) else None
        self._repaint_marks()
        self.action_cursor("down")

    def action_mark_range(self) -> None:
        """Mark all rows from the last mark to here; without one, mark this row, to go on from."""
        keys = [key for key in self.query_one("#rows", LineList).keys if isinstance(key, int)]
        if self.row is None:
            return
        here = keys.index(self.row.id)
        there = keys.index(self._last_mark) if self._last_mark in keys else here
        self._marks |= set(keys[min(here, there) : max(here, there) + 1])
        self._last_mark = self.row.id
        self._repaint_marks()

    def action_mark_all(self) -> None:
        """Mark all that match the filter, in sight or not; space then spares one."""
        if not self._rows:
            self.say_empty()
            return
        self._all_marked = True
        self._spared.clear()
        self._repaint_marks()

    def action_unmark(self) -> None:
        """Unmark all."""
        self._unmark_all()
        self._last_mark = None
        self._repaint_marks()

    # What can be done

    def action_replay(self) -> None:
        """Replay the marked, else the row under the cursor."""
        if self._all_marked:
            self.replay_matching(self.filter_text, but=self._spared)
        elif self._marks:
            self.replay_rows(sorted(self._marks))
        elif self.row is not None:
            self.replay_rows([self.row.id])
        else:
            self.say_empty()

    def action_replay_all(self) -> None:
        """Replay all that match."""
        if self._page is not None and not self._rows:
            self.say_empty()
        else:
            self.replay_matching(self.filter_text)

    def action_edit(self) -> None:
        """Edit the payload, then replay it."""
        if self.row is not None:
            self.edit(self.row.id)
        else:
            self.say_empty()

    def action_discard(self) -> None:
        """Discard the marked, else the row under the cursor."""
        if self._all_marked:
            self.discard_matching(self.filter_text, but=self._spared)
        elif self._marks:
            self.discard_rows(sorted(self._marks))
        elif self.row is not None:
            self.discard_rows([self.row.id])
        else:
            self.say_empty()

    def marks_served(self) -> None:
        """What was marked is dealt with: who presses `r` again means something else."""
        self._unmark_all()
