"""The line above the log: what is shown of the log, and the result of the search or of the last key. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from console.actions import LOG
from console.data.log_buffer import CAPACITY, LEVELS
from console.data.log_navigation import Goal, Notice
from console.keymap import key_of
from console.render.formatting import cut
from console.render.wrapping import flowing
from relay.domain.format import plural

if TYPE_CHECKING:
    from console.data.log_buffer import LogBuffer
    from console.data.log_navigation import LogNavigation

_LIMIT = f"no more than {CAPACITY:,} lines are kept"
_MUTED, _WARNING = "$text-muted", "$text-warning"


def state_line(log: LogNavigation, *, width: int) -> Content:
    """Whether the screen follows, how many lines it shows, the level, the search, what the last key has found.

    It is one row, or more where `width` cells have no room for it in one; no part is broken. A hint that has no room
    is left out.
    """
    buffer = log.buffer
    state = (f"held; {key_of(LOG, 'follow')} follows", f"{_WARNING} bold")
    if log.is_following:
        state = ("CATCHING UP", f"{_WARNING} bold") if log.is_behind else ("FOLLOWING", "$text-success bold")
    parts = [Content.styled(*state), Content(_extent(buffer))]
    if buffer.level:
        parts += [Content.assemble(("level ", _MUTED), (f"{LEVELS[buffer.level]} and worse", _WARNING))]
    if buffer.find:
        what = "only lines with " if buffer.only_matches else "search "
        parts += [Content.assemble((what, _MUTED), (cut(buffer.find, 60), "reverse"), _found(log))]
    rows, reading = flowing(parts, width, 3), _reading(log)
    only = key_of(LOG, "only")
    hint = Content.styled(f"  {only} for {'all' if buffer.only_matches else 'these alone'}", _MUTED)
    if buffer.find and rows[-1].cell_length + hint.cell_length <= width:
        rows[-1] += hint
    return Content("\n").join(flowing([*rows, reading], width, 3) if reading else rows)


def _reading(log: LogNavigation) -> Content:
    """That older lines are read, else what the last key has found, else how to read older lines."""
    if log.wants_older:
        return Content.assemble(
            ("reading older lines …", f"{_WARNING} bold"), (f" {key_of(LOG, 'back')} stops", _MUTED)
        )
    if log.notice is not Notice.NONE:
        return Content.styled(_notice(log), _WARNING)
    up, top = key_of(LOG, "cursor('up')"), key_of(LOG, "cursor('top')")
    return Content.styled(f"{up} at the top, or {top}, loads older" if log.buffer.has_older else "", _MUTED)


def _extent(buffer: LogBuffer) -> str:
    """How many lines are shown, and of which."""
    if buffer.hides_lines:
        return f"{len(buffer.shown):,} of {_held(buffer)}"
    held = plural(len(buffer.lines), "line")
    return held if buffer.reaches_start or not buffer.lines else f"the newest {held}"


def _held(buffer: LogBuffer) -> str:
    return f"{'all' if buffer.reaches_start else 'the newest'} {plural(len(buffer.lines), 'line')}"


def _found(log: LogNavigation) -> tuple[str, str]:
    """How many lines match, and which of them the cursor is on; where no line does, among which lines."""
    buffer, count = log.buffer, len(log.buffer.matches)
    number = buffer.match_number(log.cursor)
    if number is not None:
        return f"  match {number:,} of {count:,}", ""
    if count:
        return ("  1 match" if count == 1 else f"  {count:,} matches"), ""
    if log.goal is Goal.MATCH:
        return "  no match yet", _WARNING
    level = f" of level {LEVELS[buffer.level]} and worse" if buffer.level else ""
    return f"  no match{level} in {_held(buffer)}", _WARNING


def _notice(log: LogNavigation) -> str:
    buffer = log.buffer
    limit = "the log begins here" if buffer.reaches_start or not buffer.lines else _LIMIT
    partly = " in the lines read" if buffer.has_older else ""
    return {
        Notice.NONE: "",
        Notice.TOP_REACHED: limit,
        Notice.WRAPPED_TO_BOTTOM: f"wrapped to the bottom, no match further up{partly}",
        Notice.WRAPPED_TO_TOP: f"wrapped to the top{partly}, no match further down",
        Notice.NO_FAILURE_ABOVE: f"No more failures above; {limit}",
        Notice.NO_FAILURE_BELOW: "No more failures below",
        Notice.NO_SEARCH: f"search for something with {key_of(LOG, 'find')} first",
    }[log.notice]
