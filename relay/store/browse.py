"""What consoles read of deliveries: keyset windows, counts that stop, failure groups, plans.

Every statement here reads as many rows as a screen needs or an index bounds, however large the tables are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL

from relay.domain.delivery import State
from relay.store.database import exact, fetched, rows_of
from relay.store.replays import plan_columns, plan_of_row
from relay.text import clean, unicode_escaped

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from psycopg import AsyncCursor
    from psycopg.sql import Composable, Composed

    from relay.store.database import Connection
    from relay.store.filters import Condition
    from relay.store.replays import Plan

COUNT_CAP = 10_000

Key = tuple["datetime | None", int]
"""The position of a row in its list: its time of death (None in the list of all deliveries) and its id."""


@dataclass(frozen=True, slots=True)
class Row:
    """One delivery as a list shows it. Times in UTC, durations in ms; those and the status are of the last run.

    `waits` says why it waits (order, capacity, hold, breaker, retry, destination), `next_attempt_at` when its next
    attempt is due.
    """

    id: int
    delivery_id: str
    state: State
    run: int
    event: str | None
    conversation_id: str | None
    test: bool
    attempts: int | None
    duration_ms: int | None
    final_status: str | None
    last_error: str | None
    received_at: datetime
    finished_at: datetime | None
    waits: str | None = None
    next_attempt_at: datetime | None = None

    @property
    def key(self) -> Key:
        """Its place in the list of all deliveries."""
        return None, self.id

    @property
    def dead_key(self) -> Key:
        """Its place in the dead-letter queue."""
        return self.finished_at, self.id


ROW = SQL("""
    d.id, d.delivery_id, d.state, d.run, d.event, d.conversation_id, d.test, d.attempts, d.duration_ms,
    d.final_status, d.last_error, d.received_at, d.finished_at,
    CASE WHEN d.state IN ('received', 'waiting') THEN d.waits END AS waits,
    CASE WHEN d.state = 'waiting' THEN d.next_attempt_at END AS next_attempt_at
""")


def make_row(*, state: str, **columns: Any) -> Row:
    return Row(state=State(state), **columns)


# The dead letters of each cause that the filter leaves, one cause after the other: each is a range of an index.
_OF_CAUSES = SQL("""
    FROM (SELECT DISTINCT d.final_status, d.last_error FROM relay.dead_causes d WHERE {causes}) AS c
    CROSS JOIN LATERAL (
        SELECT d.* FROM relay.deliveries d
         WHERE d.state = 'dead' AND coalesce(d.final_status, '') = c.final_status
           AND coalesce(d.last_error, '') = c.last_error AND {where}
         {rest}) AS d
