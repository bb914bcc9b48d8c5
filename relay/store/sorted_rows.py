"""Windows of deliveries in another order than that of time. Only so many of the newest that match are sorted.

Postgres has no index for these orders: to sort all of a million rows each second is not affordable.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from psycopg.sql import SQL

from relay.store.browse import make_counted_row, statement_of
from relay.store.database import fetched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.domain.delivery import State
    from relay.store.browse import Row
    from relay.store.database import Connection
    from relay.store.filters import Condition

MOST_SORTED = 10_000
"""As many of the newest deliveries that match are sorted; of `OLDEST`, as many of the oldest."""


class Order(StrEnum):
    """The orders of a list. The value is what the console calls it."""

    NEWEST = "newest first"
    OLDEST = "oldest first"
    EVENT = "by event"
    CONVERSATION = "by conversation"
    ATTEMPTS = "by attempts"
    STATUS = "by status"
    CAUSE = "by cause"
    DURATION = "by duration"


_BY = {
    Order.OLDEST: SQL("r.id"),
    Order.EVENT: SQL("r.event, r.id DESC"),
    Order.CONVERSATION: SQL("length(r.conversation_id), r.conversation_id, r.id DESC"),
    Order.ATTEMPTS: SQL("r.attempts DESC NULLS LAST, r.id DESC"),
    Order.STATUS: SQL("r.final_status, r.last_error, r.id DESC"),
    Order.CAUSE: SQL("r.last_error, r.id DESC"),
    Order.DURATION: SQL("r.duration_ms DESC NULLS LAST, r.id DESC"),
}
_OLDEST_DEAD = SQL("r.finished_at, r.id")
_SORTED = SQL("""
    WITH found AS MATERIALIZED ({rows})
    SELECT r.*, (SELECT count(*) FROM found) AS matching FROM (SELECT * FROM found LIMIT %(sorted)s) AS r
     ORDER BY {by} LIMIT %(page)s OFFSET %(skipped)s
""")


async def sorted_page(
    connection: Connection,
    condition: Condition,
    *,
    states: Sequence[State] | None,
    order: Order,
    skipped: int = 0,
    limit: int = 200,
) -> tuple[list[Row], int | None]:
    """Return up to `limit` rows that `condition` holds for, after `skipped` ones in `order`, which is not `NEWEST`.

    Also returns how many match in all; None for more than `MOST_SORTED`.
    """
    statement, parameters = statement_of(condition, states=states, newer=order is Order.OLDEST, limit=MOST_SORTED + 1)
    given = parameters | {"page": limit, "skipped": skipped, "sorted": MOST_SORTED}
    sorted_rows = _SORTED.format(rows=statement, by=_by(order, states))
    found = await fetched(connection, make_counted_row, sorted_rows, given)
    matching = found[0][1] if found else 0
    return [row for row, _ in found], matching if matching <= MOST_SORTED else None


def _by(order: Order, states: Sequence[State] | None) -> SQL:
    return _OLDEST_DEAD if order is Order.OLDEST and states is not None else _BY[order]
