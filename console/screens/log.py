"""The live tail of the forwarding log: follow and pause, level and text, search, failures, jump to a delivery."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from console import panels
from console.actions import LOG, bindings_of
from console.replaying import Replaying
from console.snapshot import clean_line
from console.widgets.lines import Line, LineList
from relay.store import browse

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from console.snapshot import Snapshot
    from relay.store.database import Connection
    from relay.store.log import LogLine

KEPT = 50_000
_FIRST = 1_000
_A_TICK = 2_000
_OLDER = 2_000
LEVELS = ("info", "warning", "error")


@dataclass(frozen=True, slots=True)
class LogReading:
    """Read the lines after `after` (None: the newest), and those before `before` if it is asked for."""

    after: int | None
    before: int | None = None

    async def read(self, connection: Connection) -> LogPage:
        """Read them."""
        older = [] if self.before is None else await browse.log_before(connection, self.before, _OLDER)
        if self.after is None:
            newer = await browse.log_before(connection, None, _FIRST)
        else:
            newer = await browse.log_after(connection, self.after, _A_TICK)
        return LogPage(
            newer=[(line_id, clean_line(line)) for line_id, line in newer],
            older=[(line_id, clean_line(line)) for line_id, line in older],
        )


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines with their ids, oldest first."""

    newer: list[tuple[int, LogLine]]
    older: list[tuple[int, LogLine]]


