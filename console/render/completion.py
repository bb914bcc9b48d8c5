"""Completes the last word of a filter: keys, values that occur with how often they do, and saved filters. Pure."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from textual.content import Content

from console.render.formatting import cut
from relay.domain.delivery import State
from relay.domain.retry import short_status
from relay.store.browse import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.store.browse import Group

_KEYS = ("error:", "status:", "event:", "conv:", "inbox:", "id:", "state:", "replay:", "age:<", "since:", "until:",
         "test:", "payload.")  # fmt: skip
_CHOICES = ("test:yes", "test:no", "age:<15m", "age:<1h", "age:<24h")
_PLAIN = re.compile(r"[\w.\-]+")
_MOST_SHOWN = 8
_WORDS = re.compile(r'\s+|(?:[^\s"]|"(?:\\.|[^"\\])*(?:"|$))+')
_SHOWN_CHARS = 40


def offers(text: str, groups: Sequence[Group], saved: Mapping[str, str]) -> list[tuple[str, int | None]]:
    """Return what the last word of `text` may become, with the number of dead letters where it is known."""
    word = _parts(text)[1].lower()
    negated = "!" if word.startswith("!") else ""
    word = word.removeprefix("!")
    if word.startswith("@"):
        return [(f"@{name}", None) for name in sorted(saved) if f"@{name}".lower().startswith(word)]
    counts: Counter[str] = Counter()
    for group in groups:
        counts[f"status:{short_status(group.final_status)}"] += group.count
        counts[f"error:{quoted(group.last_error)}"] += group.count
        for place, event in enumerate(group.events):
            letters = group.event_letters[place] if place < len(group.event_letters) else 0
            counts[f"event:{event if _PLAIN.fullmatch(event) else quoted(event)}"] += letters
    values: list[tuple[str, int | None]] = [(value, number or None) for value, number in counts.most_common()]
    values += [(f"state:{state.value}", None) for state in State]
    values += [(value, None) for value in _CHOICES]
    if ":" not in word:
        values = [(key, None) for key in _KEYS]
    return [(f"{negated}{value}", number) for value, number in values if _begins(value, word) and value.lower() != word]


def _begins(value: str, word: str) -> bool:
    """Return True if `word` is the beginning of `value`, whose quote need not be typed."""
    value = value.lower()
    return value.startswith(word) or value.replace(':"', ":", 1).startswith(word)


def completed(text: str, found: Sequence[tuple[str, int | None]], saved: Mapping[str, str]) -> str:
    """Return `text` with its last word as far as all that was found begins alike; a saved filter as what it says."""
    head, word = _parts(text)
    if len(found) == 1 and found[0][0].startswith("@"):
        return f"{head}{saved[found[0][0][1:]]}"
    common = _beginning([value for value, _ in found])
    return f"{head}{common if len(common) > len(word) else word}"


def _parts(text: str) -> tuple[str, str]:
    """Return what stands before the last word of `text`, and that word; a blank in quotes ends no word."""
    words = _WORDS.findall(text)
    word = "" if not words or words[-1].isspace() else words[-1]
    return text[: len(text) - len(word)], word


def _beginning(texts: Sequence[str]) -> str:
    """Return what all of `texts` begin with."""
    first, last = min(texts, default=""), max(texts, default="")
    alike = (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(alike, min(len(first), len(last)))]


def expanded(text: str, saved: Mapping[str, str]) -> str:
    """Return `text` with each `@name` of a saved filter as what it says."""
    return "".join(saved.get(word[1:], word) if word.startswith("@") else word for word in _WORDS.findall(text))


def offered(found: Sequence[tuple[str, int | None]]) -> Content:
    """Return what was found as a line."""
    if not found:
        return Content.styled("nothing completes this", "$text-muted")
    parts = [
        Content.assemble((cut(value, _SHOWN_CHARS), "bold"), ("" if number is None else f" {number:,}", "$text-muted"))
        for value, number in found[:_MOST_SHOWN]
    ]
    more = f"   and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    return Content("   ").join(parts) + Content.styled(more, "$text-muted")
