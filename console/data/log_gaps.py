"""Ids of log lines that were skipped and may still come. Pure.

Two relays take ids from one sequence and commit in any order: a line may appear after lines with higher ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEPT_S = 10.0
_MOST = 2_000


@dataclass(frozen=True, slots=True)
class Gaps:
    """Ids that were skipped: another relay has not committed those lines yet, or there are no such lines.

    They are asked for again for 10 seconds, at most 2,000 of them. `since` has each id with the time it was first
    missed, in seconds.
    """

    since: tuple[tuple[int, float], ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids to ask for, ascending."""
        return tuple(line_id for line_id, _ in self.since)

    def after_reading(self, read: Sequence[int], *, after: int | None, now: float) -> Gaps:
        """The gaps once lines with the ids `read` (ascending) have come, where `after` was the last id before."""
        arrived = set(read)
        kept = {i: since for i, since in self.since if i not in arrived and now - since <= _KEPT_S}
        ends = list(read) if after is None else [after, *(line_id for line_id in read if line_id > after)]
        for low, high in pairwise(ends):
            kept.update(dict.fromkeys(range(max(low + 1, high - _MOST), high), now))
        return Gaps(tuple(sorted(kept.items())[-_MOST:]))
