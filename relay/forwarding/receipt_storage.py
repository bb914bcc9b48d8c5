"""Makes receipts durable: in Postgres, or in the spool while that does not commit (DESIGN, 1.3)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from relay.errors import EarlierFirst, StatementRefused, StoreUnavailable
from relay.forwarding.store_faults import StoreFaults
from relay.store.deliveries import Incoming
from relay.store.failures import NOT_IN_TIME, described
from relay.store.receipts import waits_for_a_row

if TYPE_CHECKING:
    from relay.domain.delivery import Receipt
    from relay.forwarding.spooling import Spooling
    from relay.store.deliveries import Duplicate, Spooled, Stored
    from relay.store.receipts import ReceiptStore
    from relay.telemetry.forwarding_log import ForwardingLog

STORE_PATIENCE_S = 3.5
"""How long a webhook waits for Postgres. Chatwoot itself waits 5 s."""

_RETRY_S = 0.1
_LAST_TRY_S = 1.0
"""Without a spool, a webhook waits no longer for an earlier one when it has only so much time left."""

_NOT_READY = "The relay is not ready to store webhooks"


class ReceiptStorage:
    """Stores receipts. With `ordered`, deliveries of one conversation keep their order."""

    def __init__(
        self, receipts: ReceiptStore, spooling: Spooling, forwarding_log: ForwardingLog, *, ordered: bool = True
    ) -> None:
        self._receipts = receipts
        self._spooling = spooling
        self._forwarding_log = forwarding_log
        self._ordered = ordered
        self._opened = asyncio.Event()
        self._patient: dict[asyncio.Timeout, Incoming] = {}
        spooling.on_begin = self._wait_no_longer
        self.faults = StoreFaults()

    def open(self) -> None:
        """Begin to store in Postgres: it is ready and the lease held. What came before has waited for it."""
        self._opened.set()

    @property
    def is_open(self) -> bool:
        """True once Postgres is ready."""
        return self._opened.is_set()

    async def store(self, receipt: Receipt, *, wanted: bool) -> Stored:
        """Make a receipt durable, to be forwarded at once if it is `wanted` and Postgres stores it.

        The claim stays the same: if a commit went through whose end was not seen, the next one finds its own.

        Raises:
            StoreUnavailable: neither Postgres nor the spool took it.
        """
        order_key = receipt.order_key if self._ordered else None
        incoming = Incoming(uuid4(), receipt, order_key, wanted or receipt.test)
        with self._receipts.order.place(incoming):
            return await self._store(incoming, time.monotonic())

    async def _store(self, incoming: Incoming, began: float) -> Stored:
        receipt = incoming.receipt
        try:
            return await self._commit(incoming, began)
        except psycopg.Error as error:
            self._forwarding_log.not_stored(receipt.delivery_id, described(error))
            one_only = not isinstance(error, psycopg.ProgrammingError)  # a missing right or table concerns all
            reason = StoreUnavailable(f"Postgres refuses this webhook: {type(error).__name__}")
            return await self._spool(incoming, began, reason, why=described(error), one_only=one_only)
        except StoreUnavailable as error:
            return await self._spool(incoming, began, error, why=str(error), one_only=waits_for_a_row(error))

    async def _spool(
        self, incoming: Incoming, began: float, error: StoreUnavailable, *, why: str, one_only: bool
    ) -> Spooled | Duplicate:
        """Spool a receipt that Postgres did not store. With `one_only` that says nothing about other receipts.

        Raises:
            StoreUnavailable: the spool does not take it either.
        """
        delivery_id = incoming.receipt.delivery_id
        self._receipts.order.failed(incoming)
        try:
            taken = await self._spooling.take(incoming, began, error, alone=one_only)
        except StoreUnavailable:
            self.faults.failed(delivery_id, why, one_only=one_only)
            raise
        self.faults.failed(delivery_id, why, one_only=one_only, is_spooled=True)
        return taken

    async def _commit(self, incoming: Incoming, began: float) -> Stored:
        """Commit to Postgres, trying again for as long as the sender can wait; a relay that starts may yet be ready.

        Raises:
            StoreUnavailable: Postgres did not take it in time.
        """
        refusal: StatementRefused | None = None
        last = StoreUnavailable(NOT_IN_TIME if self.is_open else _NOT_READY)
        try:
            # Without a spool a commit that is under way is waited for: nothing else can take the receipt.
            async with asyncio.timeout(STORE_PATIENCE_S if self._spooling.is_on else None) as patience:
                self._patient[patience] = incoming
                try:
                    while True:
                        await self._until_its_turn(incoming, began)
                        if self._spooling.concerns:
                            spooled = await self._spooling.take_if_due(incoming, began)
                            if spooled is not None:
                                return spooled
                        try:
                            return await self._submit(incoming, by=began + STORE_PATIENCE_S)
                        except EarlierFirst:
                            continue
                        except StoreUnavailable as error:
                            if isinstance(error, StatementRefused) and refusal is None:
                                self._forwarding_log.not_stored(incoming.receipt.delivery_id, str(error))
                            refusal = error if isinstance(error, StatementRefused) else refusal
                            last = refusal or error
                        if time.monotonic() + _RETRY_S > began + STORE_PATIENCE_S:
                            raise last
                        await asyncio.sleep(_RETRY_S)
                finally:
                    del self._patient[patience]
        except TimeoutError:
            raise last from None

    async def _until_its_turn(self, incoming: Incoming, began: float) -> None:
        """Wait while an earlier receipt of the conversation is not stored.

        With a spool that ends in time: the earlier one is spooled, or this one's own time is over. The spool orders
        what is in it by the time of arrival. Without a spool, this one would be refused once its time is over: shortly
        before that it is stored out of its order.
        """
        order = self._receipts.order
        if self._spooling.at_once or not order.must_wait(incoming):
            return
        if self._spooling.is_on:
            await order.turn(incoming)
            return
        try:
            async with asyncio.timeout(began + STORE_PATIENCE_S - _LAST_TRY_S - time.monotonic()):
                await order.turn(incoming)
        except TimeoutError:
            order.leave(incoming)

    async def _submit(self, incoming: Incoming, *, by: float) -> Stored:
        if not self._opened.is_set():
            await self._until_open(by)
        stored = await self._receipts.submit(incoming, by=by)
        self.faults.stored()
        self._spooling.committed()
        return stored

    async def _until_open(self, by: float) -> None:
        try:
            async with asyncio.timeout(by - time.monotonic()):
                await self._opened.wait()
        except TimeoutError:
            raise StoreUnavailable(_NOT_READY) from None

    def _wait_no_longer(self) -> None:
        """Have the receipts that wait for Postgres spooled now, close behind the first one."""
        now = asyncio.get_running_loop().time()
        for patience, incoming in self._patient.items():
            if not patience.expired():
                self._receipts.order.failed(incoming)
                patience.reschedule(now)
