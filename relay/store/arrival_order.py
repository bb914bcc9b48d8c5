"""The order of arrival in each conversation among the receipts that this process is storing. In memory, no I/O.

A commit can fail for one receipt and succeed for the next one. A receipt whose commit failed is tried again, and the
later ones of its conversation wait for that. Receipts of other conversations do not. Where nothing fails, a receipt
waits for nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from relay.store.deliveries import Incoming


class _Step(Enum):
    PENDING = auto()
    """Not submitted yet, or its last commit failed."""
    APART = auto()
    """Is committed beside the batches, which may be later than the next batch."""
    SUBMITTED = auto()
    """Is in a batch, or waits for the next one."""
    COMMITTED = auto()


_UNSUBMITTED = frozenset({_Step.PENDING, _Step.APART})


@dataclass(slots=True, eq=False)
class _Place:
    step: _Step = _Step.PENDING
    turn: asyncio.Future[None] | None = None


@dataclass(slots=True)
class _Line:
    """The places of one conversation in the order of arrival, and how many are not submitted."""

    places: dict[UUID, _Place] = field(default_factory=dict)
    unsubmitted: int = 0

    def has_unsubmitted_before(self, claim: UUID) -> bool:
        """True if a receipt that came before `claim` is not submitted, or is apart."""
        if self.unsubmitted == (self.places[claim].step in _UNSUBMITTED):
            return False  # the usual case
        for other, place in self.places.items():
            if other == claim:
                break
            if place.step in _UNSUBMITTED:
                return True
        return False

    def move(self, place: _Place, step: _Step) -> None:
        """Set the step of a place."""
        self.unsubmitted += (step in _UNSUBMITTED) - (place.step in _UNSUBMITTED)
        place.step = step

    def recall_after(self, claim: UUID) -> None:
        """Have every later receipt that is not committed submitted again, after `claim`."""
        is_later = False
        for other, place in self.places.items():
            if is_later and place.step is not _Step.COMMITTED:
                self.move(place, _Step.PENDING)
            is_later = is_later or other == claim

    def next_turn(self) -> None:
        """Wake the first receipt that waits, if nothing before it is unsubmitted."""
        if not self.unsubmitted:
            return
        first = next(place for place in self.places.values() if place.step in _UNSUBMITTED)
        if first.turn is not None and not first.turn.done():
            first.turn.set_result(None)


class ArrivalOrder:
    """Knows which receipts must wait for an earlier one of their conversation. For one event loop.

    A receipt takes part while it is inside `place`, if it is one that keeps an order.
    """

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    @contextmanager
    def place(self, item: Incoming) -> Iterator[None]:
        """Give `item` the last place of its conversation for the length of the block, which makes it durable."""
        if item.order_key is not None:
            line = self._lines.setdefault(item.order_key, _Line())
            line.places[item.claim] = _Place()
            line.unsubmitted += 1
        try:
            yield
        finally:
            self.leave(item)

    def leave(self, item: Incoming) -> None:
        """Take no further part in the order."""
        self._move(item, _Step.COMMITTED)
        line = self._lines.get(item.order_key or "")
        if line is not None and line.places.pop(item.claim, None) is not None and not line.places:
            del self._lines[item.order_key or ""]

    async def turn(self, item: Incoming) -> None:
        """Wait until every earlier receipt of the conversation is submitted or has left."""
        line = self._lines.get(item.order_key or "")
        place = None if line is None else line.places.get(item.claim)
        if line is None or place is None:
            return
        while item.claim in line.places and line.has_unsubmitted_before(item.claim):
            place.turn = asyncio.get_running_loop().create_future()
            await place.turn

    def is_behind(self, item: Incoming, *, beside: bool = False) -> bool:
        """True if `item`, which was submitted, must be submitted again, since an earlier one was not committed.

        With `beside`, for a commit after those that are apart already.
        """
        line = self._lines.get(item.order_key or "")
        if line is None or item.claim not in line.places:
            return False
        if line.places[item.claim].step is _Step.PENDING:
            return True
        return not beside and line.has_unsubmitted_before(item.claim)

    def must_wait(self, item: Incoming) -> bool:
        """True if `turn` would wait."""
        line = self._lines.get(item.order_key or "")
        return line is not None and item.claim in line.places and line.has_unsubmitted_before(item.claim)

    def submitted(self, item: Incoming) -> None:
        """`item` waits for the next batch."""
        self._move(item, _Step.SUBMITTED)

    def committed(self, item: Incoming) -> None:
        """`item` is committed."""
        self._move(item, _Step.COMMITTED)

    def apart(self, item: Incoming) -> None:
        """`item` is committed beside the batches from now on."""
        self._move(item, _Step.APART)

    def failed(self, item: Incoming) -> None:
        """`item` was not committed: it is tried again, or spooled, before the later ones of its conversation."""
        self._move(item, _Step.PENDING)

    def _move(self, item: Incoming, step: _Step) -> None:
        line = self._lines.get(item.order_key or "")
        place = None if line is None else line.places.get(item.claim)
        if line is None or place is None:
            return
        line.move(place, step)
        if step is _Step.PENDING:
            line.recall_after(item.claim)
        elif step is not _Step.APART:
            line.next_turn()
