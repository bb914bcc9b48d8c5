"""The lease of one relay process on the deliveries that it has claimed."""

from __future__ import annotations

import time

from relay.errors import LeaseLost


class Lease:
    """Until when this relay owns its deliveries, by its own monotonic clock. `seconds` is the length of the lease.

    The heartbeat renews it. It ends a little earlier than in the database, because the time is taken before the
    heartbeat is sent. A process that was stopped and continued later finds its lease expired.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since = self._until = float("-inf")

    @property
    def is_held(self) -> bool:
        """True until it expires."""
        return time.monotonic() <= self._until

    @property
    def is_settled(self) -> bool:
        """True once it has been held for its own length without a break.

        After a Postgres outage every lease has expired. The first relay to reconnect waits one lease period before
        it claims anything, so that live peers can renew.
        """
        return self.is_held and time.monotonic() - self._since >= self.seconds

    def renewed(self, asked_at: float) -> None:
        """Record a renewal that was asked for at `asked_at` (`time.monotonic()`)."""
        if asked_at > self._until:
            self._since = asked_at
        self._until = asked_at + self.seconds

    def check(self) -> None:
        """Raises LeaseLost once it has expired."""
        if not self.is_held:
            raise LeaseLost("The lease expired; another relay may have claimed the delivery")
