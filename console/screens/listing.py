"""What dead letters and deliveries share: a filtered list that stays live, and a look at the row under the cursor."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from console.data.snapshot import TooSlow
from console.flows.replay import Replaying
from console.render import rows as layout
from console.render.details import attempt_lines, headline, peek
from console.render.formatting import span
from console.render.rows import WINDOW, Page, RowsReading
from console.render.wrapping import flowing, hanging
from console.screens.view import View
from console.widgets.lines import Line, LineList
from relay.delivery import State
from relay.errors import FilterError, RelayError
from relay.filters import compile_filter
from relay.text import clean

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.timer import Timer

    from console.data.snapshot import Snapshot
    from console.render.rows import Column
    from relay.store.browse import Detail, Key, Row

_PEEK_AFTER_S = 0.15
_TYPED_AFTER_S = 0.2
_OLD_S = 2.0


class RowsView(Replaying, View):
    """A filtered list of deliveries."""

    STATES: ClassVar[tuple[State, ...] | None] = None
    COLUMNS: ClassVar[tuple[Column, ...]]

    def __init__(self) -> None:
        super().__init__()
        self.filter_text = ""
        self._anchor: Key | None = None
        self._up = False
        self._rows: dict[int, Row] = {}
        self._page: Page | None = None
        self._marks: set[int] = set()
        self._last_mark: int | None = None
        self._detail: Detail | None = None
        self._all_marked = False
        self._spared: set[int] = set()
        self._too_slow: RowsReading | None = None
        self._filter_error = self._filter_before = ""
        self._typing: Timer | None = None
        self._looking = self._look_wanted = False
        self._painted: RowsReading | None = None

    def compose_body(self) -> ComposeResult:
        """Filter, list, and a look at one row."""
        yield Input(self.filter_text, id="filter", placeholder="error:503 since:14:02 conv:77 word !word", compact=True)
        yield Static("", id="filter-line", markup=False)
        with Container(id="columns"):
            with Vertical(id="rows-pane"):
                yield LineList(id="rows", newest_first=True)
            with VerticalScroll(id="peek", can_focus=False):
                yield Static("", id="peek-text", markup=False)

    def reading(self) -> RowsReading | None:
        """The window in sight; None if reading it took too long: that is not tried again and again."""
        wanted = RowsReading(self.filter_text, self.STATES, self._anchor, self._up, frozenset(self._marks))
        return None if wanted == self._too_slow else wanted

    @property
    def is_settled(self) -> bool:
        """True once the rows are those of the filter."""
        return self.reading() is None or self._painted == self.reading()

    def paint(self, snapshot: Snapshot) -> None:
        """Show the window, if it is the one wanted by now."""
        if snapshot.reading is None or snapshot.reading != self.reading():
            return
        self._painted = self.reading()
        if isinstance(snapshot.view, TooSlow) and isinstance(snapshot.reading, RowsReading):
            self._too_slow = snapshot.reading
            said = " That looks through too much to find it within a second: add age:<1h, error:503 or the like."
            self.query_one("#filter-line", Static).update(
                Content.assemble(("FILTERED ", "$text-warning bold"), clean(self.filter_text), (said, "$text-error"))
            )
            return
        if not isinstance(snapshot.view, Page):
            return
        page = snapshot.view
        self._page = page
        self._marks -= page.gone
        self._rows = {row.id: row for row in page.rows}
        if self._up:
            self._up = False
            self._anchor = None if page.live else _key_of(page.rows[0], self)
        pane = self.query_one("#rows", LineList)
        width = (pane.size.width or self.app.size.width) - 1
        columns, now = layout.fitted(self.COLUMNS, width), snapshot.overview.at
        pane.show(
            [Line(row.id, layout.line(row, columns, width, now, marked=self._is_marked(row.id))) for row in page.rows],
            header=layout.header(columns, width),
            empty=self._why_empty(snapshot),
        )
        self._paint_filter_line(snapshot)
        self._look()

    def _paint_filter_line(self, snapshot: Snapshot) -> None:
        page = self._page
        if self._filter_error:
            self.query_one("#filter-line", Static).update(Content.styled(clean(self._filter_error), "$text-error"))
            return
        if page is None:
            return
        every = snapshot.overview.open_dead_letters if self.STATES == (State.DEAD,) else None
        matching = "more than 10,000 match" if page.matching is None else f"{page.matching:,} match"
        hidden = "" if every is None or page.matching is None else f" · {max(0, every - page.matching):,} hidden"
        parts: list[tuple[str, str] | str] = []
        if self.filter_text:
            parts += [f"   {matching}{hidden}"]
        else:
            total = "more than 10,000" if page.matching is None else f"all {page.matching:,}"
            parts += [f"{total}, newest first; / filters"]
        if not page.live:
            parts += [("   older ones; g for the newest", "$text-warning")]
        if snapshot.view_age_s > _OLD_S:
            parts += [(f"   {span(snapshot.view_age_s)} old, for it takes long; ctrl+r reads anew", "$text-warning")]
        marked = self._marked_text()
        if marked:
            parts += [("   " + marked, "$text-warning bold")]
        line = Content.assemble(*parts)
        if self.filter_text:  # which is cut where there is no room for it: what it finds is not
            head, text = Content.styled("FILTERED ", "$text-warning bold"), Content(clean(self.filter_text))
            room = self.app.size.width - 2 - head.cell_length - line.cell_length
            line = head + text.truncate(max(8, room), ellipsis=True) + line
        self.query_one("#filter-line", Static).update(line)

    def _marked_text(self) -> str:
        if self._all_marked:
            return f"all but {len(self._spared)} marked" if self._spared else "all marked"
        return f"{len(self._marks)} marked" if self._marks else ""

    def _is_marked(self, row_id: int) -> bool:
        return row_id not in self._spared if self._all_marked else row_id in self._marks

    def _unmark_all(self) -> None:
        self._marks.clear()
        self._spared.clear()
        self._all_marked = False

    def say_empty(self) -> None:
        """Say why a key did nothing."""
        self.console.say("Nothing matches the filter" if self.filter_text else "There is nothing in the list")

    def _why_empty(self, snapshot: Snapshot) -> Content:
        if self.filter_text:
            return Content.styled("   Nothing matches the filter. esc clears it.", "$text-muted")
        age_s = snapshot.overview.last_webhook_age_s
        came = "no webhook has come yet" if age_s is None else f"the last webhook came {span(age_s)} ago"
        what = "No dead letter waits" if self.STATES else "No delivery"
        return Content.styled(f"   {what}; {came}.", "$text-muted")

    # The filter

    def set_filter(self, text: str) -> None:
        """Show what `text` matches; it is one that parses."""
        self.filter_text = text
        self._anchor, self._up = None, False
        self._unmark_all()
        if self.is_mounted:
            self.query_one("#filter", Input).value = text
            self.query_one("#rows", LineList).to_newest()
        self.console.read_now()

    def action_filter(self) -> None:
        """Open the filter."""
        self._filter_before = self.filter_text
        box = self.query_one("#filter", Input)
        box.add_class("open")
        box.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter as it is typed, whenever it parses and the fingers rest: half a word is looked for nowhere."""
        if event.input.id != "filter":
            return
        if self._typing is not None:
            self._typing.stop()
        try:
            compile_filter(event.value)
        except FilterError as error:
            self._filter_error = str(error)
        else:
            self._filter_error = ""
            self._typing = self.set_timer(_TYPED_AFTER_S, partial(self._filter_by, event.value))
        if self.console.snapshot is not None:
            self._paint_filter_line(self.console.snapshot)

    def _filter_by(self, text: str) -> None:
        """Show what `text` matches, which parses, from the newest on."""
        if self._typing is not None:
            self._typing.stop()
        if text != self.filter_text:
            self.filter_text = text
            self._anchor, self._up = None, False
            self._all_marked = False
            self._spared.clear()
            self.console.read_now()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Back to the rows, filtered by what was typed if that parses."""
        if event.input.id == "filter" and not self._filter_error:
            self._filter_by(event.value)
            event.input.remove_class("open")
            self.query_one("#rows", LineList).focus()

    def action_back(self) -> None:
        """Close the filter box, then clear the filter, then go back.

        What was typed stands; what does not parse was never meant, nor was what its beginning happens to match.
        """
        box = self.query_one("#filter", Input)
        if box.has_class("open"):
            if self._filter_error:
                box.value = self._filter_before
            self._filter_by(box.value)
            box.remove_class("open")
            self.query_one("#rows", LineList).focus()
        elif self._marks or self._all_marked:
            self.action_unmark()
        elif self.filter_text:
            self.set_filter("")
        else:
            super().action_back()

    # The window

    def on_line_list_edge(self, event: LineList.Edge) -> None:
        """Move the window when the cursor leaves it."""
        if self._page is None or not self._page.rows:
            return
        if event.up and self._anchor is not None:
            self._anchor, self._up = _key_of(self._page.rows[0], self), True
        elif not event.up and len(self._page.rows) >= WINDOW:
            self._anchor = _key_of(self._page.rows[WINDOW // 2], self)
        else:
            return
        self.console.read_now()

    def action_refresh_now(self) -> None:
        """Read anew, also what took too long before."""
        self._too_slow = None
        super().action_refresh_now()

    def action_cursor(self, where: str) -> None:
        """Move the cursor; the top is the newest row, whatever window is in sight."""
        if where == "top" and self._anchor is not None:
            self._anchor, self._up = None, False
            self.console.read_now()
        super().action_cursor(where)

    def on_line_list_moved(self) -> None:
        """Look at the row that the cursor stays on."""
        self._look()

    def _look(self) -> None:
        """Look at the row under the cursor; if that is being done, once more after it. No look is broken off."""
        self._look_wanted = True
        if not self._looking:
            self._looking = True
            self._keep_looking()

    @work(group="look")
    async def _keep_looking(self) -> None:
        try:
            while self._look_wanted and self.is_up:
                self._look_wanted = False
                await self._look_closely()
        finally:
            self._looking = False

    async def _look_closely(self) -> None:
        """Show the row under the cursor in the peek; while the cursor is on its way, once it rests for a moment."""
        while (since_s := time.monotonic() - self.query_one("#rows", LineList).moved_at) < _PEEK_AFTER_S:
            await asyncio.sleep(_PEEK_AFTER_S - since_s)
            if not self.is_up:
                return
        row = self.row
        text = self.query_one("#peek-text", Static)
        if row is None:
            text.update("")
            return
        known = self._detail
        if known is None or (known.row.id, known.row.run, known.row.state) != (row.id, row.run, row.state):
            try:
                known = await self.console.desk.detail(row.id)
            except RelayError as error:
                text.update(Content(str(error)))
                return
            self._detail = known
        if known is None or not self.is_up or self.row is None or self.row.id != known.row.id:
            return
        width = max(20, self.query_one("#peek").scrollable_content_region.width)
        lines = [
            *flowing(headline(known), width),
            *attempt_lines(known),
            Content(""),
            *peek(known).split("\n", allow_blank=True),
        ]
        text.update(Content("\n").join(hanging(lines, width)))

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        key = self.query_one("#rows", LineList).key
        return self._rows.get(key) if isinstance(key, int) else None

    def on_line_list_opened(self) -> None:
        """Open the delivery."""
        from console.screens.detail import DetailView  # noqa: PLC0415 - loaded when it is first wanted

        if self.row is not None:
            self.app.push_screen(DetailView(self.row.id))

    def action_zoom(self) -> None:
        """Give the list all of the room, or take it back."""
        self.toggle_class("zoomed")

    def action_unmark(self) -> None:
        """Nothing is marked here."""

    # Copying

    def action_copy(self) -> None:
        """Copy the delivery id."""
        if self.row is None:
            self.say_empty()
            return
        self.app.copy_to_clipboard(self.row.delivery_id)
        self.console.say(f"Copied {self.row.delivery_id}")

    def action_copy_curl(self) -> None:
        """Copy a curl command that sends the delivery to the agent."""
        from console.render.curl import copy_curl  # noqa: PLC0415

        if self.row is None:
            self.say_empty()
            return
        self.look_up(copy_curl(self.console, self.row.id))


def _key_of(row: Row, view: RowsView) -> Key:
    return row.dead_key if view.STATES == (State.DEAD,) else row.key
