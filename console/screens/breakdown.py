"""The breakdown: the window's deliveries by event and by inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.content import Content

from console.actions import BREAKDOWN, DELIVERIES
from console.data.context import WINDOWS
from console.data.readings import BreakdownReading
from console.data.snapshot import TooSlow
from console.flows.requests import GoTo, NextWindow
from console.keymap import key_of
from console.render.breakdown import header, share_line
from console.render.line import Line
from console.render.wrapping import title_of
from console.screens.view import View, titled
from console.widgets.lines import LineList
from console.widgets.text import entitle
from relay.domain.format import plural
from relay.store.breakdown import MOST_READ, Breakdown
from relay.store.browse import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from console.data.snapshot import Snapshot
    from relay.store.breakdown import Share


class BreakdownView(View):
    """Opened by `b`, on top of the screen that it was opened from. `tab` goes from one list to the other."""

    VIEW = BREAKDOWN
    ON_TOP = True
    AUTO_FOCUS = "#events"

    def compose_body(self) -> ComposeResult:
        """Return the two lists."""
        with titled(Vertical(id="events-pane", classes="pane"), "By event"):
            yield LineList(id="events", classes="calm", empty="  reading …")
        with titled(Vertical(id="inboxes-pane", classes="pane"), "By inbox"):
            yield LineList(id="inboxes", classes="calm", empty="  reading …")

    def reading(self) -> BreakdownReading:
        """Return the reading of the window."""
        return BreakdownReading(self.context.window)

    def paint(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        if snapshot.reading != self.reading():
            return
        found, window = snapshot.view, self.context.window_name
        if isinstance(found, TooSlow):
            slow = Content(
                f"  Reading takes longer than a second. {key_of(BREAKDOWN, 'window')} chooses another window,"
                f" {key_of(BREAKDOWN, 'refresh_now')} tries again."
            )
            self._show("events", "EVENT", [], slow)
            self._show("inboxes", "INBOX", [], slow)
        elif isinstance(found, Breakdown):
            read = plural(found.read, "delivery") if found.is_whole else f"the newest {MOST_READ:,} deliveries"
            width, of = self.app.size.width, f"{read} of the last {window}"
            keys = [f"{key_of(BREAKDOWN, 'window')} window", f"{key_of(BREAKDOWN, 'open')} lists"]
            entitle(self.query_one("#events-pane"), title_of(width, f"By event, {of}", keys=keys))
            keys = [f"{key_of(BREAKDOWN, 'app.focus_next')} goes there"]
            entitle(self.query_one("#inboxes-pane"), title_of(width, f"By inbox, {of}", keys=keys))
            empty = Content(f"  No delivery in the last {window}.")
            self._show("events", "EVENT", found.events, empty)
            self._show("inboxes", "INBOX", found.inboxes, empty)

    def _show(self, name: str, what: str, shares: Sequence[Share], empty: Content) -> None:
        largest, width = max((share.total for share in shares), default=1), self.app.size.width - 2
        self.query_one(f"#{name}", LineList).show(
            [Line(share.name, share_line(share, largest, width)) for share in shares],
            header=header(what, width),
            empty=empty,
        )

    def on_line_list_opened(self, event: LineList.Opened) -> None:
        """List the deliveries of the event or the inbox."""
        if not isinstance(event.key, str):
            return
        if not event.key:
            self.say("These deliveries name none: no filter finds them alone")
            return
        key = "inbox" if event.lines.id == "inboxes" else "event"
        age = {name: f"{int(window.total_seconds() // 60)}m" for name, window in WINDOWS.items()}
        window = age[self.context.window_name]
        self.request(GoTo(DELIVERIES, filter=f"{key}:{quoted(event.key)} age:<{window}"))

    def action_window(self) -> None:
        """Switch to the next window."""
        self.request(NextWindow())
