"""Recognises names of environment variables that are nearly one of the relay's. Pure."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_PREFIXES = {"RELAY", "HOTDASH", "CHATWOOT", "AGENT", "SDK", "WEBHOOK"}
"""Words that people put before or into a name. Any other further word makes it another program's name."""

_LONG_NAME = 12


def near_misses(given: Iterable[str], known: Collection[str]) -> list[tuple[str, str]]:
    """The names in `given` that are not read although they are nearly one of `known`, each with that one.

    Letter case does not matter. `DATABASE_URI` is near `DATABASE_URL`, `AGENT_URL` near `AGENT_SDK_URL`.
    """
    names = sorted({name for name in given if name.upper() not in known})
    rights = [_Spelling.of(name) for name in sorted(known)]
    pairs = ((name, _nearest(_Spelling.of(name.upper()), rights)) for name in names)
    return [(name, right) for name, right in pairs if right is not None]


@dataclass(frozen=True, slots=True)
class _Spelling:
    """A name, its letters, and which of them it has, a bit each."""

    name: str
    letters: str
    has: int

    @classmethod
    def of(cls, name: str) -> _Spelling:
        letters = re.sub(r"[_.-]", "", name)
        return cls(name, letters, functools.reduce(lambda bits, letter: bits | 1 << ord(letter) % 64, letters, 0))

    def may_be_within(self, limit: int, other: _Spelling) -> bool:
        """False if surely more than `limit` letters must be changed. Most names differ so much, and this is quick."""
        if abs(len(self.letters) - len(other.letters)) > limit:
            return False
        return max((self.has & ~other.has).bit_count(), (other.has & ~self.has).bit_count()) <= limit


def _nearest(given: _Spelling, known: Sequence[_Spelling]) -> str | None:
    limit = 2 if len(given.name) >= _LONG_NAME else 1
    near = (
        (_distance(given.letters, right.letters), right.name) for right in known if given.may_be_within(limit, right)
    )
    distance, found = min(near, default=(limit + 1, ""))
    if distance <= limit:
        return found
    return next((right.name for right in known if _lacks_a_word(given.name, right.name)), None)


def _lacks_a_word(name: str, right: str) -> bool:
    """True if one word was left out of `right`, or one of `_PREFIXES` was added to it."""
    words, rights = re.split(r"[_.-]+", name), right.split("_")
    if len(words) + 1 == len(rights):
        is_specific = len(words) > 2 or (len(words) == 2 and words[0] == rights[0])
        return is_specific and any(rights[:n] + rights[n + 1 :] == words for n in range(len(rights)))
    if len(words) == len(rights) + 1 and len(rights) > 1:
        return any(words[:n] + words[n + 1 :] == rights and words[n] in _PREFIXES for n in range(len(words)))
    return False


def _distance(one: str, other: str) -> int:
    """How many letters must be inserted, deleted, replaced or swapped with their neighbour; 3 for three or more."""
    if abs(len(one) - len(other)) > 2:
        return 3
    before, last = [0] * (len(other) + 1), list(range(len(other) + 1))
    for n, letter in enumerate(one, start=1):
        row = [n]
        for m, right in enumerate(other, start=1):
            cost = min(row[m - 1] + 1, last[m] + 1, last[m - 1] + (letter != right))
            if n > 1 and m > 1 and letter == other[m - 2] and one[n - 2] == right:
                cost = min(cost, before[m - 2] + 1)
            row.append(cost)
        before, last = last, row
    return min(3, last[-1])
