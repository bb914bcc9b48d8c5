"""Draws deliveries as rows of a table. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textual.content import Content

from console.render import formatting
from console.render.conversation import words
from relay.domain.delivery import State
from relay.domain.format import day_clock, milliseconds, span
from relay.domain.retry import short_status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from relay.store.browse import Row
    from relay.store.conversation import MessagePreview

_LEAST_REST = 15
_GOOD_REST = 23
_MUTED = "$text-muted"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its head, its width (0: the rest of the line), its text and style.

    A column with `most` grows to that width where
    the rest leaves room for it. `brief` shortens a text that does not fit.
    """

    head: str
    width: int
    text: Callable[[Row, datetime], str]
    style: Callable[[Row], str] = lambda _: ""
    right: bool = False
    most: int = 0
    brief: Callable[[str], str] | None = None


def _since_death(row: Row, now: datetime) -> str:
    return formatting.coarse_age((now - (row.finished_at or row.received_at)).total_seconds())


def _age(row: Row, now: datetime) -> str:
    return formatting.coarse_age((now - row.received_at).total_seconds())


def _larger_unit(age: str) -> str:
    """Return `12h` for `12h05m`."""
    digits = len(age) - len(age.lstrip("0123456789"))
    return age[: digits + 1]


def _status(row: Row, _: datetime) -> str:
    return "–" if row.final_status is None else short_status(row.final_status)


def _cause(row: Row, now: datetime) -> str:
    if row.waits is not None or row.state is State.WAITING:
        due = "" if row.next_attempt_at is None else f", next in {span((row.next_attempt_at - now).total_seconds())}"
        return f"waits: {row.waits or 'retry'}{due}"
    if row.last_error:
        return formatting.cause_beside_status(row.last_error)
    return "" if row.duration_ms is None else f"in {milliseconds(row.duration_ms)}"


_MARK = Column("", 1, lambda *_: "")
_ID = Column("ID", 8, lambda row, _: row.delivery_id[:8])
# Not the age that `age:` filters by: that one counts from when the delivery was received.
_DIED = Column("DIED", 4, _since_death, right=True, brief=_larger_unit)
_AGE = Column("AGE", 3, _age, right=True, brief=_larger_unit)
_STATE = Column("STATE", 10, lambda row, _: row.state.value, lambda row: formatting.STATE_STYLES[row.state])
_EVENT = Column(
    "EVENT", len("conv_status_changed"), lambda row, _: row.event or "–", most=len("conversation_status_changed"),
    brief=formatting.brief_event,
)  # fmt: skip
_CONVERSATION = Column("CONV", 6, lambda row, _: row.conversation_id or "–", right=True)
_TRIES = Column("TRY", 3, lambda row, _: "–" if row.attempts is None else str(row.attempts), right=True)
_STATUS = Column("STATUS", 7, _status, lambda row: "$text-error" if row.state is State.DEAD else "")
_CAUSE = Column("CAUSE", 0, _cause, brief=formatting.brief_cause)
_RECEIVED = Column("RECEIVED", 8, lambda row, now: day_clock(row.received_at, now)[:12], most=12)
_TOOK = Column("TOOK", 8, lambda row, _: milliseconds(row.duration_ms), right=True)
_WORDS = Column("SENDER AND MESSAGE", 30, lambda *_: "", lambda _: _MUTED)
_WITH_WORDS = 58
"""The cells that the rest must have for the column of words to be shown; they leave room for a cause."""

_DEAD = {
    "age": _DIED, "event": _EVENT, "conversation": _CONVERSATION, "attempts": _TRIES, "status": _STATUS,
    "received": _RECEIVED, "duration": _TOOK, "message": _WORDS,
}  # fmt: skip
_ALL = {"age": _AGE, "state": _STATE} | {name: column for name, column in _DEAD.items() if name != "age"}
_BY_CHOICE = {"received", "duration"}
"""Columns that are shown only where the operator has chosen them."""


