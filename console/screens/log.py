"""The forwarding log: follows its end, filters by level and text, finds text and failures, opens a line's delivery.

The screen maps keys to methods of `LogNavigation` and paints the result. It begins with the newest lines. The poller
reads older ones page by page, for as long as the `LogNavigation` asks for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from console.actions import LOG
from console.data.log_buffer import Page
from console.data.log_navigation import LogNavigation
from console.data.log_reading import LogReading
from console.flows.export import ask_export
from console.flows.requests import Copy, OpenDelivery, ReadNow
from console.keymap import key_of
from console.render.export import LINE_FIELDS, line_values
from console.render.log_lines import DrawnLines, draw
from console.render.log_state import state_line
from console.render.search import highlighted, places
from console.screens.view import View
from console.widgets.lines import LineList
from console.widgets.search_box import SearchBox
from console.widgets.text import Text

if TYPE_CHECKING:
    from collections.abc import Hashable

    from textual.app import ComposeResult

    from console.data.context import Context
    from console.data.log_buffer import LogBuffer
    from console.data.log_entry import Entry
    from console.data.snapshot import Snapshot

_EMPTY = "  No webhook yet: the log is empty."


def _hidden() -> str:
    level, only, back = (key_of(LOG, name) for name in ("level", "only", "back"))
    return f"  None of these lines is shown: {level} changes the level, {only} and {back} change the search."


class LogView(View):
    """The newest 50,000 lines of the log. Only those in sight are drawn."""

    VIEW = LOG

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._log = LogNavigation()

    def compose_body(self) -> ComposeResult:
        """Return the search box, the state line, the lines, and the line under the cursor in full."""
        matches = f"{key_of(LOG, 'find_next')} and {key_of(LOG, 'find_previous')}"
        yield SearchBox(
            id="filter", placeholder=f"find in the lines; {matches} go from match to match", returns_to="#log-lines"
        )
        yield Text("", id="filter-line")
        with Vertical(id="rows-pane"):
            yield LineList(id="log-lines")
            yield Text("", id="whole")

    def reading(self) -> LogReading:
        """Return the reading of the lines that the buffer does not hold yet."""
        buffer = self._log.buffer
        return LogReading(buffer.last_id, buffer.first_id if self._log.wants_older else None, self._log.gaps.ids)

    def forget(self) -> None:
        """Show the times of the lines held in the zone chosen now."""
        self._update(self._seen.in_zone(self.context.choices.zone))
        self._show_lines(self._log.buffer)  # equal times of two zones are equal, so they count as no change

    def paint(self, snapshot: Snapshot) -> None:
        """Take the lines that were read, and show them."""
        page = snapshot.view
        if isinstance(page, Page) and snapshot.reading == self.reading():
            page = page.in_zone(self.context.choices.zone)  # it may have been read before the zone was chosen
            self._update(self._seen.with_page(page, now=snapshot.read_at))
            if self._log.is_behind:
                self.request(ReadNow())

    @property
    def _list(self) -> LineList:
        return self.query_one("#log-lines", LineList)

    @property
    def _seen(self) -> LogNavigation:
        """The state with the list's cursor: the list moves it by itself, on keys and clicks."""
        key = self._list.key
        return self._log.as_seen(cursor=key if isinstance(key, int) else None, rows=self._list.size.height)

    # Painting

    def _update(self, log: LogNavigation) -> None:
        """Take `log` as the state and show it. Have older lines read if it asks for them."""
        before, self._log = self._log.buffer, log
        buffer = log.buffer
        if not buffer.lines or (before.shown, before.find, before.marks) != (buffer.shown, buffer.find, buffer.marks):
            self._show_lines(before)
        if log.cursor is not None and log.cursor != self._list.key:
            self._list.move_to(buffer.place_of(log.cursor))
        self.query_one("#filter-line", Static).update(state_line(log, width=self.app.size.width - 2))
        self.set_class(not log.is_following, "held")
        if not log.is_following and log.current is not None:
            self.query_one("#whole", Static).update(draw(log.current))
        if log.wants_older:
            self.request(ReadNow())

    def _show_lines(self, before: LogBuffer) -> None:
        """Show the lines. If some have come above the first row while the cursor is on it, it keeps its place."""
        lines, buffer, was_first = self._list, self._log.buffer, self._list.cursor == 0
        empty = Content(_hidden() if buffer.lines else _EMPTY)
        lines.show(DrawnLines(buffer.shown, self._draw), place_of=self._place_of, empty=empty)
        above = buffer.place_of(before.shown[0].id) if before.shown else 0
        if was_first and above and not self._log.is_following:
            lines.scroll_to(y=above, animate=False, immediate=True, force=True)

    def _draw(self, entry: Entry) -> Content:
        content, find = draw(entry), self._log.buffer.find
        if find:
            content = highlighted(content, places(content.plain, find), None)
        is_marked = entry.id in self._log.buffer.marks
        return (Content.styled("■", "$text-warning bold") if is_marked else Content(" ")) + content

    def _place_of(self, key: Hashable) -> int | None:
        return self._log.buffer.place_of(key) if isinstance(key, int) and self._log.buffer.shown else None

    # Moving

    def action_cursor(self, where: str) -> None:
        """Move the cursor and hold. The bottom follows the log's end; the top is the log's first line."""
        if where == "bottom":
            self._update(self._seen.followed())
        elif where == "top":
            self._update(self._seen.at_start())
        else:
            self._update(self._seen.held())
            super().action_cursor(where)

    def on_line_list_moved(self) -> None:
        """Show the line that the cursor is on; hold if it has left the last one."""
        self._update(self._seen)

    def on_line_list_edge(self, event: LineList.Edge) -> None:
        """Read the line above the first one."""
        if event.up:
            self._update(self._seen.above_first())

    def action_follow(self) -> None:
        """Follow the end, or hold."""
        self._update(self._seen.follow_toggled())

    def action_next_failure(self) -> None:
        """Go to the next failure."""
        self._update(self._seen.next_failure())

    def action_previous_failure(self) -> None:
        """Go to the failure before."""
        self._update(self._seen.previous_failure())

    # Filter and search

    def action_level(self) -> None:
        """Show the next level and worse."""
        self._update(self._seen.next_level())

    def action_only(self) -> None:
        """Hide the lines that do not match, or show them again."""
        self._update(self._seen.only_matches_toggled())

    def action_find(self) -> None:
        """Open the search box."""
        self.query_one(SearchBox).open()

    def on_search_box_submitted(self, event: SearchBox.Submitted) -> None:
        """Search, from the cursor up."""
        self._update(self._seen.searched(event.text))

    def action_find_next(self) -> None:
        """Go to the next match."""
        self._update(self._seen.next_match())

    def action_find_previous(self) -> None:
        """Go to the match before."""
        self._update(self._seen.previous_match())

    def action_back(self) -> None:
        """Close the search box; else stop reading older lines; else end the search; else go back."""
        box = self.query_one(SearchBox)
        if box.is_open:
            box.close()
        elif self._log.wants_older:
            self._update(self._seen.reading_stopped())
        elif self._log.buffer.find:
            box.value = ""
            self._update(self._seen.searched(""))
        else:
            super().action_back()

    # One line

    def action_mark_line(self) -> None:
        """Mark the line, or unmark it."""
        self._update(self._seen.mark_toggled())

    def action_copy(self) -> None:
        """Copy the line."""
        entry = self._seen.current
        if entry is not None:
            self.request(Copy(draw(entry).plain, "Copied the line"))

    def action_export(self) -> None:
        """Export the lines that are shown."""
        ask_export(self, "log-lines", LINE_FIELDS, self._exported)

    async def _exported(self) -> list[tuple[Any, ...]]:
        return [line_values(entry) for entry in self._log.buffer.shown]

    def on_line_list_opened(self) -> None:
        """Open the line's delivery."""
        entry = self._seen.current
        if entry is None or entry.delivery_id is None:
            self.say("This line belongs to no delivery")
        else:
            self.in_background(self._open_delivery(entry.delivery_id))

    async def _open_delivery(self, delivery_id: str) -> None:
        row_id = await self.context.session.find(delivery_id)
        if row_id is None:
            self.say("That delivery is no longer stored", bad=True)
        elif self.is_in_front:
            self.request(OpenDelivery(row_id))
