"""Makes an SQL condition over `relay.deliveries` of a filter. The grammar is `relay.domain.filters`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from relay.domain import filters
from relay.domain.filters import Term, parse
from relay.errors import FilterError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_WHOLE_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_EVERYTHING = "true"


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition over `relay.deliveries d`: SQL with named parameters, and the parameters.

    `causes` is the part of it that asks for status, error and event alone, and holds over `relay.dead_causes d` as
    well; empty if there is none.
    """

    sql: str
    parameters: dict[str, Any] = field(default_factory=dict)
    causes: str = ""

    @property
    def is_of_causes(self) -> bool:
        """True if it asks for nothing but status, error and event."""
        return self.sql == (self.causes or _EVERYTHING)

    def without(self, row_ids: Collection[int]) -> Condition:
        """The condition that holds for the same deliveries except these rows."""
        if not row_ids:
            return self
        sql = f"({self.sql}) AND d.id <> ALL(%(excepted)s)"
        return Condition(sql, self.parameters | {"excepted": list(row_ids)})


def of_rows(row_ids: Collection[int]) -> Condition:
    """The condition of certain rows."""
    return Condition("d.id = ANY(%(ids)s)", {"ids": list(row_ids)})


def of_deliveries(delivery_ids: Collection[str]) -> Condition:
    """The condition of certain deliveries, by Chatwoot's ids."""
    return Condition("d.delivery_id = ANY(%(ids)s)", {"ids": list(delivery_ids)})


def compile_filter(text: str, *, now: datetime | None = None) -> Condition:
    """The SQL condition of a filter; an empty filter holds for everything.

    Times without a date are the last such time before `now` (default: the current time).

    Raises:
        FilterError: it does not parse; the message quotes the term and says how to write it.
    """
    now = now or datetime.now(UTC)
    parameters: dict[str, Any] = {}
    parts: list[str] = []
    causes: list[str] = []
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
        parts.append(f"NOT coalesce({sql}, false)" if term.negated else f"({sql})")
        if term.key in _CAUSE_KEYS:
            causes.append(parts[-1])
    return Condition(" AND ".join(parts) or _EVERYTHING, parameters, causes=" AND ".join(causes))


_Built = tuple[str, dict[str, Any]]


def _contains(expression: str, name: str) -> str:
    return f"strpos(lower({expression}), lower(%({name})s)) > 0"


def _error(term: Term, name: str, _: datetime) -> _Built:
    return f"{_contains('d.last_error', name)} OR lower(d.final_status) = lower(%({name})s)", {name: term.value}


def _status(term: Term, name: str, _: datetime) -> _Built:
    classes, exact = filters.statuses(term)
    of_class = f"length(d.final_status) = 3 AND left(d.final_status, 1) = ANY(%({name}c)s)"
    return f"d.final_status = ANY(%({name})s) OR ({of_class})", {name: exact, f"{name}c": classes}


def _event(term: Term, name: str, _: datetime) -> _Built:
    return _contains("d.event", name), {name: term.value}


def _conversation(term: Term, name: str, _: datetime) -> _Built:
    return f"d.conversation_id = %({name})s", {name: term.value}


def _id(term: Term, name: str, _: datetime) -> _Built:
    value = term.value
    # A whole id is found by its index, as it was written or in either case.
    if _WHOLE_ID.fullmatch(value):
        return f"d.delivery_id = ANY(%({name})s)", {name: [value, value.lower(), value.upper()]}
    return f"starts_with(lower(d.delivery_id), lower(%({name})s))", {name: value}


def _state(term: Term, name: str, _: datetime) -> _Built:
    return f"d.state = ANY(%({name})s)", {name: filters.states(term)}


def _test(term: Term, _name: str, _: datetime) -> _Built:
    return ("d.test" if filters.is_test(term) else "NOT d.test"), {}


def _age(term: Term, name: str, _: datetime) -> _Built:
    is_older, age = filters.age(term)
    return f"d.received_at {'<' if is_older else '>'} now() - %({name})s", {name: age}


def _since(term: Term, name: str, now: datetime) -> _Built:
    return f"d.received_at >= %({name})s", {name: filters.moment(term, now)}


def _until(term: Term, name: str, now: datetime) -> _Built:
    return f"d.received_at < %({name})s", {name: filters.moment(term, now)}


def _payload(term: Term, name: str) -> _Built:
    path = filters.payload_path(term)
    pattern = re.sub(r"([\\%_])", r"\\\1", term.value).replace("*", "%")
    return f"relay.payload(d.body) #>> %({name}p)s ILIKE %({name})s", {f"{name}p": path, name: pattern}


def _word(term: Term, name: str, _: datetime) -> _Built:
    places = ("d.last_error", "d.event", "d.delivery_id", "convert_from(d.body, 'UTF8')")
    return " OR ".join(_contains(place, name) for place in places), {name: term.value}


_KEYS: dict[str, Callable[[Term, str, datetime], _Built]] = {
    "": _word,
    "error": _error,
    "status": _status,
    "event": _event,
    "conv": _conversation,
    "id": _id,
    "state": _state,
    "age": _age,
    "since": _since,
    "until": _until,
    "test": _test,
}
_CAUSE_KEYS = frozenset({"error", "status", "event"})