def choosable(*, dead: bool) -> tuple[str, ...]:
    """Return the names of the columns that a list may have besides mark, id and cause, in their order."""
    return tuple(_DEAD if dead else _ALL)


def usual(*, dead: bool) -> tuple[str, ...]:
    """Return the names of the columns that a list has unless the operator chooses."""
    return tuple(name for name in choosable(dead=dead) if name not in _BY_CHOICE)


def columns_of(names: Collection[str], *, dead: bool) -> tuple[Column, ...]:
    """Return the columns of these names; mark, id and cause are always among them."""
    known = _DEAD if dead else _ALL
    chosen = tuple(column for name, column in known.items() if name in names)
    return (_MARK, _ID, *chosen, _CAUSE) if dead else (_ID, *chosen, _CAUSE)


DEAD_COLUMNS = columns_of(usual(dead=True), dead=True)
ALL_COLUMNS = columns_of(usual(dead=False), dead=False)


def fitted(columns: tuple[Column, ...], width: int) -> tuple[Column, ...]:
    """Return the columns that fit into lines of `width`, each as wide as the room allows."""
    plain = _without_words(columns)
    kept = plain
    for column in (_CONVERSATION, _TRIES, _EVENT):
        if _rest(kept, width) < _LEAST_REST:
            kept = tuple(one for one in kept if one is not column)
    if has_words(columns, width):
        words = replace(_WORDS, width=_WORDS.width + (_rest(kept, width) - _WITH_WORDS) // 2)
        kept = (*kept[:-1], words, kept[-1])
    return tuple(replace(c, width=c.width + _more(c, _rest(kept, width))) if c.most else c for c in kept)


def has_words(columns: tuple[Column, ...], width: int) -> bool:
    """Return True if lines of `width` have room for the sender and the first words of each message, and a column."""
    return _WORDS in columns and _rest(_without_words(columns), width) >= _WITH_WORDS


def _without_words(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    return tuple(column for column in columns if column is not _WORDS)


def _more(column: Column, rest: int) -> int:
    """Return by how many cells `column` may grow: to its `most` if `rest` leaves room for that, else not at all."""
    wanted = column.most - column.width
    return wanted if rest - wanted >= _GOOD_REST else 0


def header(columns: tuple[Column, ...], width: int) -> Content:
    """Return the header line."""
    return Content(" " + " ".join(_fit(column, column.head, width, columns) for column in columns))


def line(
    row: Row,
    columns: tuple[Column, ...],
    width: int,
    now: datetime,
    said: Mapping[int, MessagePreview],
    *,
    marked: bool,
) -> Content:
    """Return one row as a line, cut to `width`. Its first cell is free for the cursor. `said` has the words by row."""
    cells = []
    for column in columns:
        if column is _MARK and marked:
            cells.append(Content.styled("■", "$text-warning"))
        elif column.head == _WORDS.head:
            known = said.get(row.id)
            text = "" if known is None else words(known.sender, known.content, column.width + 1)
            cells.append(Content.styled(_fit(column, text, width, columns), _MUTED))
        else:
            style = column.style(row) or (_MUTED if row.test else "")
            cells.append(Content.styled(_fit(column, column.text(row, now), width, columns), style))
    return Content(" ") + Content(" ").join(cells)


def _fit(column: Column, text: str, width: int, columns: tuple[Column, ...]) -> str:
    """Return `text` cut or padded to the column's width in cells."""
    room = column.width or max(_LEAST_REST, _rest(columns, width))
    content = Content(text)
    if content.cell_length > room and column.brief is not None:
        text = column.brief(text)
        content = Content(text)
    if content.cell_length > room:
        return content.truncate(room, ellipsis=True).plain
    fill = " " * (room - content.cell_length)
    return fill + text if column.right else text + fill


def _rest(columns: tuple[Column, ...], width: int) -> int:
    """Return the cells that the columns of a fixed width leave."""
    return width - 1 - sum(column.width for column in columns) - len(columns) + 1
