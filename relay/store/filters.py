"""Makes an SQL condition over `relay.deliveries` of a filter. The grammar is `relay.domain.filters`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg.sql import SQL, Composable, Placeholder

from relay.domain import filters
from relay.domain.filters import Term, parse
from relay.errors import FilterError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_WHOLE_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_EVERYTHING = SQL("true")


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition over `relay.deliveries d`: SQL with named parameters, and the parameters.

    `causes` is the part of it that asks for status, error and event alone, and holds over `relay.dead_causes d` as
    well; None if there is none.
    """

    sql: Composable
    parameters: dict[str, Any] = field(default_factory=dict)
    causes: Composable | None = None

    @property
    def is_of_causes(self) -> bool:
        """True if it asks for nothing but status, error and event."""
        return self.sql == (self.causes or _EVERYTHING)

    @property
    def is_everything(self) -> bool:
        """True if it holds for every delivery."""
        return self.sql == _EVERYTHING

    def without(self, row_ids: Collection[int]) -> Condition:
        """The condition that holds for the same deliveries except these rows."""
        if not row_ids:
            return self
        sql = SQL("({}) AND d.id <> ALL(%(excepted)s)").format(self.sql)
        return Condition(sql, self.parameters | {"excepted": list(row_ids)})


def of_rows(row_ids: Collection[int]) -> Condition:
    """The condition of certain rows."""
    return Condition(SQL("d.id = ANY(%(ids)s)"), {"ids": list(row_ids)})


def of_deliveries(delivery_ids: Collection[str]) -> Condition:
    """The condition of certain deliveries, by Chatwoot's ids."""
    return Condition(SQL("d.delivery_id = ANY(%(ids)s)"), {"ids": list(delivery_ids)})


def compile_filter(text: str, *, now: datetime | None = None) -> Condition:
    """The SQL condition of a filter; an empty filter holds for everything.

    Times without a date are the last such time before `now` (default: the current time).

    Raises:
        FilterError: it does not parse; the message quotes the term and says how to write it.
    """
    now = now or datetime.now(UTC)
    parameters: dict[str, Any] = {}
    parts: list[Composable] = []
    causes: list[Composable] = []
    for term in parse(text):
        name = f"f{len(parts)}"
        if term.key.startswith("payload."):
            sql, values = _payload(term, name)
        else:
            build = _KEYS.get(term.key)
            if build is None:
                known = " ".join(f"{key}:" for key in _KEYS if key)
                raise FilterError(
                    f"{term.key}: is not a key; known are {known} payload.path: (put a word with a colon in quotes)"
                )
            sql, values = build(term, name, now)
        parameters |= values
        parts.append(SQL("NOT coalesce({}, false)" if term.negated else "({})").format(sql))
        if term.key in _CAUSE_KEYS:
            causes.append(parts[-1])
    return Condition(_all_of(parts) or _EVERYTHING, parameters, causes=_all_of(causes))


def _all_of(parts: list[Composable]) -> Composable | None:
    return SQL(" AND ").join(parts) if parts else None


_Built = tuple[Composable, dict[str, Any]]


def _with(text: LiteralString, name: str) -> Composable:
    """`text` with the placeholder `name` at `{0}`; at `{1}` a second one of the term."""
    return SQL(text).format(Placeholder(name), Placeholder(f"{name}b"))


def _contains(expression: LiteralString, name: str) -> Composable:
    return _with(f"strpos(lower({expression}), lower({{0}})) > 0", name)


def _error(term: Term, name: str, _: datetime) -> _Built:
    either = "strpos(lower(d.last_error), lower({0})) > 0 OR lower(d.final_status) = lower({0})"
    return _with(either, name), {name: term.value}


def _status(term: Term, name: str, _: datetime) -> _Built:
    classes, exact = filters.statuses(term)
    of_class = "length(d.final_status) = 3 AND left(d.final_status, 1) = ANY({1})"
    return _with(f"d.final_status = ANY({{0}}) OR ({of_class})", name), {name: exact, f"{name}b": classes}


def _event(term: Term, name: str, _: datetime) -> _Built:
    return _with("d.event ILIKE ANY({0})", name), {name: filters.event_patterns(term)}


def _conversation(term: Term, name: str, _: datetime) -> _Built:
    return _with("d.conversation_id = ANY({0})", name), {name: filters.conversations(term)}


def _id(term: Term, name: str, _: datetime) -> _Built:
    value = term.value
    # A whole id is found by its index, as it was written or in either case.
    if _WHOLE_ID.fullmatch(value):
        return _with("d.delivery_id = ANY({0})", name), {name: [value, value.lower(), value.upper()]}
    return _with("starts_with(lower(d.delivery_id), lower({0}))", name), {name: value}


def _state(term: Term, name: str, _: datetime) -> _Built:
    return _with("d.state = ANY({0})", name), {name: filters.states_of(term)}


def _replay(term: Term, name: str, _: datetime) -> _Built:
    sql = "d.id IN (SELECT i.delivery FROM relay.replay_items i WHERE i.plan_id = ANY({0}))"
    return _with(sql, name), {name: filters.plan_ids(term)}


def _test(term: Term, _name: str, _: datetime) -> _Built:
    return SQL("d.test" if filters.is_test(term) else "NOT d.test"), {}


def _age(term: Term, name: str, _: datetime) -> _Built:
    is_older, age = filters.age(term)
    return _with("d.received_at < now() - {0}" if is_older else "d.received_at > now() - {0}", name), {name: age}


def _since(term: Term, name: str, now: datetime) -> _Built:
    return _with("d.received_at >= {0}", name), {name: filters.moment(term, now)}


def _until(term: Term, name: str, now: datetime) -> _Built:
    return _with("d.received_at < {0}", name), {name: filters.moment(term, now)}


def _payload(term: Term, name: str) -> _Built:
    path = filters.payload_path(term)
    pattern = re.sub(r"([\\%_])", r"\\\1", term.value).replace("*", "%")
    return _with("relay.payload(d.body) #>> {1} ILIKE {0}", name), {f"{name}b": path, name: pattern}


_INBOX_PLACES = ("{{inbox,id}}", "{{conversation,inbox_id}}", "{{inbox_id}}")
"""Where a payload names its inbox: a message's, a conversation's, and events of other kinds."""


def _inbox(term: Term, name: str, _: datetime) -> _Built:
    given = ", ".join(f"relay.payload(d.body) #>> '{place}'" for place in _INBOX_PLACES)
    return _with(f"coalesce({given}) = ANY({{0}})", name), {name: filters.inboxes(term)}


def _word(term: Term, name: str, _: datetime) -> _Built:
    places = ("d.last_error", "d.event", "d.delivery_id", "convert_from(d.body, 'UTF8')")
    return SQL(" OR ").join(_contains(place, name) for place in places), {name: term.value}


_KEYS: dict[str, Callable[[Term, str, datetime], _Built]] = {
    "": _word,
    "error": _error,
    "status": _status,
    "event": _event,
    "conv": _conversation,
    "inbox": _inbox,
    "id": _id,
    "state": _state,
    "replay": _replay,
    "age": _age,
    "since": _since,
    "until": _until,
    "test": _test,
}
_CAUSE_KEYS = frozenset({"error", "status", "event"})
