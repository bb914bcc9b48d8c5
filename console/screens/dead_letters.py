"""The dead-letter queue: find, mark, replay, edit, discard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.actions import DEAD
from console.flows.discard import DiscardFlow
from console.flows.replay import ReplayFlow
from console.keymap import key_of
from console.screens.delivery_list import DeliveryList
from console.screens.list_actions import ListActions
from console.screens.view import View
from relay.domain.delivery import State
from relay.incident.cause import REPLAYED

if TYPE_CHECKING:
    from console.data.context import Context
    from relay.incident.cause import Headline


class DeadLettersView(ListActions, View):
    """Dead letters, newest first."""

    VIEW = DEAD
    NAME = "dead-letters"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.list = DeliveryList(self, DEAD, (State.DEAD,))
        self._replay = ReplayFlow(self, when_sent=self.list.marks.clear)
        self._discard = DiscardFlow(self, when_sent=self.list.marks.clear)

    def action_back(self) -> None:
        """Close the search box, else unmark all, else clear the filter, else go back."""
        if self.list.close_filter():
            return
        if self.list.marks:
            self.action_unmark()
        elif self.list.filter:
            self.list.set_filter("")
        else:
            super().action_back()

    def action_zoom(self) -> None:
        """Give the list all of the room, or take it back."""
        self.toggle_class("zoomed")

    def hint(self, cause: Headline) -> str:
        """Return that all can be replayed, if the headline says that they wait and all of them are listed."""
        if cause.kind in REPLAYED and not self.list.filter and not self.context.read_only:
            return f"  {key_of(DEAD, 'replay_all')} replays all"
        return super().hint(cause)

    # Marks

    def action_mark(self) -> None:
        """Mark or unmark the row, and move on to the next."""
        if (row := self.list.pick()) is not None:
            self.list.marks.toggle(row.id)
            self.show_again()
            self.action_cursor("down")

    def action_mark_range(self) -> None:
        """Mark all rows from the last mark to here; without one, mark this row."""
        if (row := self.list.pick()) is not None:
            self.list.marks.mark_range(row.id, self.list.row_ids)
            self.show_again()

    def action_mark_all(self) -> None:
        """Mark all that match the filter, shown or not; space then unmarks one."""
        if not self.list.row_ids:
            self.list.say_empty()
            return
        self.list.marks.mark_all()
        self.show_again()

    def action_unmark(self) -> None:
        """Unmark all."""
        self.list.marks.clear()
        self.show_again()

    # What can be done

    def action_replay(self) -> None:
        """Replay the marked ones, else the row under the cursor."""
        self._apply(self._replay)

    def action_discard(self) -> None:
        """Discard the marked ones, else the row under the cursor."""
        self._apply(self._discard)

    def _apply(self, flow: ReplayFlow | DiscardFlow) -> None:
        marks = self.list.marks
        if marks.all_but is not None:
            flow.matching(self.list.filter, but=marks.all_but)
        elif marks.ids:
            flow.rows(sorted(marks.ids))
        elif (row := self.list.pick()) is not None:
            flow.rows([row.id])
        else:
            self.list.say_empty()

    def action_replay_all(self) -> None:
        """Replay all that match."""
        if self.list.is_empty:
            self.list.say_empty()
        else:
            self._replay.matching(self.list.filter)

    def action_edit(self) -> None:
        """Edit the payload, then replay it."""
        if (row := self.list.pick()) is not None:
            self._replay.edit(row.id)
        else:
            self.list.say_empty()
