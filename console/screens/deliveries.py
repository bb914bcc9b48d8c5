"""All deliveries, in every state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.keymap import DELIVERIES
from console.render.rows import ALL_COLUMNS
from console.screens.delivery_list import DeliveryList
from console.screens.view import View

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from console.data.context import Context
    from console.data.readings import RowsReading
    from console.data.snapshot import Snapshot


class DeliveriesView(View):
    """All deliveries, newest first."""

    VIEW = DELIVERIES

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.list = DeliveryList(self, None, ALL_COLUMNS)

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
        self.list.window.retry()
        super().action_refresh_now()

    def action_cursor(self, where: str) -> None:
        """Move the cursor; the top is the newest row of all."""
        if where == "top":
            self.list.to_newest()
        super().action_cursor(where)

    def action_filter(self) -> None:
        """Open the filter."""
        self.list.open_filter()

    def action_back(self) -> None:
        """Close the search box, else clear the filter, else go back."""
        if self.list.close_filter():
            return
        if self.list.filter:
            self.list.set_filter("")
        else:
            super().action_back()

    def action_copy(self) -> None:
        """Copy the delivery id."""
        self.list.copy_id()

    def action_copy_curl(self) -> None:
        """Copy a curl command."""
        self.list.copy_curl()
