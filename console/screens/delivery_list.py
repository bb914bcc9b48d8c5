"""The filtered list of deliveries that the screens of dead letters and of all deliveries have."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Static

from console.data.row_window import Marks, RowWindow
from console.flows.columns import ColumnChoice
from console.flows.copy_curl import copy_curl
from console.flows.requests import Copy, OpenDelivery, ReadNow, Say
from console.keymap import key_of
from console.render import rows as table
from console.render.completion import completed, expanded, offered, offers
from console.render.line import Line
from console.screens.peek import Peek
from console.widgets.lines import LineList
from console.widgets.search_box import SearchBox
from console.widgets.text import Text
from relay.domain import filters
from relay.domain.delivery import State
from relay.domain.format import span
from relay.errors import FilterError
from relay.store.filters import compile_filter
from relay.store.sorted_rows import MOST_SORTED, Order
from relay.text import clean

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.timer import Timer

    from console.data.readings import RowsReading
    from console.data.snapshot import Snapshot
    from console.flows.host import Host
    from relay.store.browse import Row
    from relay.store.conversation import MessagePreview

_TYPED_AFTER_S = 0.2
"""A filter applies once no key has been typed into it for so long."""
_OLD_S = 2.0
_BY_HEAD = {
    "EVENT": Order.EVENT, "CONV": Order.CONVERSATION, "TRY": Order.ATTEMPTS, "STATUS": Order.STATUS,
    "CAUSE": Order.CAUSE, "TOOK": Order.DURATION, "AGE": Order.OLDEST, "DIED": Order.OLDEST, "RECEIVED": Order.OLDEST,
}  # fmt: skip
"""The orders that a click on a column's head chooses; a second click brings the newest first again."""


def _fault(text: str) -> str | None:
    """Return what is wrong with a filter, or None."""
    try:
        compile_filter(text)
    except FilterError as error:
        return str(error)
    return None


