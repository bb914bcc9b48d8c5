"""All deliveries, live, whatever became of them."""

from __future__ import annotations

from console.keymap import DELIVERIES, bindings_of
from console.render import rows as layout
from console.screens.listing import RowsView


class DeliveriesView(RowsView):
    """All deliveries, newest first."""

    VIEW = DELIVERIES
    BINDINGS = bindings_of(DELIVERIES)
    COLUMNS = layout.ALL_COLUMNS
