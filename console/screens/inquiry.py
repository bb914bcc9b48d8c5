"""What diagnosis and escalation share: a scroll on top of the view they were opened from, filled by work in the
background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from console.render.wrapping import hanging
from console.screens.scrolling import OnTop
from relay.errors import RelayError

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from console.data.snapshot import Snapshot


class InquiryView(OnTop):
    """A scroll of text. `look` fills it."""

    AUTO_FOCUS = SCROLL = "#inquiry"
    UNDER_WAY = "Looking: Postgres, Agent SDK, Chatwoot, this relay …"

    def compose_body(self) -> ComposeResult:
        """One scroll."""
        with VerticalScroll(id="inquiry"):
            yield Static(self.UNDER_WAY, id="inquiry-text", markup=False)

    def __init__(self) -> None:
        super().__init__()
        self._told: list[Content] = []
        self._width = 0

    def on_mount(self) -> None:
        """Begin to look."""
        self.run_worker(self._look(), group="inquiry", exclusive=True)

    async def _look(self) -> None:
        try:
            await self.look()
        except RelayError as error:
            self.fill([Content.styled(str(error), "$text-error")])

    async def look(self) -> None:
        """Gather what is to be shown, and `fill` the scroll."""
        raise NotImplementedError

    def fill(self, lines: list[Content]) -> None:
        """Show `lines`."""
        self._told = lines
        if self.is_up:
            self._width = self._room
            self.query_one("#inquiry-text", Static).update(Content("\n").join(hanging(lines, self._width)))

    @property
    def _room(self) -> int:
        laid_out = self.query_one("#inquiry", VerticalScroll).scrollable_content_region.width
        return laid_out or max(1, self.app.size.width - 3)

    def paint(self, snapshot: Snapshot) -> None:
        """What was found stands as it was found; only its lines break elsewhere in another width."""
        del snapshot
        if self._told and self._room != self._width:
            self.fill(self._told)

    def action_refresh_now(self) -> None:
        """Look anew."""
        self.fill([Content(self.UNDER_WAY)])
        self.on_mount()
