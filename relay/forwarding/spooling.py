"""Decides which receipts go to the spool in place of Postgres, and puts them there (DESIGN, 1.3)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from relay.domain.delivery import State
from relay.errors import SpoolError, StoreUnavailable
from relay.store.deliveries import Duplicate, Spooled
from relay.store.spool_file import Known
from relay.store.spooled import SpooledReceipt

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.errors import RelayError
    from relay.store.deliveries import Incoming
    from relay.store.spool import Spool
    from relay.store.spool_file import Appended
    from relay.telemetry.forwarding_log import ForwardingLog
    from relay.telemetry.metrics import Counters


class Spooling:
    """Takes receipts that Postgres did not take.

    After one of them the next are spooled at once, until Postgres commits again (`committed`). `on_begin` is called
    when that begins.
    """

    def __init__(self, spool: Spool, forwarding_log: ForwardingLog, counters: Counters) -> None:
        self._spool = spool
        self._forwarding_log = forwarding_log
        self._counters = counters
        self.at_once = False
        self.on_begin: Callable[[], None] = lambda: None

    @property
    def is_on(self) -> bool:
        """False if there is no spool."""
        return self._spool.is_on

    def committed(self) -> None:
        """Postgres has committed: receipts go there again."""
        self.at_once = False

    @property
    def concerns(self) -> bool:
        """False if every receipt goes to Postgres: the usual state, which costs one read from memory to find out."""
        return self.at_once or self._spool.may_hold()

    async def take_if_due(self, incoming: Incoming, began: float) -> Spooled | Duplicate | None:
        """Spool a receipt at once: while Postgres commits nothing, or behind an earlier one that is in the spool.

        `began` is when it was received (`time.monotonic()`). None if it is for Postgres to store, also because the
        spool does not take it.
        """
        item = _item(incoming, began)
        try:
            if self.at_once:
                return self._taken(incoming, await self._spool.append(item))
            result = await self._spool.append_if_held(item)
        except SpoolError:
            return None
        return None if result is None else self._taken(incoming, result)

    async def take(
        self, incoming: Incoming, began: float, error: RelayError, *, alone: bool = False
    ) -> Spooled | Duplicate:
        """Spool a receipt that Postgres did not store because of `error`. The next ones too, unless it is the only one.

        Raises:
            StoreUnavailable: the spool does not take it either.
        """
        try:
            result = await self._spool.append(_item(incoming, began))
        except SpoolError as refusal:
            message = f"{error}. {refusal}" if self._spool.is_on else str(error)
            raise StoreUnavailable(message) from error
        if not alone and not self.at_once:
            self.at_once = True
            self._forwarding_log.spooling(str(error))
            self.on_begin()
        return self._taken(incoming, result)

    def _taken(self, incoming: Incoming, result: Appended | Known) -> Spooled | Duplicate:
        if isinstance(result, Known):
            return Duplicate(result.delivery_id, State.RECEIVED)
        self._counters.spooled += 1
        self._forwarding_log.spooled(incoming.receipt.delivery_id)
        return Spooled(result.delivery_id)


def _item(incoming: Incoming, began: float) -> SpooledReceipt:
    received_at = datetime.now(UTC) - timedelta(seconds=time.monotonic() - began)
    return SpooledReceipt(incoming.claim, incoming.receipt, received_at, incoming.order_key)
