"""Counts in memory that the workers of one relay share, so that any of them answers for all.

Each worker has a part of its own and is the only one that writes there; all of them read every part. The memory
outlives a worker: the one that takes its place continues its counts, so that no count ever falls. Without siblings the
memory is the process's own.

A part is a sequence of entries: the bytes of a name and their number, filled up to eight bytes, then a number of eight
bytes. The part begins with how many of its bytes are entries, which is written last, so that no reader meets half an
entry.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PART_BYTES = 128 * 1024
"""The size of one worker's part: room for some two thousand counts. Their names are few and come from the relay."""

_HEAD = struct.Struct("<Q")
_LENGTH = struct.Struct("<Q")
_VALUE = struct.Struct("<d")


class Counts:
    """One worker's counts, by name. Writing one costs less than a microsecond."""

    def __init__(self, part: memoryview | None = None) -> None:
        self._part = memoryview(bytearray(PART_BYTES)) if part is None else part
        self._at = {name: at for name, at, _ in _entries(self._part)}
        self._used: int = _HEAD.unpack_from(self._part)[0] or _HEAD.size

    def __getitem__(self, name: str) -> float:
        at = self._at.get(name)
        return 0.0 if at is None else float(_VALUE.unpack_from(self._part, at)[0])

    def add(self, name: str, amount: float = 1) -> None:
        """Add `amount` to the count `name`. A name that finds no room is not counted."""
        at = self._at.get(name)
        if at is None:
            at = self._make(name)
        if at:
            _VALUE.pack_into(self._part, at, _VALUE.unpack_from(self._part, at)[0] + amount)

    def _make(self, name: str) -> int:
        """Add an entry; returns where its number is, 0 if there is no room."""
        raw = name.encode()
        at = self._used + _LENGTH.size + _padded(len(raw))
        if at + _VALUE.size > len(self._part):
            return 0
        _LENGTH.pack_into(self._part, self._used, len(raw))
        start = self._used + _LENGTH.size
        self._part[start : start + len(raw)] = raw
        _VALUE.pack_into(self._part, at, 0.0)
        self._used = at + _VALUE.size
        _HEAD.pack_into(self._part, 0, self._used)
        self._at[name] = at
        return at


def read(part: memoryview) -> dict[str, float]:
    """The counts in one worker's part, as they are now."""
    return {name: value for name, _, value in _entries(part)}


def parts(memory: memoryview) -> list[memoryview]:
    """The workers' parts of `memory`, by slot."""
    return [memory[start : start + PART_BYTES] for start in range(0, len(memory), PART_BYTES)]


def _entries(part: memoryview) -> Iterator[tuple[str, int, float]]:
    """Name, place and value of each entry."""
    (used,) = _HEAD.unpack_from(part)
    at = _HEAD.size
    while at < used:
        (length,) = _LENGTH.unpack_from(part, at)
        start = at + _LENGTH.size
        place = start + _padded(length)
        yield bytes(part[start : start + length]).decode(), place, float(_VALUE.unpack_from(part, place)[0])
        at = place + _VALUE.size


def _padded(length: int) -> int:
    return -(-length // 8) * 8