""")
_OF_DEAD = SQL("FROM relay.deliveries d WHERE d.state = 'dead' AND {}")
_OF_ALL = SQL("FROM relay.deliveries d WHERE {}")
_OF_STATES = SQL("FROM relay.deliveries d WHERE d.state = ANY(%(states)s) AND {}")
# By whether the dead-letter queue is read, and whether rows from the anchor on are newer.
_ORDERS = {
    (True, True): SQL("ORDER BY d.finished_at ASC, d.id ASC LIMIT %(most)s"),
    (True, False): SQL("ORDER BY d.finished_at DESC, d.id DESC LIMIT %(most)s"),
    (False, True): SQL("ORDER BY d.id ASC LIMIT %(most)s"),
    (False, False): SQL("ORDER BY d.id DESC LIMIT %(most)s"),
}
_FROM_ANCHOR = {
    (True, True): SQL("{} AND (d.finished_at, d.id) >= (%(at)s, %(id)s)"),
    (True, False): SQL("{} AND (d.finished_at, d.id) <= (%(at)s, %(id)s)"),
    (False, True): SQL("{} AND d.id >= %(id)s"),
    (False, False): SQL("{} AND d.id <= %(id)s"),
}
_WINDOW = SQL("SELECT {row} {source} {order}")


async def window(
    connection: Connection,
    condition: Condition,
    *,
    states: Sequence[State] | None,
    anchor: Key | None = None,
    newer: bool = False,
    limit: int = 200,
) -> list[Row]:
    """Up to `limit` rows that `condition` holds for, newest first, from `anchor` on, that row included.

    With `newer` they are those that end at `anchor`. The dead-letter queue is ordered by when they died, all
    others by when they came.
    """
    statement, parameters = statement_of(condition, states=states, anchor=anchor, newer=newer, limit=limit)
    cursor = await rows_of(connection, make_row).execute(statement, parameters)
    rows = await cursor.fetchall()
    return rows[::-1] if newer else rows


def statement_of(
    condition: Condition,
    *,
    states: Sequence[State] | None,
    anchor: Key | None = None,
    newer: bool = False,
    limit: int,
) -> tuple[Composed, dict[str, Any]]:
    """The statement of `window` with its parameters; with `newer` its rows come oldest first."""
    kind = _are_dead(states), newer
    where = condition.sql
    parameters: dict[str, Any] = {**condition.parameters, "most": limit}
    if anchor is not None:
        where = _FROM_ANCHOR[kind].format(where)
        parameters |= {"at": anchor[0], "id": anchor[1]}
    source, more = _source(condition, where, states, _ORDERS[kind])
    return _WINDOW.format(row=ROW, source=source, order=_ORDERS[kind]), parameters | more


def _source(
    condition: Condition, where: Composable, states: Sequence[State] | None, rest: Composable
) -> tuple[Composable, dict[str, Sequence[str]]]:
    """`FROM …` of the deliveries `d` in `states` that `where` holds for, with the parameters it adds.

    `rest` may order and limit; a caller that wants that of the whole must repeat it.
    """
    if states is None:
        return _OF_ALL.format(where), {}
    if not _are_dead(states):
        return _OF_STATES.format(where), {"states": [state.value for state in states]}
    if condition.causes is not None:
        return _OF_CAUSES.format(causes=condition.causes, where=where, rest=rest), {}
    return _OF_DEAD.format(where), {}


def _are_dead(states: Sequence[State] | None) -> bool:
    return states is not None and tuple(states) == (State.DEAD,)


_STILL_IN = "SELECT d.id FROM relay.deliveries d WHERE d.id = ANY(%(ids)s) AND d.state = ANY(%(states)s)"


async def still_in(connection: Connection, ids: Collection[int], states: Collection[State]) -> set[int]:
    """Those of the rows `ids` that are in one of `states`. By the primary key."""
    if not ids:
        return set()
    given = {"ids": list(ids), "states": [state.value for state in states]}
    cursor = await connection.execute(_STILL_IN, given)
    return {row[0] for row in await cursor.fetchall()}


# What matches is counted only if the page does not hold all of it: a search would be carried out twice.
_PAGE = SQL("""
    WITH page AS MATERIALIZED ({window})
    SELECT d.*, CASE WHEN (SELECT count(*) FROM page) < %(most)s THEN (SELECT count(*) FROM page)
                     ELSE (SELECT count(*) FROM (SELECT {counted} LIMIT %(most_counted)s) AS found) END AS matching
      FROM page d {order}
