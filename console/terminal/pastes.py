"""Separates pasted text from typed keys in the bytes that a terminal sends. Pure.

Most terminals mark a paste (bracketed paste). Textual's parser takes most of a second for a megabyte, and waits for
ever for an end that is lost. A terminal that does not mark pastes sends their text as keys, and each would run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BEGIN, _END = b"\x1b[200~", b"\x1b[201~"
_BEGUN = re.compile(rb"\x1b\[20{0,2}\Z")
"""The beginning of a `_BEGIN` that is not complete yet. A shorter one may be a key."""
_TAIL = len(_END) - 1
_MOST_BYTES = 1_200_000
"""As much of one paste is kept."""
_LOST_S = 10.0
"""A marked paste ends when nothing has come for so long: its end is lost."""
_BURST_BYTES = 256
"""Nobody types so many characters at once: they are pasted."""
_LEAST_DIFFERENT = 5
"""A held key repeats one character. A paste has at least so many different ones."""
_PAUSE_S = 0.1
"""Such a paste ends when nothing has come for so long."""


@dataclass(frozen=True, slots=True)
class Pasted:
    """The text of one paste, with `\\n` at the end of its lines."""

    text: str


class Pastes:
    """What `feed` and `tick` return is in the order in which it came: bytes of keys, and pastes."""

    def __init__(self) -> None:
        self._begun = b""
        self._tail = b""
        self._kept = bytearray()
        self._is_marked = self._is_burst = False
        self._fed_at = 0.0

    def feed(self, given: bytes, now: float) -> list[bytes | Pasted]:
        """Take bytes that have come at `now` (seconds, monotonic)."""
        found: list[bytes | Pasted] = self.tick(now)
        self._fed_at = now
        given, self._begun = self._begun + given, b""
        while given:
            given = self._marked(given, found) if self._is_marked else self._unmarked(given, found)
        return found

    def tick(self, now: float) -> list[bytes | Pasted]:
        """Return what is complete because nothing has come for a while."""
        waited_s = now - self._fed_at
        if waited_s >= (_LOST_S if self._is_marked else _PAUSE_S) and (self._is_marked or self._is_burst):
            self._keep(self._tail)
            return [self._ended()]
        if self._begun and waited_s >= _PAUSE_S:
            begun, self._begun = self._begun, b""
            return [begun]
        return []

    def _marked(self, given: bytes, found: list[bytes | Pasted]) -> bytes:
        """Take the bytes of a marked paste; returns what comes after its end."""
        given = self._tail + given
        text, end, rest = given.partition(_END)
        if end:
            self._keep(text)
            found.append(self._ended())
            return rest
        self._keep(given[:-_TAIL])
        self._tail = given[-_TAIL:]
        return b""

    def _unmarked(self, given: bytes, found: list[bytes | Pasted]) -> bytes:
        """Take bytes up to a marked paste; returns what comes after the mark."""
        typed, begin, rest = given.partition(_BEGIN)
        if not begin and (begun := _BEGUN.search(typed)) is not None:
            typed, self._begun = typed[: begun.start()], typed[begun.start() :]
        for run in re.findall(rb"[^\x1b]+|\x1b[^\x1b]*", typed):
            self._take(run, found)
        if begin:
            self._end_burst(found)
            self._is_marked = True
        return rest

    def _take(self, run: bytes, found: list[bytes | Pasted]) -> None:
        """Take keys, or text that was pasted without marks. An escape sequence ends such text."""
        if run.startswith(b"\x1b"):
            self._end_burst(found)
            found.append(run)
        elif self._is_burst or (len(run) >= _BURST_BYTES and len(set(run)) >= _LEAST_DIFFERENT):
            self._is_burst = True
            self._keep(run)
        else:
            found.append(run)

    def _end_burst(self, found: list[bytes | Pasted]) -> None:
        if self._is_burst:
            found.append(self._ended())

    def _keep(self, text: bytes) -> None:
        self._kept += text[: max(0, _MOST_BYTES - len(self._kept))]

    def _ended(self) -> Pasted:
        text = self._kept.decode("utf-8", "ignore").replace("\0", "")
        self._kept, self._tail = bytearray(), b""
        self._is_marked = self._is_burst = False
        return Pasted(text.replace("\r\n", "\n").replace("\r", "\n"))
