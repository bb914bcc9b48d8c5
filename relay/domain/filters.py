"""The filter grammar of command line and console: text in, checked terms out. `relay.store.filters` makes SQL of it.

    error:503  status:429,timeout,reset  status:5xx  event:message_*  conv:77,78  inbox:3  id:0192f  state:dead
    replay:12  age:<1h  age:>30m  since:14:02  since:2026-11-23T14:02  until:15:00  test:yes
    payload.conversation.id:77  payload.sender.name:jane*  word  "two words"  !word  !status:422

Terms are separated by spaces and must all hold; `!` negates one. `age:`, `since:` and `until:` compare the time of
receipt; a time without a date is the last such time, in UTC. A word is searched in payload, error, event and
delivery id; case never matters. In quotes, `\\"` is a quote and `\\u001b` the character U+001B.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from relay.domain.delivery import State
from relay.domain.retry import Failure, long_status, short_status
from relay.errors import FilterError
from relay.text import is_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_TERM = re.compile(
    r"""(?P<no>!?)
        (?:(?P<key>[A-Za-z_][\w.\-]*):)?
        (?: "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<plain>[^\s"]+) )?
        (?=\s|$)""",
    re.VERBOSE,
)
_OPERATORS = {"OR", "AND", "NOT"}
_AGE = re.compile(r"([<>]?)(\d+(?:\.\d+)?)(ms|[smhdw])")
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST_AGE_S = 1e10  # some centuries; Postgres's calendar begins in 4713 BC
_STATUS_CLASS = re.compile(r"[1-5]xx")
_NAME_OF_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a filter: `key` is empty for a word."""

    key: str
    value: str
    negated: bool


def parse(text: str) -> list[Term]:
    """The terms of a filter.

    Raises:
        FilterError: a quote is left open, or a term has no value.
    """
    if "\0" in text:
        raise FilterError("a filter cannot hold a NUL character")
    if not is_text(text):
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
            raise FilterError(f"{rest}: a quote is left open, or is inside a word")
        value = match["plain"] if match["quoted"] is None else _unquoted(match["quoted"])
        if (match["key"] or "").lower() == "conv" and "*" in (match["plain"] or ""):
            raise FilterError(f"{match.group()}: name conversations whole, in a list: conv:77,78")
        if match["plain"] in _OPERATORS and not match["key"]:
            raise FilterError(
                f"{match['plain']}: terms must all hold; alternatives are a list: status:429,503 (or quote the word)"
            )
        if not value:
            raise FilterError(f"{match.group()}: a value is missing")
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
    if "\0" in value or not is_text(value):
        raise FilterError(f'"{text}": a filter cannot hold a NUL character or bytes that are not text')
    return value


def statuses(term: Term) -> tuple[list[str], list[str]]:
    """The classes (`5` for `5xx`) and the exact statuses that a `status:` term names; short names are resolved."""
    wanted = [value.lower() for value in term.value.split(",") if value]
    classes = [value[0] for value in wanted if _STATUS_CLASS.fullmatch(value)]
    exact = [long_status(value) for value in wanted if not _STATUS_CLASS.fullmatch(value)]
    exact += [value for value in term.value.split(",") if value and value.lower() != value]
    return classes, exact


def doubts(terms: Iterable[Term], *, states: Collection[State] | None = None, now: datetime | None = None) -> list[str]:
    """Sentences about the values that no delivery can have, for a filter that finds nothing.

    `states` are the states that are searched, None for all.
    """
    said: list[str] = []
    terms, now = list(terms), now or datetime.now(UTC)
    for term in terms:
        if term.key in {"status", *_IDS} and not term.value.strip(","):
            said.append(f"{term.key}:{term.value} names no value")
        elif term.key == "status":
            odd = [value for value in term.value.split(",") if value and not _may_be_status(value.lower())]
            said += [f"{value} is no status: say 503, 5xx, {', '.join(_SHORT_STATUSES)}" for value in odd]
        elif term.key in {"conv", "inbox"}:
            odd = [value for value in term.value.split(",") if value and not value.isdecimal()]
            said += [f"{value} is no {_IDS[term.key]}: Chatwoot's are numbers" for value in odd]
        elif term.key == "event" and not term.negated:
            said += [f"{value} is in no known event, such as {', '.join(_EVENTS[:3])}"
                     for value in term.value.split(",") if value and not _may_be_event(value)]  # fmt: skip
        elif term.key == "state" and states is not None and not set(states_of(term)) & set(states):
            only = ", ".join(state.value for state in states)
            said.append(f"{term.key}:{term.value} finds nothing here, where every delivery is {only}")
    return said + _times_that_exclude(terms, now)


def _may_be_event(value: str) -> bool:
    pattern = re.escape(value.lower()).replace(r"\*", ".*")
    return any(re.fullmatch(pattern, name) if "*" in value else re.search(pattern, name) for name in _EVENTS)


