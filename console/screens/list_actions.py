"""What the two screens with a list of deliveries have in common: their list, and the keys that act on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from console.flows.export import ask_export_of_rows
from console.flows.requests import OpenConversation, OpenDelivery
from console.screens.view import View

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from console.data.readings import RowsReading
    from console.data.snapshot import Snapshot
    from console.screens.delivery_list import DeliveryList


class ListActions:
    """Mixed into a `View` before it. The screen sets `list`, and `NAME`, which its exports have."""

    NAME: ClassVar[str]
    list: DeliveryList

    def compose_body(self) -> ComposeResult:
        """Return the list."""
        yield self.list

    def reading(self) -> RowsReading | None:
        """Return the reading of the list's window."""
        return self.list.reading()

    @property
    def is_settled(self) -> bool:
        """True once the rows are those of the filter."""
        return self.list.window.is_settled

    def paint(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        self.list.show(snapshot)

    def action_refresh_now(self) -> None:
        """Refresh, also a filter that took too long."""
        assert isinstance(self, View)
        self.list.window.retry()
        View.action_refresh_now(self)

    def action_cursor(self, where: str) -> None:
        """Move the cursor; the top is the newest row of all."""
        assert isinstance(self, View)
        if where == "top":
            self.list.to_newest()
        View.action_cursor(self, where)

    def action_filter(self) -> None:
        """Open the filter."""
        self.list.open_filter()

    def action_sort(self) -> None:
        """Sort the rows by another column."""
        self.list.sort()

    def action_columns(self) -> None:
        """Choose the columns."""
        self.list.columns.ask()

    def action_export(self) -> None:
        """Export all that is listed."""
        assert isinstance(self, View)
        ask_export_of_rows(self, self.NAME, self.list.window)

    def action_copy(self) -> None:
        """Copy the delivery id."""
        self.list.copy_id()

    def action_copy_curl(self) -> None:
        """Copy a curl command."""
        self.list.copy_curl()

    def action_answers(self) -> None:
        """Open the delivery with the agent's answers in full."""
        assert isinstance(self, View)
        if (row := self.list.pick()) is None:
            self.list.say_empty()
        else:
            self.request(OpenDelivery(row.id, self.list.row_ids, answers=True))

    def action_conversation(self) -> None:
        """Open the conversation of the row under the cursor."""
        assert isinstance(self, View)
        row = self.list.pick()
        if row is None:
            self.list.say_empty()
        elif row.conversation_id is None:
            self.say("This delivery names no conversation")
        else:
            self.request(OpenConversation(row.conversation_id))
