"""The way of one delivery: store, forward, finish. Also its limits, its lease, and the end of them all.

Whatever is accepted here is either refused before it is stored, or ends `delivered` or `dead`: a delivery is
carried by a task of its own, which no client's hang-up cancels, and whose only other ends are a lost lease and
a drain, both of which leave the delivery to another relay.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from relay.errors import LeaseLost, Overloaded, RelayError, StatementRefused, StoreUnavailable
from relay.forwarding.finisher import facts_for
from relay.forwarding.store_faults import StoreFaults
from relay.store.database import described
from relay.store.deliveries import Claimed, Duplicate, Finish, Ignored, Incoming
from relay.store.receipts import waits_for_a_row
from relay.telemetry.tracing import now

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from relay.domain.delivery import Delivery, Outcome, Receipt
    from relay.forwarding.finisher import Finisher
    from relay.forwarding.forwarder import Forwarder
    from relay.forwarding.lease import Lease
    from relay.store.receipts import ReceiptStore
    from relay.telemetry.forwarding_log import ForwardingLog
    from relay.telemetry.metrics import Counters

STORE_PATIENCE_S = 3.5
"""How long a webhook waits for Postgres before its sender is answered 503. Chatwoot itself waits 5 s."""

_RETRY_STORE_S = 0.1
_BODIES_IN_FLIGHT = 256 * 1024 * 1024


@dataclass(slots=True)
class Ticket:
    """What a sender can wait for. `stored` comes first: a claim, a duplicate, one ignored, or `StoreUnavailable`.

    `finished` comes last: the outcome, or None if there is none to wait for, because the webhook was not
    stored, was a duplicate, or was left to another relay.
    """

    stored: asyncio.Future[Claimed | Duplicate | Ignored]
    finished: asyncio.Future[Outcome | None]


class Pipeline:
    """Carries deliveries. `endpoint` is the agent's URL without credentials, for the facts."""

    def __init__(
        self,
        *,
        forwarder: Forwarder,
        receipts: ReceiptStore,
        finisher: Finisher,
        lease: Lease,
        forwarding_log: ForwardingLog,
        counters: Counters,
        endpoint: str,
        max_in_flight: int,
    ) -> None:
        self._forwarder = forwarder
        self._receipts = receipts
        self._finisher = finisher
        self._lease = lease
        self._forwarding_log = forwarding_log
        self._counters = counters
        self._tracing = forwarder.tracing
        self._endpoint = endpoint
        self._max_in_flight = max_in_flight
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bytes = 0
        self._held: set[int] = set()
        self._opened = asyncio.Event()
        self._draining = False
        self.store_faults = StoreFaults()

    def open(self) -> None:
        """Begin to store: the store is ready and the lease held. What came before has waited for it."""
        self._opened.set()

    @property
    def in_flight(self) -> int:
        """Deliveries being carried now."""
        return len(self._tasks)

    @property
    def capacity(self) -> int:
        """How many more may be carried."""
        if self._draining or not self._opened.is_set():
            return 0
        return max(0, self._max_in_flight - len(self._tasks))

    @property
    def held(self) -> set[int]:
        """The rows of the deliveries being carried, once stored."""
        return set(self._held)

    def accept(self, receipt: Receipt) -> Ticket:
        """Start a webhook on its way.

        Raises:
            Overloaded: as much is in flight as may be.
            StoreUnavailable: the relay is stopping.
        """
        if self._draining:
            raise StoreUnavailable("The relay is stopping")
        if len(self._tasks) >= self._max_in_flight or self._bytes + receipt.size > _BODIES_IN_FLIGHT:
            raise Overloaded("Too many webhooks are in flight")
        loop = asyncio.get_running_loop()
        ticket = Ticket(loop.create_future(), loop.create_future())
        self._start(self._receive(receipt, ticket, time.monotonic()), receipt.size)
        return ticket

    def resume(self, claimed: Claimed) -> asyncio.Task[Outcome | None]:
        """Carry a delivery that this relay has claimed in the store: one abandoned, or one to replay."""
        return self._start(self._carry(claimed), claimed.delivery.size)

    async def drain(self, patience_s: float) -> None:
        """Accept no more, wait up to `patience_s` for what is in flight, and release the rest."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_s)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, Any], weight: int) -> asyncio.Task[Any]:
        self._bytes += weight
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def ended(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            self._bytes -= weight
            if not task.cancelled() and task.exception() is not None:
                self._forwarding_log.failed(task.exception())

        task.add_done_callback(ended)
        return task

    async def _receive(self, receipt: Receipt, ticket: Ticket, came_at: float) -> None:
        began = now()
        try:
            stored = await self._store(receipt)
            self._tracing.step("store", receipt.delivery_id, receipt.headers, began)
        except BaseException as error:
            self._tracing.step("store", receipt.delivery_id, receipt.headers, began, error=type(error).__name__)
            reason = error if isinstance(error, RelayError) else StoreUnavailable("The relay is stopping")
            ticket.stored.set_exception(reason)
            ticket.stored.exception()  # a sender that hung up does not ask for it
            ticket.finished.set_result(None)
            if isinstance(error, RelayError):
                return
            raise
        ticket.stored.set_result(stored)
        if isinstance(stored, Duplicate):
            self._counters.duplicates += 1
            self._forwarding_log.duplicate(receipt.delivery_id, stored)
            ticket.finished.set_result(None)
            return
        if isinstance(stored, Ignored):
            self._counters.ignored += 1
            self._note_own_id(receipt, stored.delivery_id)
            self._forwarding_log.ignored(stored.delivery_id, receipt.event)
            ticket.finished.set_result(None)
            return
        self._note_own_id(receipt, stored.delivery.delivery_id)
        outcome = None
        try:
            outcome = await self._carry(stored, came_at)
        finally:
            ticket.finished.set_result(outcome)

    def _note_own_id(self, receipt: Receipt, delivery_id: str) -> None:
        """Log that the store gave a webhook another delivery id than its sender."""
        if delivery_id != receipt.delivery_id:
            self._forwarding_log.kept_apart(receipt.delivery_id, delivery_id)

    async def _store(self, receipt: Receipt) -> Claimed | Duplicate | Ignored:
        """Commit the receipt, trying again for as long as its sender can wait; a relay that starts may yet be ready.

        The claim stays the same: if a commit went through whose end was not seen, the next one finds its own.

        Raises:
            StoreUnavailable: Postgres did not take it in time.
        """
        incoming = Incoming(uuid4(), receipt)
        deadline = time.monotonic() + STORE_PATIENCE_S
        refusal: StatementRefused | None = None
        if not self._opened.is_set():
            await self._until_open()
        while True:
            try:
                stored = await self._receipts.submit(incoming, by=deadline)
            except StoreUnavailable as error:
                if isinstance(error, StatementRefused):
                    if refusal is None:
                        self._forwarding_log.not_stored(receipt.delivery_id, str(error))
                    refusal = error
                if time.monotonic() + _RETRY_STORE_S > deadline:
                    reason = refusal or error
                    self.store_faults.failed(receipt.delivery_id, str(reason), one_only=waits_for_a_row(reason))
                    raise reason from reason.__cause__
                await asyncio.sleep(_RETRY_STORE_S)
            except psycopg.Error as error:
                self._forwarding_log.not_stored(receipt.delivery_id, described(error))
                one_only = not isinstance(error, psycopg.ProgrammingError)  # a missing right or table concerns all
                self.store_faults.failed(receipt.delivery_id, described(error), one_only=one_only)
                raise StoreUnavailable(f"Postgres refuses this webhook: {type(error).__name__}") from error
            else:
                self.store_faults.stored()
                return stored

    async def _until_open(self) -> None:
        try:
            async with asyncio.timeout(STORE_PATIENCE_S):
                await self._opened.wait()
        except TimeoutError:
            raise StoreUnavailable("The relay is not ready to store webhooks") from None

    async def _carry(self, claimed: Claimed, came_at: float | None = None) -> Outcome | None:
        """Forward a claimed delivery and record the outcome; None if it is another relay's by now.

        `came_at` is when its webhook came in (`time.monotonic()`), None for one that another relay received.
        """
        delivery = claimed.delivery
        self._held.add(delivery.id)
        try:
            outcome = await self._forwarder.run(delivery, self._lease.check)
            began = now()
            facts = await facts_for(delivery, outcome, self._endpoint)
            recorded = await self._finisher.record(Finish(claimed.claim, delivery, outcome, facts))
            self._tracing.step("finish", delivery.delivery_id, delivery.headers, began)
        except LeaseLost:
            recorded = False
        finally:
            self._held.discard(delivery.id)
        if not recorded:
            self._forwarding_log.given_up(delivery)
            return None
        self._counters.finished(outcome, since_receipt_s=None if came_at is None else time.monotonic() - came_at)
        self._tell(delivery, outcome)
        return outcome

    def _tell(self, delivery: Delivery, outcome: Outcome) -> None:
        if outcome.success:
            self._forwarding_log.delivered(delivery, outcome)
        else:
            self._forwarding_log.dead_lettered(delivery, outcome)
