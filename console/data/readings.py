"""What each screen reads from Postgres besides the overview. The poller reads it in the snapshot's transaction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import psycopg

from console.data.snapshot import short_plan
from relay.domain.delivery import State
from relay.store import actions, breakdown, browse, conversation, delivery_detail, sorted_rows
from relay.store.conversation import NO_PREVIEW
from relay.store.filters import compile_filter
from relay.store.round_trip import together
from relay.store.sorted_rows import Order
from relay.text import clean

if TYPE_CHECKING:
    from datetime import timedelta

    from relay.store.actions import OperatorAction
    from relay.store.breakdown import Breakdown
    from relay.store.browse import Key, Row
    from relay.store.conversation import Conversation, MessagePreview
    from relay.store.database import Connection
    from relay.store.delivery_detail import Detail
    from relay.store.filters import Condition
    from relay.store.replays import Plan

WINDOW = 200
"""Rows of one page."""
_PLANS = _ACTIONS = 200


@dataclass(frozen=True, slots=True)
class Page:
    """A window of rows, how many match in all (`None`: more than are counted), and whether it begins at the newest.

    `gone` are the marked rows that have left the states of the list.
    """

    rows: list[Row]
    matching: int | None
    live: bool
    gone: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class RowsReading:
    """Reads a window of the deliveries that `filter` matches, in one of `states` (None: any).

    The window begins at `anchor`, that row included, or at the newest; with `up` it ends there. The read also returns
    which of the `marked` rows have left the states. Sender and first words of the rows `wordless` are read into
    `words`. Readings that differ in `marked`, `words` and `wordless` alone are equal. In another `order` than that of
    time it begins after `skipped` rows in place of an anchor.
    """

    filter: str
    states: tuple[State, ...] | None
    anchor: Key | None = None
    up: bool = False
    order: Order = Order.NEWEST
    skipped: int = 0
    marked: frozenset[int] = field(default=frozenset(), compare=False)
    words: dict[int, MessagePreview] = field(default_factory=dict, compare=False)
    wordless: frozenset[int] = field(default=frozenset(), compare=False)

    async def read(self, connection: Connection) -> Page:
        """Return the page. The filter is valid."""
        (rows, matching), present, _ = await together(
            connection,
            self._rows(connection, compile_filter(self.filter)),
            browse.still_in(connection, self.marked, self.states or tuple(State)),
            self._read_words(connection),
        )
        return Page(
            rows=[short_row(row) for row in rows],
            matching=matching,
            live=not self.skipped and (self.anchor is None or (self.up and len(rows) < WINDOW)),
            gone=self.marked - present,
        )

    async def _rows(self, connection: Connection, condition: Condition) -> tuple[list[Row], int | None]:
        """Return the rows of the window, and how many match in all."""
        if self.order is not Order.NEWEST:
            return await sorted_rows.sorted_page(
                connection, condition, states=self.states, order=self.order, skipped=self.skipped, limit=WINDOW
            )
        if self.anchor is None and not browse.is_counted(condition, self.states):
            return await browse.newest(connection, condition, states=self.states, limit=WINDOW)
        rows, matching = await together(
            connection,
            browse.window(connection, condition, states=self.states, anchor=self.anchor, newer=self.up, limit=WINDOW),
            browse.count(connection, condition, self.states),
        )
        return rows, matching

    async def _read_words(self, connection: Connection) -> None:
        """Add the words of `wordless`. Where that takes too long, the rows are shown without words."""
        if not self.wordless:
            return
        try:
            found = await conversation.previews_of(connection, self.wordless)
        except psycopg.errors.QueryCanceled:
            found = {}
        self.words.update(dict.fromkeys(self.wordless, NO_PREVIEW) | found)


def short_row(row: Row) -> Row:
    """Return the row with its texts cut to what a table has room for."""
    return replace(
        row,
        delivery_id=clean(row.delivery_id, limit=200),
        event=None if row.event is None else clean(row.event, limit=80),
        conversation_id=None if row.conversation_id is None else clean(row.conversation_id, limit=40),
    )


@dataclass(frozen=True, slots=True)
class DetailReading:
    """Reads one delivery."""

    row_id: int

    async def read(self, connection: Connection) -> Detail | None:
        """Return the delivery; None if it is gone."""
        return await delivery_detail.detail(connection, self.row_id)


@dataclass(frozen=True, slots=True)
class ConversationReading:
    """Reads one conversation."""

    conversation_id: str

    async def read(self, connection: Connection) -> Conversation:
        """Return the conversation as far as it is stored."""
        return await conversation.read(connection, self.conversation_id)


@dataclass(frozen=True, slots=True)
class Activity:
    """Replay plans and the audit, newest first."""

    plans: list[Plan]
    audit: list[OperatorAction]


@dataclass(frozen=True, slots=True)
class ActivityReading:
    """Reads the newest plans, and the newest entries of the audit."""

    async def read(self, connection: Connection) -> Activity:
        """Return them."""
        plans, audit = await together(
            connection, browse.plans(connection, _PLANS), actions.newest(connection, limit=_ACTIONS)
        )
        return Activity([short_plan(plan) for plan in plans], audit)


@dataclass(frozen=True, slots=True)
class BreakdownReading:
    """Reads how the deliveries of `window` are spread over events and inboxes."""

    window: timedelta

    async def read(self, connection: Connection) -> Breakdown:
        """Return it."""
        return await breakdown.read(connection, self.window)
