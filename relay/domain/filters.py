"""The filter grammar, the same on the command line and in the console. Pure: text in, SQL condition out.

    error:503  status:429,timeout,reset  status:5xx  event:message_created  conv:77  id:0192f  state:dead
    age:<1h  age:>30m  since:14:02  since:2026-11-23T14:02  until:15:00  test:yes
    payload.conversation.id:77  payload.sender.name:jane*  word  "two words"  !word  !status:422

Terms are separated by spaces and must all hold; `!` turns one round. `age:`, `since:` and `until:` go by when a
delivery was received; times without a date are the last such time, in UTC. A word is looked for in payload, error,
event and delivery id; case never matters. In quotes, `\\"` is a quote and `\\u001b` the character U+001B.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from relay.domain.delivery import State
from relay.errors import FilterError

if TYPE_CHECKING:
    from collections.abc import Callable

_TERM = re.compile(
    r"""(?P<no>!?)
        (?:(?P<key>[A-Za-z_][\w.\-]*):)?
        (?: "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<plain>[^\s"]+) )?
        (?=\s|$)""",
    re.VERBOSE,
)
_AGE = re.compile(r"([<>]?)(\d+(?:\.\d+)?)(ms|[smhdw])")
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST_AGE_S = 1e10  # some centuries; Postgres's calendar begins in 4713 BC
_WHOLE_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_STATUS_CLASS = re.compile(r"[1-5]xx")
SHORT_STATUSES = {
    "connection_refused": "refused",
    "connection_reset": "reset",
    "unreachable": "no-host",
    "dns_failure": "dns",
    "tls_error": "tls",
    "protocol_error": "no-http",
}
"""What narrow columns call the statuses that are no number; `status:` knows both names."""
_LONG_STATUSES = {short: status for status, short in SHORT_STATUSES.items()}
_EVERYTHING = "true"
_NAME_OF_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


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


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a filter: `key` is empty for a word."""

    key: str
    value: str
    negated: bool


def parse(text: str) -> list[Term]:
    """The terms of a filter.

    Raises:
        FilterError: a quote is left open, or there is nothing to look for.
    """
    if "\0" in text:
        raise FilterError("a filter cannot hold a NUL character")
    if not _is_text(text):
        raise FilterError("a filter cannot hold bytes that are not text")
    terms: list[Term] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = _TERM.match(text, position)
        if match is None or match.end() == position:
            rest = text[position:].split(maxsplit=1)[0]
            raise FilterError(f"{rest}: a quote is left open, or stands inside a word")
        value = match["plain"] if match["quoted"] is None else _unquoted(match["quoted"])
        if not value:
            raise FilterError(f"{match.group()}: something to look for is missing")
        key = match["key"] or ""
        terms.append(Term(key if key.startswith("payload.") else key.lower(), value, bool(match["no"])))
        position = match.end()
    return terms


_ESCAPES = re.compile(r"((?:\\u[0-9a-fA-F]{4})+)|\\(.)")


def _unquoted(text: str) -> str:
    r"""The text between quotes: `\uXXXX` is that character (a surrogate pair is one), `\x` is `x`.

    Raises:
        FilterError: it names a NUL character, or half of a surrogate pair.
    """

    def character(match: re.Match[str]) -> str:
        units, other = match.groups()
        if other is not None:
            return str(other)
        codes = bytes.fromhex(units.replace("\\u", ""))
        return codes.decode("utf-16-be", "surrogatepass")

    value = _ESCAPES.sub(character, text)
    if "\0" in value or not _is_text(value):
        raise FilterError(f'"{text}": a filter cannot hold a NUL character or bytes that are not text')
    return value


