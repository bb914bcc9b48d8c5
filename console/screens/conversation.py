"""One conversation: everything that came of it, and what became of that, as a timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.content import Content

from console.actions import CONVERSATION
from console.data.readings import ConversationReading
from console.flows.requests import OpenDelivery
from console.render.conversation import timeline
from console.screens.view import View, titled
from console.widgets.lines import LineList
from console.widgets.text import entitle
from relay.store.conversation import Conversation

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from console.data.context import Context
    from console.data.snapshot import Snapshot


class ConversationView(View):
    """A screen on top of the one it was opened from."""

    VIEW = CONVERSATION
    ON_TOP = True

    def __init__(self, context: Context, conversation_id: str) -> None:
        super().__init__(context)
        self._conversation_id = conversation_id
        self._read = False

    def compose_body(self) -> ComposeResult:
        """Return the timeline."""
        with titled(Vertical(id="conversation-pane", classes="pane"), f"Conversation {self._conversation_id}"):
            yield LineList(id="conversation", empty="  reading …")

    @property
    def is_settled(self) -> bool:
        """True once the timeline is there."""
        return self._read

    def reading(self) -> ConversationReading:
        """Return the reading of this conversation."""
        return ConversationReading(self._conversation_id)

    def paint(self, snapshot: Snapshot) -> None:
        """Show a snapshot. The cursor begins at the newest line."""
        found = snapshot.view
        if snapshot.reading != self.reading() or not isinstance(found, Conversation):
            return
        lines = self.query_one("#conversation", LineList)
        shown = timeline(found, snapshot.overview.at, self.app.size.width - 2)
        older = "; older ones are not shown" if found.more else ""
        count = len(found.messages)
        title = f"Conversation {self._conversation_id} ─ {count} {'delivery' if count == 1 else 'deliveries'}{older}"
        entitle(self.query_one("#conversation-pane"), title)
        lines.show(shown, empty=Content("  No delivery of this conversation is stored."))
        if not self._read:
            self._read = True
            lines.move_to(len(shown) - 1)

    def on_line_list_opened(self, event: LineList.Opened) -> None:
        """Open the delivery of the line."""
        if isinstance(event.key, tuple) and event.key[0]:
            self.request(OpenDelivery(event.key[0]))
