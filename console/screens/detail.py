"""One delivery: what it is, every attempt, the payload, the headers, what was done with it before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from console import details
from console.actions import DETAIL, bindings_of
from console.curl import MOST_BYTES, copy_curl
from console.scrolling import OnTop
from relay.delivery import State
from relay.store import browse

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from console.snapshot import Snapshot
    from relay.store.browse import Detail
    from relay.store.database import Connection


@dataclass(frozen=True, slots=True)
class DetailReading:
    """Read one delivery."""

    row_id: int

    async def read(self, connection: Connection) -> Detail | None:
        """Read it; None if it is gone."""
        return await browse.detail(connection, self.row_id)


class DetailView(OnTop):
    """A screen on top of the list it was opened from."""

    VIEW = DETAIL
    BINDINGS = bindings_of(DETAIL)
    AUTO_FOCUS = SCROLL = "#detail"

    def __init__(self, row_id: int) -> None:
        super().__init__()
        self._row_id = row_id
        self._detail: Detail | None = None

    def compose_body(self) -> ComposeResult:
        """One scroll, section after section."""
        with VerticalScroll(id="detail"):
            for section in ("facts", "timeline", "payload", "headers", "history"):
                yield Static("", id=f"detail-{section}", classes="pane", markup=False)

    def on_mount(self) -> None:
        """Name the sections."""
        titles = {
            "facts": "Delivery",
            "timeline": "Attempts",
            "payload": "Payload",
            "headers": "Headers",
            "history": "Replays",
        }
        for section, title in titles.items():
            self.query_one(f"#detail-{section}").border_title = title

    @property
    def is_settled(self) -> bool:
        """True once the delivery is there."""
        return self._detail is not None

    def reading(self) -> DetailReading:
        """This delivery."""
        return DetailReading(self._row_id)

    def paint(self, snapshot: Snapshot) -> None:
        """Show the delivery as it stands now; what did not change is not painted again."""
        if snapshot.reading != self.reading():
            return
        detail = snapshot.view
        if detail is None:
            self.query_one("#detail-facts", Static).update("This delivery is gone: its retention is over.")
            return
        assert isinstance(detail, browse.Detail)
        if detail == self._detail:
            return
        fresh = self._detail is None
        self._detail = detail
        width = self.app.size.width - 4
        self._update("facts", details.facts(detail, self._link(detail)))
        self._update("timeline", details.timeline(detail, width))
        if fresh:
            self.query_one("#detail-payload", Static).update(details.payload(detail))
            self._update("headers", details.header_lines(detail))
        self._update("history", details.history(detail))

    def _update(self, section: str, lines: list[Content]) -> None:
        self.query_one(f"#detail-{section}", Static).update(Content("\n").join(lines))

    def _link(self, detail: Detail) -> str | None:
        settings, conversation = self.console.settings, detail.row.conversation_id
        if settings.chatwoot_base_url is None or not conversation or not conversation.isdigit():
            return None
        account = settings.chatwoot_account_id or 1
        return f"{settings.chatwoot_base_url}/app/accounts/{account}/conversations/{conversation}"

    def _is_dead(self) -> bool:
        if self._detail is not None and self._detail.row.state is State.DEAD:
            return True
        self.console.say("Only a dead letter can be replayed, edited or discarded", bad=True)
        return False

    def action_replay(self) -> None:
        """Replay this one."""
        if self._is_dead():
            self.replay_rows([self._row_id])

    def action_edit(self) -> None:
        """Edit the payload, then replay it."""
        if self._is_dead():
            self.edit(self._row_id)

    def action_discard(self) -> None:
        """Discard this one, with a reason."""
        if self._is_dead():
            self.discard_rows([self._row_id])

    def action_copy(self) -> None:
        """Copy the payload."""
        self.look_up(self._copy())

    async def _copy(self) -> None:
        body = await self.console.desk.body(self._row_id)
        if len(body) > MOST_BYTES:
            self.console.say(f"The payload is {len(body):,} bytes: too long for the clipboard of a terminal", bad=True)
            return
        self.app.copy_to_clipboard(body.decode("utf-8", "replace"))
        self.console.say(f"Copied the payload, {len(body):,} bytes")

    def action_copy_curl(self) -> None:
        """Copy a curl command."""
        self.look_up(copy_curl(self.console, self._row_id))
