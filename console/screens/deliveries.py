"""All deliveries, in every state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.actions import DELIVERIES
from console.screens.delivery_list import DeliveryList
from console.screens.list_actions import ListActions
from console.screens.view import View

if TYPE_CHECKING:
    from console.data.context import Context


class DeliveriesView(ListActions, View):
    """All deliveries, newest first."""

    VIEW = DELIVERIES
    NAME = "deliveries"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.list = DeliveryList(self, DELIVERIES, None)

    def action_back(self) -> None:
        """Close the search box, else clear the filter, else go back."""
        if self.list.close_filter():
            return
        if self.list.filter:
            self.list.set_filter("")
        else:
            super().action_back()
