"""The live tail of the forwarding log: follow and pause, level and text, search, failures, jump to a delivery.

It begins with the newest lines. What is looked for further up is read from Postgres, page by page, as the poller
comes round, until it is found, the log begins, or as many lines are held as are ever held.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from enum import Enum, auto
from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from console.actions import LOG, bindings_of
from console.loglines import A_TICK, FIRST, OLDER, DrawnLines, LogPage, LogReading
from console.replaying import Replaying
from console.tail import Entry, Missing, draw
from console.widgets.lines import LineList
from console.words import plural
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Hashable

    from textual.app import ComposeResult

    from console.snapshot import Snapshot

KEPT = 50_000
_EMPTY = "  No webhook yet: the log is empty."
_HIDDEN = "  None of these lines is shown: l changes the level, o and esc what is searched for."
LEVELS = ("info", "warning", "error")


class Sought(Enum):
    """What older lines are read for."""

    LINE = auto()  # the line above the first one
    TOP = auto()  # the first line there is
    MATCH = auto()  # a line with the text searched for
    FAILURE = auto()
    SCREENFUL = auto()  # as many lines as there is room for, where some are hidden


class LogScreen(Replaying):
    """The tail. It holds 50,000 lines and draws those in sight."""

    VIEW = LOG
    BINDINGS = bindings_of(LOG)

    def __init__(self) -> None:
        super().__init__()
        self._held: list[Entry] = []
        self._shown: list[Entry] = []
        self._following = True
        self._is_behind = False
        self._level = 0
        self._find = ""
        self._only = False
        self._older_wanted = False
        self._oldest_reached = False
        self._sought: Sought | None = None
        self._sought_at = 0.0
        self._content = False
        self._note = ""
        self._marked: set[int] = set()
        self._missing = Missing()

    def compose_body(self) -> ComposeResult:
        """What is shown, then the lines."""
        yield Input(id="filter", placeholder="find in the lines; n and N go from match to match", compact=True)
        yield Static("", id="filter-line", markup=False)
        with Vertical(id="rows-pane"):
            yield LineList(id="log-lines")
            yield Static("", id="whole", markup=False)

    def reading(self) -> LogReading:
        """What is not here yet."""
        newest = self._held[-1].id if self._held else None
        older = self._held[0].id if self._older_wanted and self._held else None
        return LogReading(newest, older, self._missing.ids)

    def paint(self, snapshot: Snapshot) -> None:
        """Take in the new lines."""
        page = snapshot.view
        if not isinstance(page, LogPage) or snapshot.reading != self.reading():
            return
        newest = self._held[-1].id if self._held else None
        self._is_behind = newest is not None and len(page.newer) >= A_TICK
        if self._is_behind:
            self.console.read_now()
        if newest is None:
            self._oldest_reached = len(page.newer) < FIRST
        elif self._older_wanted:
            self._older_wanted = False
            self._oldest_reached = len(page.older) < OLDER
        self._missing.look([entry.id for entry in page.newer], after=newest, now=snapshot.read_at)
        room = max(0, KEPT - len(self._held) - len(page.newer))
        older = page.older[-room:] if room else []
        late = newest is not None and bool(page.newer) and page.newer[0].id < newest
        if len(older) < len(page.older) or len(self._held) + len(page.newer) > KEPT:
            self._oldest_reached = False
        if older or page.newer:
            self._held = [*older, *self._held, *page.newer][-KEPT:]
            above = list(filter(self._is_shown, older))
            if late:
                self._held.sort(key=lambda entry: entry.id)
                self._shown = list(filter(self._is_shown, self._held))
            else:
                self._shown = [*above, *self._shown, *filter(self._is_shown, page.newer)][-KEPT:]
            self._show(above=len(above))
        else:
            above = []
            if not self._held:
                self._show()  # that there are none
        self._look_on(len(above))
        self._paint_state()

    # Older lines

    @property
    def _has_more_above(self) -> bool:
        """True while there are older lines than those held, and room for them."""
        return not self._oldest_reached and 0 < len(self._held) < KEPT

    def _look_back(self, sought: Sought) -> None:
        """Read older lines for what is not among those held, if there are any; say so if there are none."""
        self._sought, self._sought_at = sought, time.monotonic()
        self._read_on()

    def _look_on(self, above: int) -> None:
        """Look for what is sought among the lines that have come on top, `above` of them shown, or read on."""
        lines = self.query_one("#log-lines", LineList)
        if self._sought is None and self._has_too_few(lines):
            self._look_back(Sought.SCREENFUL)
        elif self._sought is not None:
            if self._sought is not Sought.SCREENFUL and lines.moved_at > self._sought_at:
                self._stop_looking()  # whoever moves on wants to stay there
            elif self._is_found(self._sought, lines, above):
                self._sought = None
            else:
                self._read_on()

    def _is_found(self, sought: Sought, lines: LineList, above: int) -> bool:
        """True if that is among the lines that have come on top; the cursor is on it then."""
        if sought is Sought.SCREENFUL:
            return not self._has_too_few(lines)
        if sought is Sought.TOP:
            lines.move_to(0)
            return False
        wanted = {Sought.MATCH: self._matches, Sought.FAILURE: _fails}.get(sought, lambda _: True)
        place = next((place for place in range(above - 1, -1, -1) if wanted(self._shown[place])), None)
        if place is not None:
            self._following = False
            lines.move_to(place)
        return place is not None

    def _read_on(self) -> None:
        if self._has_more_above:
            self._older_wanted = True
            self.console.read_now()
            return
        if self._sought in {Sought.MATCH, Sought.FAILURE}:
            self._note = f"No more above; {self._end}"
        elif self._sought in {Sought.LINE, Sought.TOP}:
            self._note = self._end
        self._sought = None

    @property
    def _end(self) -> str:
        return "the log begins here" if self._oldest_reached or not self._held else f"no more than {KEPT:,} are held"

    def _stop_looking(self) -> None:
        """What was looked for is not wanted any more, nor what was said of it."""
        self._sought, self._note, self._older_wanted = None, "", False

    def _has_too_few(self, lines: LineList) -> bool:
        """True if lines are hidden, those shown leave room, and the operator has not had enough of looking for more."""
        few = self._hides and len(self._shown) < max(1, lines.size.height)
        return few and not self._content and self._has_more_above

    @property
    def _hides(self) -> bool:
        return bool(self._level or (self._only and self._find))

    def _draw(self, entry: Entry) -> Content:
        mark = Content.styled("■", "$text-warning bold") if entry.id in self._marked else Content(" ")
        content = mark + draw(entry)
        return content.highlight_regex(_literally(self._find), style="reverse") if self._find else content

    def _is_shown(self, entry: Entry) -> bool:
        if entry.level in LEVELS and LEVELS.index(entry.level) < self._level:
            return False
        return not (self._only and self._find) or self._matches(entry)

    def _arrange(self) -> None:
        """Choose anew among the lines: what is shown has changed."""
        self._stop_looking()
        self._content = False
        self._shown = list(filter(self._is_shown, self._held))
        self._show()
        self._look_on(0)

    def _show(self, *, above: int = 0) -> None:
        """Show the lines, of which `above` have come on top."""
        lines = self.query_one("#log-lines", LineList)
        on_top = lines.cursor == 0
        empty = _HIDDEN if self._held else _EMPTY
        lines.show(DrawnLines(self._shown, self._draw), place_of=self._place_of, empty=Content(empty))
        if self._following:
            lines.move_to(len(self._shown) - 1)
        elif on_top and above and self._sought is not Sought.TOP:  # what was in sight stays in sight
            lines.scroll_to(y=above, animate=False, immediate=True, force=True)

    def _place_of(self, key: Hashable) -> int | None:
        """Where in the lines shown the one with this id is, or would be."""
        if not isinstance(key, int) or not self._shown:
            return None
        return min(bisect_left(self._shown, key, key=lambda entry: entry.id), len(self._shown) - 1)

    @property
    def _entry(self) -> Entry | None:
        """The line under the cursor."""
        cursor = self.query_one("#log-lines", LineList).cursor
        return self._shown[cursor] if cursor < len(self._shown) else None

    def _paint_state(self) -> None:
        follow = ("FOLLOWING", "$text-success bold") if self._following else ("held; f follows", "$text-warning bold")
        if self._following and self._is_behind:
            follow = ("CATCHING UP", "$text-warning bold")
        parts: list[tuple[str, str] | str] = [follow, f"   {self._extent}"]
        if self._level:
            parts += [("   level ", "$text-muted"), (f"{LEVELS[self._level]} and worse", "$text-warning")]
        if self._find:
            parts += [("   only lines with " if self._only else "   finding ", "$text-muted")]
            parts += [
                (clean(self._find, limit=60), "reverse"),
                ("  o for all" if self._only else "  o for these alone", "$text-muted"),
            ]
        if self._sought is not None:
            parts += [("   looking further back …", "$text-warning bold"), (" esc stops", "$text-muted")]
        elif self._note:
            parts += [(f"   {self._note}", "$text-warning")]
        elif self._has_more_above:
            parts += [("   k at the top, or g, loads older", "$text-muted")]
        self.query_one("#filter-line", Static).update(Content.assemble(*parts))
        self._paint_whole()

    def _paint_whole(self) -> None:
        """Show the line under the cursor to its end, below the others, unless they run on."""
        self.set_class(not self._following, "held")
        if not self._following and self._entry is not None:
            self.query_one("#whole", Static).update(draw(self._entry))

    @property
    def _extent(self) -> str:
        """How many lines are shown, and of which."""
        held = plural(len(self._held), "line")
        if self._hides:
            return f"{len(self._shown):,} of {'all' if self._oldest_reached else 'the newest'} {held}"
        return held if self._oldest_reached or not self._held else f"the newest {held}"

    # Keys

    def action_cursor(self, where: str) -> None:
        """Moving up holds the tail; the bottom follows it again; the top is that of the log, not of what is held."""
        self._stop_looking()
        self._following = where == "bottom"
        super().action_cursor(where)
        if where == "top":
            self._look_back(Sought.TOP)
        self._paint_state()

    def on_line_list_moved(self, event: LineList.Moved) -> None:
        """A cursor that leaves the end holds the tail."""
        if event.lines.cursor < len(self._shown) - 1 and self._following:
            self._following = False
            self._paint_state()
        self._paint_whole()

    def on_line_list_edge(self, event: LineList.Edge) -> None:
        """Beyond the top are older lines."""
        if event.up:
            self._look_back(Sought.LINE)
            self._paint_state()

    def action_follow(self) -> None:
        """Follow the end, or hold."""
        self._stop_looking()
        self._following = not self._following
        self._show()
        self._paint_state()

    def action_level(self) -> None:
        """The next least level."""
        self._level = (self._level + 1) % len(LEVELS)
        self._arrange()
        self._paint_state()

    def action_only(self) -> None:
        """Hide the lines that do not match, or show them again."""
        if self._searches():
            self._only = not self._only
            self._arrange()
            self._paint_state()

    def action_filter(self) -> None:
        """Open the search."""
        box = self.query_one("#filter", Input)
        box.add_class("open")
        box.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Search, from the end."""
        event.input.remove_class("open")
        self._find = event.value.strip()
        self._arrange()
        self.query_one("#log-lines", LineList).focus()
        if self._find:
            self._following = False
            self._jump(Sought.MATCH, forward=False, inclusive=True)
        self._paint_state()

    def action_back(self) -> None:
        """Close the search, then look no further back, then clear it, then go back."""
        box = self.query_one("#filter", Input)
        if box.has_class("open"):
            box.remove_class("open")
            self.query_one("#log-lines", LineList).focus()
        elif self._sought is not None:
            self._stop_looking()
            self._content = True
            self._paint_state()
        elif self._find:
            self._find = box.value = ""
            self._only = False
            self._arrange()
            self._paint_state()
        else:
            super().action_back()

    def _matches(self, entry: Entry) -> bool:
        return bool(self._find) and entry.mentions(self._find.lower())

    def _jump(self, sought: Sought, *, forward: bool, inclusive: bool = False) -> None:
        """Put the cursor on the next line that is sought; further up also on one that is yet to be read."""
        self._stop_looking()
        wanted = self._matches if sought is Sought.MATCH else _fails
        lines = self.query_one("#log-lines", LineList)
        here = lines.cursor
        first = here if inclusive else (here + 1 if forward else here - 1)
        places = range(first, len(self._shown)) if forward else range(first, -1, -1)
        found = next((place for place in places if wanted(self._shown[place])), None)
        if found is not None:
            self._following = False
            lines.move_to(found)
        elif forward:
            self._note = "No more below"
        else:
            self._look_back(sought)
        self._paint_state()

    def action_find_next(self) -> None:
        """The next match."""
        if self._searches():
            self._jump(Sought.MATCH, forward=True)

    def action_find_previous(self) -> None:
        """The match before."""
        if self._searches():
            self._jump(Sought.MATCH, forward=False)

    def _searches(self) -> bool:
        """True if something is searched for; what to do is said if not."""
        if not self._find:
            self._note = "search for something with / first"
            self._paint_state()
        return bool(self._find)

    def action_next_failure(self) -> None:
        """The next failure."""
        self._jump(Sought.FAILURE, forward=True)

    def action_previous_failure(self) -> None:
        """The failure before."""
        self._jump(Sought.FAILURE, forward=False)

    def action_mark_line(self) -> None:
        """Mark the line."""
        if self._entry is not None:
            self._marked ^= {self._entry.id}
            self._show()

    def action_copy(self) -> None:
        """Copy the line."""
        if self._entry is not None:
            self.app.copy_to_clipboard(self._entry.text)
            self.console.say("Copied the line")

    def on_line_list_opened(self) -> None:
        """Jump to the line's delivery."""
        if self._entry is None or self._entry.delivery_id is None:
            self.console.say("That line is about no delivery")
        else:
            self.look_up(self._jump_to_delivery(self._entry.delivery_id))

    async def _jump_to_delivery(self, delivery_id: str) -> None:
        from console.screens.detail import DetailView  # noqa: PLC0415 - loaded when it is first wanted

        row_id = await self.console.desk.find(delivery_id)
        if row_id is None:
            self.console.say("That delivery is gone", bad=True)
        elif self.app.screen is self:
            self.app.push_screen(DetailView(row_id))


def _fails(entry: Entry) -> bool:
    return entry.is_failure


def _literally(text: str) -> str:
    import re  # noqa: PLC0415

    return "(?i)" + re.escape(text)