def _times_that_exclude(terms: Sequence[Term], now: datetime) -> list[str]:
    """A sentence about times of receipt that lie in the future, or exclude each other; none if they do not."""
    begins: list[tuple[datetime, str]] = []
    ends = [(now, "now")]
    for term in terms:
        name = f"{term.key}:{term.value}"
        if term.negated:
            continue
        if term.key == "age":
            is_older, ago = age(term)
            (ends if is_older else begins).append((now - ago, name))
        elif term.key in {"since", "until"}:
            (begins if term.key == "since" else ends).append((moment(term, now), name))
    if not begins:
        return []
    begin, end = max(begins), min(ends)
    if begin[0] < end[0]:
        return []
    return [f"{begin[1]} is in the future" if end[1] == "now" else f"{begin[1]} and {end[1]} exclude each other"]


_EVENTS = (
    "message_created", "conversation_status_changed", "conversation_updated", "message_updated",
    "conversation_created", "contact_created", "contact_updated", "webwidget_triggered", "inbox_created",
    "inbox_updated", "conversation_typing_on", "conversation_typing_off", "conversation_opened",
    "conversation_resolved",
)  # fmt: skip
"""Chatwoot's events (CONTRACT)."""
_IDS = {"conv": "conversation", "inbox": "inbox"}
_SHORT_STATUSES = tuple(short_status(failure) for failure in Failure)


def _may_be_status(value: str) -> bool:
    is_http = len(value) == 3 and value.isdecimal() and value[0] in "12345"
    return is_http or bool(_STATUS_CLASS.fullmatch(value)) or long_status(value) in set(Failure)


def states_of(term: Term) -> list[str]:
    """The states that a `state:` term names.

    Raises:
        FilterError: one of them is no state.
    """
    known = [state.value for state in State]
    wanted = term.value.lower().split(",")
    unknown = next((value for value in wanted if value not in known), None)
    if unknown is not None:
        raise FilterError(f"state:{term.value}: {unknown} is not a state; states are {', '.join(known)}")
    return wanted


def event_patterns(term: Term) -> list[str]:
    """The patterns of LIKE that an `event:` term names: parts of names, or whole names with a `*`."""
    values = [value for value in term.value.split(",") if value] or [term.value]
    escaped = [(re.sub(r"([\\%_])", r"\\\1", value), "*" in value) for value in values]
    return [text.replace("*", "%") if is_whole else f"%{text}%" for text, is_whole in escaped]


def conversations(term: Term) -> list[str]:
    """The conversations that a `conv:` term names."""
    return [value for value in term.value.split(",") if value]


def inboxes(term: Term) -> list[str]:
    """The ids of the inboxes that an `inbox:` term names."""
    return [value for value in term.value.split(",") if value]


def plan_ids(term: Term) -> list[int]:
    """The ids of the replays that a `replay:` term names.

    Raises:
        FilterError: one of them is no number.
    """
    wanted = term.value.removeprefix("#").split(",")
    if not all(value.isascii() and value.isdigit() and len(value) < 19 for value in wanted):
        raise FilterError(f"replay:{term.value}: say replay:12, the replay's number")
    return [int(value) for value in wanted]


def is_test(term: Term) -> bool:
    """True if a `test:` term asks for test webhooks, False if for all others.

    Raises:
        FilterError: the value is neither yes nor no.
    """
    value = term.value.lower()
    if value not in {"yes", "no", "true", "false"}:
        raise FilterError(f"test:{term.value}: say test:yes or test:no")
    return value in {"yes", "true"}


def age(term: Term) -> tuple[bool, timedelta]:
    """Whether an `age:` term asks for older deliveries (else younger), and the age.

    Raises:
        FilterError: the value is no age, or longer than Postgres's calendar.
    """
    match = _AGE.fullmatch(term.value.lower())
    if match is None:
        raise FilterError(f"age:{term.value}: say age:<1h or age:>30m (units: ms s m h d w)")
    age_s = float(match[2]) * _UNITS_S[match[3]]
    if age_s > _LONGEST_AGE_S:
        raise FilterError(f"age:{term.value}: is too long ago")
    return match[1] == ">", timedelta(seconds=age_s)


def moment(term: Term, now: datetime) -> datetime:
    """The time that a `since:` or `until:` term names.

    Raises:
        FilterError: the value is no time.
    """
    text = term.value.upper()
    try:
        if _NAME_OF_DAY.match(text):
            day = datetime.fromisoformat(text)
            return day if day.tzinfo else day.replace(tzinfo=UTC)
        clock = datetime.fromisoformat(f"2000-01-01T{text}")
    except ValueError:
        raise FilterError(
            f"{term.key}:{term.value}: say {term.key}:14:02 or {term.key}:2026-11-23T14:02 (UTC)"
        ) from None
    clock = clock.astimezone(UTC) if clock.tzinfo else clock
    today = now.astimezone(UTC).replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0)
    return today if today <= now else today - timedelta(days=1)


def moment_of(key: str, value: str, now: datetime) -> datetime:
    """The time that `since:VALUE` or `until:VALUE` names.

    Raises:
        FilterError: the value is no time.
    """
    return moment(Term(key, value, negated=False), now)


def payload_path(term: Term) -> list[str]:
    """The keys of a `payload.` term, outermost first.

    Raises:
        FilterError: one of them is empty.
    """
    path = term.key.split(".")[1:]
    if not all(path):
        raise FilterError(f"{term.key}:{term.value}: say payload.conversation.id:77")
    return path