""")
_LIMIT_COUNTED = SQL("LIMIT %(most_counted)s")


async def newest(
    connection: Connection, condition: Condition, *, states: Sequence[State] | None, limit: int, cap: int = COUNT_CAP
) -> tuple[list[Row], int | None]:
    """The newest `limit` rows that `condition` holds for, as `window` orders them, and how many there are of all.

    The number is None for more than `cap`.
    """
    rows, parameters = statement_of(condition, states=states, limit=limit)
    counted, more = _source(condition, condition.sql, states, _LIMIT_COUNTED)
    statement = _PAGE.format(window=rows, counted=counted, order=_ORDERS[_are_dead(states), False])
    found = await fetched(connection, make_counted_row, statement, parameters | more | {"most_counted": cap + 1})
    matching = found[0][1] if found else 0
    return [row for row, _ in found], matching if matching <= cap else None


def make_counted_row(*, matching: int, **columns: Any) -> tuple[Row, int]:
    """A row, and the number that its column `matching` holds."""
    return make_row(**columns), matching


_COUNT_OF_CAUSES = SQL("SELECT coalesce(sum(d.letters), 0)::bigint FROM relay.dead_causes d WHERE {}")
_LIMIT = SQL("LIMIT %(most)s")
_COUNT = SQL("SELECT count(*) FROM (SELECT {source} {limit}) AS found")


def is_counted(condition: Condition, states: Sequence[State] | None) -> bool:
    """True if to count what `condition` holds for costs little: it need not be searched for."""
    return condition.is_of_causes if _are_dead(states) else condition.is_everything


async def count(
    connection: Connection, condition: Condition, states: Sequence[State] | None, cap: int = COUNT_CAP
) -> int | None:
    """How many deliveries `condition` holds for; None for more than `cap`, where they have to be counted one by one.

    Dead letters by status, error and event are counted already.
    """
    if _are_dead(states) and condition.is_of_causes:
        counted = _COUNT_OF_CAUSES.format(condition.causes or SQL("true"))
        return await _number(await connection.execute(counted, condition.parameters))
    source, more = _source(condition, condition.sql, states, _LIMIT)
    statement = _COUNT.format(source=source, limit=_LIMIT)
    cursor = await connection.execute(statement, {**condition.parameters, **more, "most": cap + 1})
    found = await _number(cursor)
    return found if found <= cap else None


async def _number(cursor: AsyncCursor[Any]) -> int:
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True, slots=True)
class Group:
    """Open dead letters that share status and error. `per_minute` is how many came to it in the last minute.

    `first` and `last` are when the oldest and the newest of them died, be it in a replay. `only_tests`: all of them
    are test webhooks. `event_letters` are how many there are of each of its `events`. `answer` is the beginning of the
    agent's last answer to the newest of them.
    `filter` finds what is in the group, also where status or error hold what is not shown as it is.
    """

    final_status: str
    last_error: str
    count: int
    per_minute: int
    first: datetime
    last: datetime
    events: tuple[str, ...]
    filter: str
    only_tests: bool = False
    answer: str = ""
    event_letters: tuple[int, ...] = ()

    def growth(self, now: datetime) -> int:
        """`per_minute` while more come; 0 once the next is overdue, so that a recovery shows within seconds."""
        lasted_s = min(60.0, (self.last - self.first).total_seconds())
        due_s = max(_LEAST_PAUSE_S, _GAPS * lasted_s / max(1, self.per_minute))
        return self.per_minute if (now - self.last).total_seconds() < due_s else 0


_GAPS, _LEAST_PAUSE_S = 3, 3
_ANSWER_CHARS = 400
_OF_THE_GROUP = SQL("""FROM relay.deliveries d
    WHERE d.state = 'dead' AND coalesce(d.final_status, '') = c.final_status
      AND coalesce(d.last_error, '') = c.last_error AND d.finished_at IS NOT NULL""")
# ORDER BY with LIMIT: min() and max() would scan the whole group where Postgres expects it to be small.
_GROUPS = SQL("""
    SELECT c.final_status, c.last_error, c.letters, fresh.number, first.at, last.at, c.events,
           NOT EXISTS (SELECT {of_the_group} AND NOT d.test), said.answer, c.event_letters
      FROM (SELECT k.final_status, k.last_error, sum(k.letters)::bigint AS letters,
                   array_agg(k.event ORDER BY k.letters DESC, k.event) FILTER (WHERE k.event <> '') AS events,
                   array_agg(k.letters::bigint ORDER BY k.letters DESC, k.event) FILTER (WHERE k.event <> '')
                       AS event_letters
              FROM (SELECT final_status, last_error, event, sum(letters) AS letters FROM relay.dead_causes
                     GROUP BY 1, 2, 3 HAVING sum(letters) > 0) AS k
             GROUP BY 1, 2 ORDER BY 3 DESC LIMIT %(most)s) AS c
     CROSS JOIN LATERAL (SELECT d.finished_at AS at {of_the_group} ORDER BY d.finished_at LIMIT 1) AS first
     CROSS JOIN LATERAL (SELECT d.finished_at AS at {of_the_group} ORDER BY d.finished_at DESC LIMIT 1) AS last
     CROSS JOIN LATERAL (
        SELECT count(*) AS number {of_the_group} AND d.finished_at > now() - interval '1 minute') AS fresh
      LEFT JOIN LATERAL (
        SELECT left(a.answer, {answer_chars}) AS answer
          FROM (SELECT d.id, d.run {of_the_group} ORDER BY d.finished_at DESC LIMIT 1) AS newest
          JOIN relay.attempts a ON a.delivery = newest.id AND a.run = newest.run
         WHERE a.answer <> '' ORDER BY a.number DESC LIMIT 1) AS said ON true
     ORDER BY 3 DESC