class DeliveryList(Vertical):
    """Search box, filter line, rows, and the side pane for the row under the cursor."""

    def __init__(self, host: Host, place: str, states: tuple[State, ...] | None) -> None:
        super().__init__()
        self.window = RowWindow(states)
        self.marks = Marks()
        self._host = host
        self._place = place
        self.columns = ColumnChoice(host, place, is_dead=states == (State.DEAD,), when_chosen=self._show_again)
        self._rows: dict[int, Row] = {}
        self._words: dict[int, MessagePreview] = {}
        self._asked_words: frozenset[int] = frozenset()
        self._error = ""
        self._offer: Content | None = None
        self._offered_for = ""
        self._typing: Timer | None = None

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        yield SearchBox(
            self.window.filter,
            id="filter",
            placeholder="error:503 since:14:02 conv:77 word !word",
            returns_to="#rows",
            check=_fault,
            history=lambda: self._host.context.choices.filters,
            completes=True,
        )
        yield Text("", id="filter-line")
        with Container(id="columns"):
            with Vertical(id="rows-pane"):
                yield LineList(id="rows", newest_first=True)
            yield Peek(self._host, lambda: self.row, lambda: self._list.moved_at)

    # What the screen uses

    @property
    def filter(self) -> str:
        """The filter."""
        return self.window.filter

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        key = self._list.key
        return self._rows.get(key) if isinstance(key, int) else None

    def pick(self) -> Row | None:
        """Return the row under the cursor for a key that acts on it; rows that come do not move it any more."""
        self._list.pin()
        return self.row

    @property
    def row_ids(self) -> list[int]:
        """The rows of the window."""
        return list(self._rows)

    @property
    def is_empty(self) -> bool:
        """True if the window was read and holds no row."""
        return self.window.page is not None and not self._rows

    def reading(self) -> RowsReading | None:
        """Return what is to be read."""
        return self.window.reading(frozenset(self.marks.ids), self._words, self._wordless)

    @property
    def _wordless(self) -> frozenset[int]:
        """The rows shown whose words are wanted and were not read yet: a body is read once."""
        wants_words = self.is_mounted and table.has_words(self.columns.shown, self._width)
        return frozenset(self._rows.keys() - self._words.keys()) if wants_words else frozenset()

    @property
    def _width(self) -> int:
        return (self._list.size.width or self.app.size.width) - 1

    def show(self, snapshot: Snapshot) -> None:
        """Show the window of `snapshot`, unless another one is wanted by now."""
        if not self.window.take(snapshot):
            return
        page = self.window.page
        if not self.window.is_too_slow and page is not None:
            self.marks.ids -= page.gone
            self._rows = {row.id: row for row in page.rows}
            for gone in self._words.keys() - self._rows.keys():
                del self._words[gone]
            width = self._width
            columns, now = table.fitted(self.columns.shown, width), snapshot.overview.at
            self._list.show(
                [
                    Line(row.id, table.line(row, columns, width, now, self._words, marked=row.id in self.marks))
                    for row in page.rows
                ],
                header=table.header(columns, width),
                empty=self._why_empty(snapshot),
            )
            self.query_one(Peek).follow()
            if (wordless := self._wordless) != self._asked_words:
                self._asked_words = wordless
                self._host.request(ReadNow())
        self._show_filter_line(snapshot)

    def set_filter(self, text: str) -> None:
        """Show what the valid filter `text` matches, with no row marked."""
        self.window.filter_by(text)
        self.marks.clear()
        if self.is_mounted:
            self.query_one(SearchBox).value = text
            self._list.to_newest()
        self._host.request(ReadNow())

    def open_filter(self) -> None:
        """Open the search box."""
        self.query_one(SearchBox).open()

    def close_filter(self) -> bool:
        """Close the search box. Returns False if it was closed."""
        box = self.query_one(SearchBox)
        was_open = box.is_open
        box.close()
        return was_open

    def to_newest(self) -> None:
        """Begin the window at the newest row."""
        if self.window.to_newest():
            self._host.request(ReadNow())

    def sort(self) -> None:
        """Sort by the next column."""
        orders = list(Order)
        self._sort_by(orders[(orders.index(self.window.order) + 1) % len(orders)])

    def _sort_by(self, order: Order) -> None:
        self.window.sort_by(order)
        self._list.to_newest()
        self._host.request(ReadNow())

    def say_empty(self) -> None:
        """Say why a key did nothing."""
        self._host.request(Say("Nothing matches the filter" if self.filter else "There is nothing in the list"))

    def copy_id(self) -> None:
        """Copy the delivery id of the row under the cursor."""
        if (row := self.pick()) is None:
            self.say_empty()
        else:
            self._host.request(Copy(row.delivery_id, f"Copied {row.delivery_id}"))

    def copy_curl(self) -> None:
        """Copy a curl command that sends the delivery under the cursor to the agent."""
        if (row := self.pick()) is None:
            self.say_empty()
        else:
            self._host.in_background(copy_curl(self._host, row.id))

    # Events of its widgets

    def on_search_box_changed(self, event: SearchBox.Changed) -> None:
        """Filter while it is typed, whenever the text is valid and typing pauses."""
        event.stop()
        if self._typing is not None:
            self._typing.stop()
        self._error = event.error
        if event.text != self._offered_for:
            self._offer = None
        if not event.error:
            self._typing = self.set_timer(_TYPED_AFTER_S, partial(self._filter_by, event.text))
        self._refresh_filter_line()

    def on_search_box_asked(self, event: SearchBox.Asked) -> None:
        """Complete the last word as far as it is certain, and show what it may become."""
        event.stop()
        snapshot, choices, box = self._host.context.snapshot, self._host.context.choices, event.box
        found = offers(box.value, () if snapshot is None else snapshot.groups, choices.saved)
        if found:
            box.value = completed(box.value, found, choices.saved)
            box.cursor_position = len(box.value)
        if len(found) != 1:
            self._offer, self._offered_for = offered(found), box.value
            self._refresh_filter_line()

    def on_search_box_submitted(self, event: SearchBox.Submitted) -> None:
        """Filter at once and remember the filter, unless it was cleared before this message came."""
        event.stop()
        box, choices = self.query_one(SearchBox), self._host.context.choices
        if event.text == box.value:
            box.value = text = expanded(event.text, choices.saved)
            choices.remember_filter(text)
            self._filter_by(text)

    def on_search_box_closed(self, event: SearchBox.Closed) -> None:
        """Filter by what was typed; by the text from before if that is not valid."""
        event.stop()
        self._error = ""
        if event.text == self.query_one(SearchBox).value:
            self._filter_by(event.text)
        self._refresh_filter_line()

    def _filter_by(self, text: str) -> None:
        if self._typing is not None:
            self._typing.stop()
        if text != self.filter:
            self.window.filter_by(text)
            self.marks.forget_all()
            self._host.request(ReadNow())

    def on_line_list_header_clicked(self, event: LineList.HeaderClicked) -> None:
        """Sort by the column, or no longer."""
        event.stop()
        if (order := _BY_HEAD.get(event.head)) is not None:
            self._sort_by(Order.NEWEST if order is self.window.order else order)

    def on_line_list_edge(self, event: LineList.Edge) -> None:
        """Move the window when the cursor leaves it."""
        event.stop()
        if self.window.turn(up=event.up):
            self._host.request(ReadNow())

    def on_line_list_moved(self, event: LineList.Moved) -> None:
        """Show the row under the cursor in the side pane."""
        event.stop()
        self.query_one(Peek).follow()

    def on_line_list_opened(self, event: LineList.Opened) -> None:
        """Open the delivery."""
        event.stop()
        if (row := self.pick()) is not None:
            self._host.request(OpenDelivery(row.id, self.row_ids))

    # Painting

    def _show_again(self) -> None:
        if self._host.context.snapshot is not None:
            self.show(self._host.context.snapshot)
        self._host.request(ReadNow())

    @property
    def _list(self) -> LineList:
        return self.query_one("#rows", LineList)

    def _refresh_filter_line(self) -> None:
        if self._host.context.snapshot is not None:
            self._show_filter_line(self._host.context.snapshot)

    def _show_filter_line(self, snapshot: Snapshot) -> None:
        filter_line = self.query_one("#filter-line", Static)
        if self._offer is not None and self.query_one(SearchBox).is_open:
            filter_line.update(self._offer)
        elif self._error:
            filter_line.update(Content.styled(clean(self._error), "$text-error"))
        elif self.window.is_too_slow:
            slow = " This filter takes longer than a second: add age:<1h, error:503 or the like."
            filter_line.update(
                Content.assemble(("FILTERED ", "$text-warning bold"), clean(self.filter), (slow, "$text-error"))
            )
        elif self.window.page is not None:
            filter_line.update(self._filter_line(snapshot))

    def _filter_line(self, snapshot: Snapshot) -> Content:
        """Return filter, counts, age and marks. Where there is no room, the filter is cut."""
        page = self.window.page
        assert page is not None
        if not self.window.is_settled:
            age = span(time.monotonic() - self.window.taken_at)
            wait = Content.assemble(("reading …", "$text-warning bold"), f"   below is what matched before, {age} old")
            return wait if not self.filter else Content.assemble(("FILTERED ", "$text-warning bold"), wait)
        is_dead = self.window.states == (State.DEAD,)
        every = snapshot.overview.open_dead_letters if is_dead else None
        matching = "more than 10,000 match" if page.matching is None else f"{page.matching:,} match"
        hidden = "" if every is None or page.matching is None else f" · {max(0, every - page.matching):,} hidden"
        parts: list[tuple[str, str] | str] = []
        if self.filter:
            parts += [f"   {matching}{hidden}"]
            if self.window.order is not Order.NEWEST:
                parts += [f", {self.window.order}"]
        else:
            total = "more than 10,000" if page.matching is None else f"all {page.matching:,}"
            parts += [f"{total}, {self.window.order}; {self._key('filter')} filters"]
        if self.window.order is not Order.NEWEST and (page.matching is None or page.matching > MOST_SORTED):
            parts += [(f"   {MOST_SORTED:,} of them are sorted", "$text-warning")]
        newest = self._key("cursor('top')")
        if not page.live and self.window.order is not Order.NEWEST:
            parts += [(f"   not the first ones; {newest} for those", "$text-warning")]
        elif not page.live:
            parts += [(f"   older ones; {newest} for the newest", "$text-warning")]
        if snapshot.view_age_s > _OLD_S:
            slow = f"   {span(snapshot.view_age_s)} old, because it is slow; {self._key('refresh_now')} refreshes"
            parts += [(slow, "$text-warning")]
        if self.marks:
            parts += [(f"   {self.marks}", "$text-warning bold")]
        line = Content.assemble(*parts)
        if self.filter:
            head, text = Content.styled("FILTERED ", "$text-warning bold"), Content(clean(self.filter))
            room = self.app.size.width - 2 - head.cell_length - line.cell_length
            line = head + text.truncate(max(8, room), ellipsis=True) + line
        return line

    def _key(self, action: str) -> str:
        return key_of(self._place, action)

    def _why_empty(self, snapshot: Snapshot) -> Content:
        if self.filter:
            terms = filters.parse(self.filter)
            doubts = [f"   {clean(doubt, limit=200)}." for doubt in filters.doubts(terms, states=self.window.states)]
            nothing = f"   Nothing matches the filter. {self._key('back')} clears it."
            return Content.styled(nothing + "".join(doubts[:2]), "$text-muted")
        age_s = snapshot.overview.last_webhook_age_s
        last = "no webhook received yet" if age_s is None else f"last webhook received {span(age_s)} ago"
        what = "No open dead letters" if self.window.states else "No deliveries"
        return Content.styled(f"   {what}; {last}.", "$text-muted")