def _is_text(text: str) -> bool:
    """False if it holds lone surrogates, as a command line's bytes do that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def compile_filter(text: str, *, now: datetime | None = None) -> Condition:
    """The SQL condition of a filter; an empty filter holds for everything.

    `now` is what times without a date are read against (default: the current time).

    Raises:
        FilterError: it does not parse; the message quotes the term and says what would do.
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
    wanted = [value.lower() for value in term.value.split(",") if value]
    classes = [value[0] for value in wanted if _STATUS_CLASS.fullmatch(value)]
    exact = [_LONG_STATUSES.get(value, value) for value in wanted if not _STATUS_CLASS.fullmatch(value)]
    exact += [value for value in term.value.split(",") if value and value.lower() != value]
    of_class = f"length(d.final_status) = 3 AND left(d.final_status, 1) = ANY(%({name}c)s)"
    sql = f"d.final_status = ANY(%({name})s) OR ({of_class})"
    return sql, {name: exact, f"{name}c": classes}


def _event(term: Term, name: str, _: datetime) -> _Built:
    return _contains("d.event", name), {name: term.value}


def _conversation(term: Term, name: str, _: datetime) -> _Built:
    return f"d.conversation_id = %({name})s", {name: term.value}


def _id(term: Term, name: str, _: datetime) -> _Built:
    value = term.value
    # A whole id is found by its index, as it was written or in the case that everybody writes it in.
    if _WHOLE_ID.fullmatch(value):
        return f"d.delivery_id = ANY(%({name})s)", {name: [value, value.lower(), value.upper()]}
    return f"starts_with(lower(d.delivery_id), lower(%({name})s))", {name: value}


def _state(term: Term, name: str, _: datetime) -> _Built:
    states = [state.value for state in State]
    wanted = term.value.lower().split(",")
    unknown = next((value for value in wanted if value not in states), None)
    if unknown is not None:
        raise FilterError(f"state:{term.value}: {unknown} is not a state; states are {', '.join(states)}")
    return f"d.state = ANY(%({name})s)", {name: wanted}


def _test(term: Term, _name: str, _: datetime) -> _Built:
    value = term.value.lower()
    if value not in {"yes", "no", "true", "false"}:
        raise FilterError(f"test:{term.value}: say test:yes or test:no")
    return ("d.test" if value in {"yes", "true"} else "NOT d.test"), {}


def _age(term: Term, name: str, _: datetime) -> _Built:
    match = _AGE.fullmatch(term.value.lower())
    if match is None:
        raise FilterError(f"age:{term.value}: say age:<1h or age:>30m (units: ms s m h d w)")
    sign = "<" if match[1] == ">" else ">"
    age_s = float(match[2]) * _UNITS_S[match[3]]
    if age_s > _LONGEST_AGE_S:
        raise FilterError(f"age:{term.value}: is too long ago")
    return f"d.received_at {sign} now() - %({name})s", {name: timedelta(seconds=age_s)}


def _since(term: Term, name: str, now: datetime) -> _Built:
    return f"d.received_at >= %({name})s", {name: _moment(term, now)}


def _until(term: Term, name: str, now: datetime) -> _Built:
    return f"d.received_at < %({name})s", {name: _moment(term, now)}


def moment_of(key: str, value: str, now: datetime) -> datetime:
    """The moment that `since:VALUE` or `until:VALUE` names.

    Raises:
        FilterError: the value names none.
    """
    return _moment(Term(key, value, negated=False), now)


def _moment(term: Term, now: datetime) -> datetime:
    text = term.value.upper()
    try:
        if _NAME_OF_DAY.match(text):
            moment = datetime.fromisoformat(text)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        clock = datetime.fromisoformat(f"2000-01-01T{text}")
    except ValueError:
        raise FilterError(
            f"{term.key}:{term.value}: say {term.key}:14:02 or {term.key}:2026-11-23T14:02 (UTC)"
        ) from None
    clock = clock.astimezone(UTC) if clock.tzinfo else clock
    moment = now.astimezone(UTC).replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0)
    return moment if moment <= now else moment - timedelta(days=1)


def _payload(term: Term, name: str) -> _Built:
    path = term.key.split(".")[1:]
    if not all(path):
        raise FilterError(f"{term.key}:{term.value}: say payload.conversation.id:77")
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