""").format(of_the_group=_OF_THE_GROUP, answer_chars=_ANSWER_CHARS)


async def groups(connection: Connection, *, limit: int = 100) -> list[Group]:
    """The failure groups of the dead-letter queue, largest first."""
    cursor = await exact(connection).execute(_GROUPS, {"most": limit})
    return [_group(row) for row in await cursor.fetchall()]


def _group(row: Sequence[Any]) -> Group:
    """A group from an exact row: its filter needs status and error as the rows hold them."""
    status, error, count, per_minute, first, last, events, only_tests, answer, event_letters = row
    return Group(
        final_status=clean(status),
        last_error=clean(error),
        count=count,
        per_minute=per_minute,
        first=first,
        last=last,
        events=tuple(clean(event) for event in events or ()),
        filter=_group_filter(status, error),
        only_tests=only_tests,
        answer=clean(" ".join((answer or "").split())),
        event_letters=tuple(event_letters or ()),
    )


_WORD = re.compile(r"[\w.\-]+")
_FILTER_CHARS = 2_000


def _group_filter(status: str, error: str) -> str:
    """The filter for one status and error. A status with a comma is left out: in a filter that separates statuses."""
    terms = []
    if status and "," not in status:
        terms.append(f"status:{status if _WORD.fullmatch(status) else quoted(status)}")
    if error:
        terms.append(f"error:{quoted(error[:_FILTER_CHARS])}")
    return " ".join(terms)


def quoted(text: str) -> str:
    """The text as the value of a filter's term, in quotes."""
    return '"' + unicode_escaped(re.sub(r'(["\\])', r"\\\1", text)) + '"'


NEWEST_PLANS = 8
"""So many plans are read for the headline, also where a screen or a report shows them."""

_PLANS = SQL("""
    SELECT {} FROM relay.replay_plans p
     WHERE p.id >= coalesce((SELECT min(n.id) FROM (
               SELECT id FROM relay.replay_plans ORDER BY id DESC LIMIT %(newest)s) AS n), 0)
        OR p.id IN (SELECT o.id FROM relay.replay_plans o
                     WHERE o.state IN ('queued', 'running', 'paused') ORDER BY o.id LIMIT %(newest)s)
     ORDER BY p.id DESC
""").format(plan_columns)


async def plans(connection: Connection, newest: int = NEWEST_PLANS) -> list[Plan]:
    """The `newest` replay plans and those that have not ended, newest first."""
    cursor = await rows_of(connection, plan_of_row).execute(_PLANS, {"newest": newest})
    return await cursor.fetchall()