class LogScreen(Replaying):
    """The tail. It holds 50,000 lines and paints those in sight."""

    VIEW = LOG
    BINDINGS = bindings_of(LOG)

    def __init__(self) -> None:
        super().__init__()
        self._held: deque[tuple[int, LogLine]] = deque(maxlen=KEPT)
        self._shown: list[Line] = []
        self._by_id: dict[int, LogLine] = {}
        self._following = True
        self._level = 0
        self._find = ""
        self._only = False
        self._older_wanted = False
        self._oldest_reached = False
        self._marked: set[int] = set()

    def compose_body(self) -> ComposeResult:
        """What is shown, then the lines."""
        yield Input(id="filter", placeholder="find in the lines; n and N go from match to match", compact=True)
        yield Static("", id="filter-line", markup=False)
        with Vertical(id="rows-pane"):
            yield LineList(id="log-lines", empty="  No webhook yet: the log is empty.")

    def reading(self) -> LogReading:
        """What is not here yet."""
        newest = self._held[-1][0] if self._held else None
        older = self._held[0][0] if self._older_wanted and self._held else None
        return LogReading(newest, older)

    def paint(self, snapshot: Snapshot) -> None:
        """Take in the new lines."""
        page = snapshot.view
        if not isinstance(page, LogPage) or snapshot.reading != self.reading():
            return
        if self._older_wanted:
            self._older_wanted = False
            self._oldest_reached = not page.older
            room = KEPT - len(self._held)
            self._held.extendleft(reversed(page.older[-room:] if room else []))
        self._held.extend(page.newer)
        self._by_id = dict(self._held) if page.older else self._by_id
        self._by_id.update(page.newer)
        new = [self._line(line_id, line) for line_id, line in page.newer if self._is_shown(line)]
        if page.older:
            self._arrange()
        elif new:
            self._shown = [*self._shown, *new][-KEPT:]
            self._show()
        self._paint_state()

    def _line(self, line_id: int, line: LogLine) -> Line:
        mark = Content.styled("▸", "$text-warning bold") if line_id in self._marked else Content(" ")
        content = mark + panels.log_line(line)
        if self._find:
            content = content.highlight_regex(_literally(self._find), style="reverse")
        return Line(line_id, content)

    def _is_shown(self, line: LogLine) -> bool:
        if line.level in LEVELS and LEVELS.index(line.level) < self._level:
            return False
        return not (self._only and self._find) or self._find.lower() in panels.log_line(line).plain.lower()

    def _arrange(self) -> None:
        """Lay out every line anew: what is shown has changed."""
        self._shown = [self._line(line_id, line) for line_id, line in self._held if self._is_shown(line)]
        self._show()

    def _show(self) -> None:
        lines = self.query_one("#log-lines", LineList)
        lines.show(self._shown)
        if self._following:
            lines.move_to(len(self._shown) - 1)

    def _paint_state(self) -> None:
        follow = ("FOLLOWING", "$text-success bold") if self._following else ("held; f follows", "$text-warning bold")
        parts: list[tuple[str, str] | str] = [follow, f"   {len(self._shown):,} lines"]
        if self._level:
            parts += [("   level ", "$text-muted"), (f"{LEVELS[self._level]} and worse", "$text-warning")]
        if self._find:
            parts += [("   only lines with " if self._only else "   finding ", "$text-muted"), (self._find, "reverse")]
            parts += [("  o for all" if self._only else "  o for these alone", "$text-muted")]
        self.query_one("#filter-line", Static).update(Content.assemble(*parts))

    # Keys

    def action_cursor(self, where: str) -> None:
        """Moving up holds the tail; the bottom follows it again."""
        self._following = where == "bottom"
        super().action_cursor(where)
        self._paint_state()

    def on_line_list_moved(self, event: LineList.Moved) -> None:
        """A cursor that leaves the end holds the tail."""
        if event.lines.cursor < len(self._shown) - 1 and self._following:
            self._following = False
            self._paint_state()

    def on_line_list_edge(self, event: LineList.Edge) -> None:
        """Beyond the top are older lines."""
        if event.up and not self._oldest_reached and len(self._held) < KEPT:
            self._older_wanted = True
            self.console.read_now()

    def action_follow(self) -> None:
        """Follow the end, or hold."""
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
        if not self._find:
            self.console.say("Search for something with / first")
            return
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
            self._jump(self._matches, forward=False, inclusive=True)
        self._paint_state()

    def action_back(self) -> None:
        """Close the search, then clear it, then go back."""
        box = self.query_one("#filter", Input)
        if box.has_class("open"):
            box.remove_class("open")
            self.query_one("#log-lines", LineList).focus()
        elif self._find:
            self._find = box.value = ""
            self._only = False
            self._arrange()
            self._paint_state()
        else:
            super().action_back()

    def _matches(self, line: Line) -> bool:
        return bool(self._find) and self._find.lower() in line.content.plain.lower()

    def _fails(self, line: Line) -> bool:
        known = self._by_id.get(line.key) if isinstance(line.key, int) else None
        return known is not None and known.level in {"warning", "error"}

    def _jump(self, wanted: object, *, forward: bool, inclusive: bool = False) -> None:
        """Put the cursor on the next line that is wanted."""
        lines = self.query_one("#log-lines", LineList)
        here = lines.cursor
        first = here if inclusive else (here + 1 if forward else here - 1)
        places = range(first, len(self._shown)) if forward else range(first, -1, -1)
        assert callable(wanted)
        found = next((place for place in places if wanted(self._shown[place])), None)
        if found is None:
            self.console.say("No more " + ("below" if forward else "above"))
            return
        self._following = False
        lines.move_to(found)
        self._paint_state()

    def action_find_next(self) -> None:
        """The next match."""
        self._jump(self._matches, forward=True)

    def action_find_previous(self) -> None:
        """The match before."""
        self._jump(self._matches, forward=False)

    def action_next_failure(self) -> None:
        """The next failure."""
        self._jump(self._fails, forward=True)

    def action_previous_failure(self) -> None:
        """The failure before."""
        self._jump(self._fails, forward=False)

    def action_mark_line(self) -> None:
        """Mark the line."""
        key = self.query_one("#log-lines", LineList).key
        if isinstance(key, int):
            self._marked ^= {key}
            self._arrange()

    def action_copy(self) -> None:
        """Copy the line."""
        key = self.query_one("#log-lines", LineList).key
        line = self._by_id.get(key) if isinstance(key, int) else None
        if line is not None:
            self.app.copy_to_clipboard(panels.log_line(line).plain)
            self.console.say("Copied the line")

    def on_line_list_opened(self, event: LineList.Opened) -> None:
        """Jump to the line's delivery."""
        line = self._by_id.get(event.key) if isinstance(event.key, int) else None
        if line is None or line.delivery_id is None:
            self.console.say("That line is about no delivery")
        else:
            self.work(self._jump_to_delivery(line.delivery_id))

    async def _jump_to_delivery(self, delivery_id: str) -> None:
        from console.screens.detail import DetailView  # noqa: PLC0415 - loaded when it is first wanted

        row_id = await self.console.desk.find(delivery_id)
        if row_id is None:
            self.console.say("That delivery is gone", bad=True)
        else:
            self.app.push_screen(DetailView(row_id))


def _literally(text: str) -> str:
    import re  # noqa: PLC0415

    return "(?i)" + re.escape(text)
