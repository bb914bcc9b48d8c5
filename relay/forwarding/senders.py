"""The senders that wait for an answer to what they sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.domain.delivery import WaitReason

if TYPE_CHECKING:
    import asyncio

    from relay.domain.delivery import Outcome
    from relay.store.deliveries import Stored


@dataclass(slots=True)
class Ticket:
    """What a sender can wait for. `stored` comes first, or raises `StoreUnavailable`.

    `finished` comes last: the outcome; why the delivery waits, if that is no matter of seconds; or None if there is
    nothing to wait for, because the webhook was not stored, was a duplicate, or was left to another relay.
    """

    stored: asyncio.Future[Stored]
    finished: asyncio.Future[Outcome | WaitReason | None]
    row_id: int | None = None


class Senders:
    """The tickets of the deliveries that are stored and have no result yet, by the row of the delivery."""

    def __init__(self) -> None:
        self._tickets: dict[int, Ticket] = {}

    @property
    def rows(self) -> list[int]:
        """The rows of the deliveries that senders wait for."""
        return list(self._tickets)

    def expect(self, ticket: Ticket, row: int) -> None:
        """Notify the sender of `ticket` of what becomes of the delivery in `row`, until it is forgotten."""
        ticket.row_id = row
        self._tickets[row] = ticket

    def forget(self, ticket: Ticket) -> None:
        """The sender of `ticket` has been answered."""
        if ticket.row_id is not None and self._tickets.get(ticket.row_id) is ticket:
            del self._tickets[ticket.row_id]

    def answer(self, row: int, result: Outcome | WaitReason | None) -> None:
        """A retry is waited for until the sender's deadline; any other result is answered at once."""
        ticket = None if result is WaitReason.RETRY else self._tickets.pop(row, None)
        if ticket is not None and not ticket.finished.done():
            ticket.finished.set_result(result)
