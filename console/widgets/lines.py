"""A list of one-line rows with a cursor: the tables, the failure groups and the log are made of it.

It paints only the rows in sight, and keeps its cursor on the same row, identified by its key, when the rows around it
change. It takes `Content` and never parses markup. It has no keys of its own: the screen calls `move` and `open`.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from console.render.changes import changed_regions
from console.render.wrapping import hanging

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from textual import events

    from console.render.line import Line


_STILL_S = 3.0
"""While keys come, and so long after the last one, rows that come do not move those in sight."""


class LineList(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows with a cursor. `show` replaces them.

    With `newest_first` the cursor stays on the first row, whichever row that is, until the operator moves it; `top`
    puts it there again. `touched` is True once the operator has moved it.
    """

    DEFAULT_CSS = """
    LineList {
        height: 1fr;
        overflow-x: hidden;
        overflow-y: auto;
        & > .lines--header { color: $text-muted; text-style: bold; }
        & > .lines--cursor { background: $panel; }
        &.calm > .lines--cursor { background: transparent; }
        &:focus > .lines--cursor { background: $block-cursor-blurred-background; text-style: bold; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"lines--header", "lines--cursor"}

    class Opened(Message):
        """Enter or a click on the row under the cursor."""

        def __init__(self, lines: LineList, key: Hashable) -> None:
            super().__init__()
            self.lines = lines
            self.key = key

        @property
        def control(self) -> LineList:
            """The list it happened in."""
            return self.lines

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, lines: LineList, key: Hashable) -> None:
            super().__init__()
            self.lines = lines
            self.key = key

        @property
        def control(self) -> LineList:
            """The list it happened in."""
            return self.lines

    class HeaderClicked(Message):
        """A click on the header. `head` is the word of it that is nearest."""

        def __init__(self, lines: LineList, head: str) -> None:
            super().__init__()
            self.lines = lines
            self.head = head

        @property
        def control(self) -> LineList:
            """The list it happened in."""
            return self.lines

    class Edge(Message):
        """The cursor was moved beyond the first row (`up`) or the last one."""

        def __init__(self, lines: LineList, *, up: bool) -> None:
            super().__init__()
            self.lines = lines
            self.up = up

        @property
        def control(self) -> LineList:
            """The list it happened in."""
            return self.lines

    def __init__(
        self,
        *,
        id: str | None = None,  # noqa: A002
        classes: str | None = None,
        empty: str = "",
        newest_first: bool = False,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._newest_first = self._at_newest = newest_first
        self._lines: Sequence[Line] = ()
        self._header: Content | None = None
        self._empty = Content(empty)
        self._cursor = 0
        self.moved_at = 0.0
        self.touched = False
        self._holds_back = False

    @property
    def cursor(self) -> int:
        """The index of the row that the cursor is on."""
        return self._cursor

    @property
    def key(self) -> Hashable | None:
        """The key of the row under the cursor; None if there are no rows."""
        return self._lines[self._cursor].key if self._lines else None

    @property
    def keys(self) -> list[Hashable]:
        """The keys of the rows, in order."""
        return [line.key for line in self._lines]

    @property
    def texts(self) -> list[str]:
        """Header and rows as text."""
        head = [] if self._header is None else [self._header.plain]
        return [*head, *(line.content.plain for line in self._lines)] if self._lines else [self._empty.plain]

    def show(
        self,
        lines: Sequence[Line],
        *,
        header: Content | None = None,
        empty: Content | None = None,
        place_of: Callable[[Hashable], int | None] | None = None,
    ) -> None:
        """Replace the rows. The cursor stays on its row if that is still there, else at its place.

        A lazy sequence of `lines` comes with `place_of`, which finds one by its key without making them all.
        """
        shown = self._in_sight()
        before = self.key
        from_top = self._cursor - self.scroll_offset.y
        self._lines = lines
        self._header = header
        if empty is not None:
            self._empty = empty
        self.virtual_size = Size(self.size.width, len(lines) + self._header_height)
        if before is not None and not (self._at_newest and self._cursor == 0):
            found = place_of(before) if place_of else _place(lines, before)
            if found is not None and (found != self._cursor or self._holds_back):
                self._cursor = found
                self._keep_in_sight(found, from_top)
        self._cursor = max(0, min(self._cursor, len(lines) - 1))
        if self.key != before and self.key is not None:
            self.post_message(self.Moved(self, self.key))
        self._refresh_changed(shown)

    def _in_sight(self) -> list[tuple[Content, bool]]:
        """Return what the rows of the screen show, the header first, and which of them is under the cursor."""
        top, height = self.scroll_offset.y, self.size.height - self._header_height
        rows = [
            (self._lines[place].content, place == self._cursor)
            for place in range(top, min(top + height, len(self._lines)))
        ] or [(row, False) for row in self._empty_rows]
        return rows if self._header is None else [(self._header, False), *rows]

    @property
    def _empty_rows(self) -> Sequence[Content]:
        """What is shown in place of rows, broken to the width."""
        return hanging([self._empty], max(20, self.scrollable_content_region.width))

    def _refresh_changed(self, before: Sequence[tuple[Content, bool]]) -> None:
        """Paint only the cells that differ from what they showed `before`."""
        now, width = self._in_sight(), self.scrollable_content_region.width
        for y in range(max(len(before), len(now))):
            found = [Region(0, 0, self.size.width, 1)]
            if y < min(len(before), len(now)) and now[y][1] == before[y][1]:
                regions = changed_regions(before[y][0], now[y][0], width)
                found = found if regions is None else regions
            for region in found:
                self.refresh(region.translate((0, y)))

    def _keep_in_sight(self, cursor: int, from_top: int) -> None:
        """Keep new rows above in sight as long as there is room; while keys come, let no row in sight move."""
        is_still = time.monotonic() - self.moved_at <= _STILL_S
        if self.scroll_offset.y > 0 and not self._holds_back:
            is_still = True
        elif is_still:
            self._holds_back = True
        else:
            self._holds_back = False
            self.scroll_to(y=0, animate=False, immediate=True, force=True)
            self._bring_into_sight()
            return
        self.scroll_to(y=cursor - from_top, animate=False, immediate=True, force=True)

    def move_to(self, index: int) -> None:
        """Put the cursor on a row, as near as there is one, and bring it into sight."""
        if not self._lines:
            return
        old, self._cursor = self._cursor, max(0, min(index, len(self._lines) - 1))
        self._bring_into_sight()
        if self._cursor != old:
            self.post_message(self.Moved(self, self.key))
            self.refresh()

    def move(self, where: str) -> None:
        """Move the cursor: `up`, `down`, `page_up`, `page_down`, `top` or `bottom`. `moved_at` says when that was."""
        self.moved_at = time.monotonic()
        self._put_by_hand(newest=where == "top")
        page = max(1, self.size.height - self._header_height - 1)
        steps = {"up": -1, "down": 1, "page_up": -page, "page_down": page}
        if where in steps:
            target = self._cursor + steps[where]
            beyond = target < 0 or target >= len(self._lines)
            self.move_to(target)
            if beyond:
                self.post_message(self.Edge(self, up=steps[where] < 0))
        elif where == "top":
            self.move_to(0)
        else:
            self.move_to(len(self._lines) - 1)

    def to_newest(self) -> None:
        """Put the cursor on the first row, as if it had never been moved."""
        self._at_newest = self._newest_first
        self.move_to(0)

    def pin(self) -> None:
        """Keep the cursor on its row, also where it follows the newest: a key was pressed about that row."""
        self._at_newest = False
        self.moved_at = time.monotonic()

    def _put_by_hand(self, *, newest: bool = False) -> None:
        self.touched = True
        self._holds_back = False
        self._at_newest = newest and self._newest_first

    @property
    def _header_height(self) -> int:
        return 0 if self._header is None else 1

    def _bring_into_sight(self) -> None:
        height = max(1, self.size.height - self._header_height)
        top = self.scroll_offset.y
        if self._cursor < top:
            top = self._cursor
        elif self._cursor >= top + height:
            top = self._cursor - height + 1
        self.scroll_to(y=top, animate=False, immediate=True, force=True)

    def render_line(self, y: int) -> Strip:
        """Return the strip of one line of the widget."""
        width = self.scrollable_content_region.width
        if self._header is not None and y == 0:
            return self._strip(self._header, width, "lines--header")
        index = y - self._header_height + self.scroll_offset.y
        if not self._lines and 0 <= index < len(rows := self._empty_rows):
            return self._strip(rows[index], width, "lines--header")
        if not 0 <= index < len(self._lines):
            return Strip.blank(width, self.rich_style)
        content = self._lines[index].content
        if index != self._cursor:
            return self._strip(content, width, None)
        if content.plain.startswith(" ") and (self.has_focus or not self.has_class("calm")):
            content = Content.styled("▸", "bold") + content[1:]  # not by its colour alone
        return self._strip(content, width, "lines--cursor")

    def _strip(self, content: Content, width: int, component: str | None) -> Strip:
        style = self.get_visual_style(component) if component else self.visual_style
        if component and self.get_component_styles(component).text_style.reverse:
            style = replace(style, reverse=True)  # `get_visual_style` drops it (Textual 8.2.8)
        if content.cell_length > width:
            content = content.truncate(width, ellipsis=True)
        strip = Strip(content.render_segments(style))
        return strip.adjust_cell_length(width, style.rich_style).simplify()

    def on_resize(self) -> None:
        """Keep the cursor in sight."""
        self.virtual_size = Size(self.size.width, len(self._lines) + self._header_height)
        if self._lines:
            self._bring_into_sight()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Repaint: every line shows another row."""
        super().watch_scroll_y(old_value, new_value)
        self.refresh(Region(0, 0, self.size.width, self.size.height))

    def on_click(self, event: events.Click) -> None:
        """Put the cursor where the click was; a second click there opens the row. The header has its own message."""
        if self._header is not None and event.y == 0:
            self.post_message(self.HeaderClicked(self, _word_at(self._header.plain, event.x)))
            return
        index = event.y - self._header_height + self.scroll_offset.y
        if not 0 <= index < len(self._lines):
            return
        self._put_by_hand()
        if index == self._cursor and event.chain > 1:
            self.post_message(self.Opened(self, self.key))
        self.move_to(index)

    def open(self) -> None:
        """Open the row under the cursor."""
        if self._lines:
            self.post_message(self.Opened(self, self.key))


def _word_at(text: str, x: int) -> str:
    """Return the word of `text` at `x`, or the one nearest to it; empty if there is none."""
    words = list(re.finditer(r"\S+", text))
    nearest = min(words, key=lambda word: max(word.start() - x, x - word.end() + 1, 0), default=None)
    return "" if nearest is None else nearest.group()


def _place(lines: Sequence[Line], key: Hashable) -> int | None:
    return next((index for index, line in enumerate(lines) if line.key == key), None)
