"""Carries deliveries: store, forward, finish. What cannot be forwarded now waits in Postgres, not here.

A stored delivery is carried by a task of its own, which no client's hang-up cancels. It ends with an outcome, with a
wait that is recorded in Postgres, or with a lost lease or a drain, which leave the delivery to another relay.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from relay.domain.delivery import Deferred, WaitReason
from relay.errors import LeaseLost, RelayError, StoreUnavailable
from relay.forwarding.concurrency import REPLAY_SHARE
from relay.forwarding.drain_limit import DrainLimit
from relay.forwarding.finisher import facts_for
from relay.forwarding.run_ends import RunEnds
from relay.forwarding.senders import Senders, Ticket
from relay.store.deliveries import Claimed, Duplicate, Finish, Ignored, Waiting
from relay.telemetry.tracing import now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

    from relay.domain.delivery import Delivery, Outcome, Receipt
    from relay.forwarding.concurrency import Slots
    from relay.forwarding.finisher import Finisher
    from relay.forwarding.forwarder import Forwarder
    from relay.forwarding.gate import Gate
    from relay.forwarding.lease import Lease
    from relay.forwarding.receipt_storage import ReceiptStorage
    from relay.forwarding.store_faults import StoreFaults
    from relay.store.deliveries import Stored
    from relay.telemetry.forwarding_log import ForwardingLog
    from relay.telemetry.metrics import Counters

BODIES_IN_FLIGHT = 256 * 1024 * 1024
"""Bytes of bodies that are stored or forwarded at the same time. What is above it waits: in Postgres, or to be read."""


class Pipeline:
    """Carries deliveries. `endpoint` is the agent's URL without credentials, for the facts.

    With `ordered`, deliveries of one conversation are forwarded one at a time.
    """

    def __init__(  # noqa: PLR0913 - its parts
        self,
        *,
        forwarder: Forwarder,
        storage: ReceiptStorage,
        finisher: Finisher,
        lease: Lease,
        gate: Gate,
        slots: Slots,
        forwarding_log: ForwardingLog,
        counters: Counters,
        endpoint: str,
    ) -> None:
        self._forwarder = forwarder
        self._storage = storage
        self._finisher = finisher
        self._lease = lease
        self._gate = gate
        self.slots = slots
        self._forwarding_log = forwarding_log
        self._counters = counters
        self._ends = RunEnds(counters, forwarding_log)
        self._tracing = forwarder.tracing
        self._endpoint = endpoint
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bytes = 0
        self._held: set[int] = set()
        self.senders = Senders()
        self._draining = False
        self._without_slot = 0  # deliveries that were claimed and have no slot yet
        self._replays = 0  # deliveries of replays that were claimed and have not ended
        self._work = asyncio.Event()
        self.drain_limit = DrainLimit()
        self.is_behind = False  # more waits than this relay can claim: fresh webhooks then wait too, in their order
        self._live_starts = 0  # since the last start of a replay
        self.wants_replay: Callable[[], bool] = lambda: False
        """True while a replay would send if it had a slot: live traffic leaves it a few."""
        self.before_death: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)
        """Called before a run is recorded that has failed for good in a retryable way: the breaker may open first."""

    def open(self) -> None:
        """Begin to store: the store is ready and the lease held. What came before has waited for it."""
        self._storage.open()

    @property
    def in_flight(self) -> int:
        """Deliveries being stored or forwarded now by this relay, those that wait left out."""
        return self.slots.used

    @property
    def needed_slots(self) -> int:
        """The slots in use, and those that claimed deliveries wait for."""
        return self.slots.used + self._without_slot

    @property
    def is_accepting(self) -> bool:
        """True once webhooks can be stored in Postgres, until the relay stops."""
        return self._storage.is_open and not self._draining

    @property
    def store_faults(self) -> StoreFaults:
        """What was stored in Postgres of late, and what was not."""
        return self._storage.faults

    @property
    def is_stopping(self) -> bool:
        """True once no more webhooks are taken."""
        return self._draining

    @property
    def capacity(self) -> int:
        """How many more deliveries may be forwarded now."""
        return max(0, self.slots.free - self._without_slot) if self.is_accepting and self.room_bytes else 0

    @property
    def room_bytes(self) -> int:
        """How many bytes of bodies may still be claimed."""
        return max(0, BODIES_IN_FLIGHT - self._bytes)

    @property
    def gate(self) -> Gate:
        """Whether attempts may start."""
        return self._gate

    @property
    def held(self) -> set[int]:
        """The rows of the deliveries being carried, once stored."""
        return set(self._held)

    @property
    def awaited(self) -> list[int]:
        """The rows whose senders still wait although this relay does not carry them: another one may."""
        return [row for row in self.senders.rows if row not in self._held]

    async def work(self, patience_s: float) -> None:
        """Wait until something may have become claimable, `patience_s` seconds at most."""
        if not self._work.is_set():
            try:
                async with asyncio.timeout(patience_s):
                    await self._work.wait()
            except TimeoutError:
                return
        self._work.clear()

    def wake(self) -> None:
        """Let `work` return."""
        self._work.set()

    def accept(self, receipt: Receipt) -> Ticket:
        """Start a webhook on its way.

        Raises:
            StoreUnavailable: the relay is stopping.
        """
        if self._draining:
            raise StoreUnavailable("The relay is stopping")
        loop = asyncio.get_running_loop()
        ticket = Ticket(loop.create_future(), loop.create_future())
        wanted = self._takes_slot(receipt)
        self._start(self._receive(receipt, ticket, wanted=wanted, came_at=time.monotonic()), receipt.size)
        return ticket

    def resume(
        self, claimed: Claimed, *, is_probe: bool = False, drains: bool = False
    ) -> asyncio.Task[Outcome | WaitReason | None]:
        """Carry a delivery that this relay has claimed in the store; one that `drains` is of the backlog.

        A webhook may have taken the slot that was free when the claim began: the delivery then has the next one. A test
        webhook waits for none.
        """
        self._without_slot += 1
        self._live_starts = self._live_starts + 1 if claimed.delivery.plan_id is None else 0
        carrying = self._carry_in_slot(claimed, is_probe=is_probe, drains=drains and claimed.delivery.plan_id is None)
        return self._start(carrying, claimed.delivery.size)

    def adopt(self, stored: Stored) -> None:
        """Carry what was stored for no sender that still waits: from the spool, or by a commit that ended late."""
        if isinstance(stored, Claimed) and not self._draining:
            self.resume(stored)
        self._work.set()

    async def drain(self, patience_s: float) -> None:
        """Accept no more, wait up to `patience_s` for what is in flight, and release the rest."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_s)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _takes_slot(self, receipt: Receipt) -> bool:
        """Take a slot for a webhook that is to be forwarded at once. False if it must wait for its turn."""
        if receipt.ignored:
            return False
        if not receipt.test:
            has_room = self.slots.free > self._reserved and self._bytes + receipt.size <= BODIES_IN_FLIGHT
            if self.is_behind or not has_room or not self._gate.take():
                return False
            if self._gate.owed:
                self._work.set()  # to be charged
            self._live_starts += 1
        self.slots.take()
        return True

    @property
    def _reserved(self) -> int:
        """The slots that live traffic leaves free: the replays' share, as far as they do not have it yet.

        Of a single slot they get one start in `REPLAY_SHARE`.
        """
        if not self.wants_replay():
            return 0
        share = min(self.slots.reserve, self.slots.limit - 1)
        if share < 1:
            return int(self._live_starts >= REPLAY_SHARE - 1)
        return max(0, share - self._replays)

    def backlog_room(self) -> int:
        """How many more deliveries of the backlog may be forwarded now."""
        return min(max(0, self.capacity - self._reserved), self.drain_limit.room())

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

    async def _receive(self, receipt: Receipt, ticket: Ticket, *, wanted: bool, came_at: float) -> None:
        began, has_turn = now(), wanted and not receipt.test
        try:
            try:
                stored = await self._storage.store(receipt, wanted=wanted)
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
            if isinstance(stored, Claimed | Waiting):
                self.drain_limit.committed(time.monotonic() - came_at)
            if isinstance(stored, Claimed):
                has_turn = False
                await self._forward(receipt, stored, ticket, came_at)
                return
        finally:
            if has_turn:
                self._gate.give_back()
            if wanted:
                self._free_slot()
        self._settle(receipt, stored, ticket)

    async def _forward(self, receipt: Receipt, claimed: Claimed, ticket: Ticket, came_at: float) -> None:
        self.senders.expect(ticket, claimed.delivery.id)
        ticket.stored.set_result(claimed)
        self._note_own_id(receipt, claimed.delivery.delivery_id)
        await self._carry(claimed, came_at=came_at)

    def _settle(self, receipt: Receipt, stored: Stored, ticket: Ticket) -> None:
        """Record what became of a webhook that is not forwarded now."""
        if isinstance(stored, Waiting):
            self._note_own_id(receipt, stored.delivery_id)
            self._forwarding_log.waits(stored.delivery_id, stored.reason)
            if stored.reason is WaitReason.ORDER:
                self.senders.expect(ticket, stored.id)
            else:
                self.is_behind = self.is_behind or stored.reason is WaitReason.CAPACITY
                ticket.finished.set_result(stored.reason)
                self._work.set()
            ticket.stored.set_result(stored)
            return
        if isinstance(stored, Duplicate):
            self._counters.duplicates += 1
            self._forwarding_log.duplicate(receipt.delivery_id, stored)
        elif isinstance(stored, Ignored):
            self._counters.ignored += 1
            self._note_own_id(receipt, stored.delivery_id)
            self._forwarding_log.ignored(stored.delivery_id, receipt.event)
        ticket.stored.set_result(stored)
        ticket.finished.set_result(None)

    def _note_own_id(self, receipt: Receipt, delivery_id: str) -> None:
        """Log that the store gave a webhook another delivery id than its sender."""
        if delivery_id != receipt.delivery_id:
            self._forwarding_log.kept_apart(receipt.delivery_id, delivery_id)

    async def _carry_in_slot(self, claimed: Claimed, *, is_probe: bool, drains: bool) -> Outcome | WaitReason | None:
        self._held.add(claimed.delivery.id)
        replays = int(claimed.delivery.plan_id is not None)
        self._replays += replays
        self.drain_limit.in_progress += drains
        try:
            try:
                if claimed.delivery.test and not replays:
                    self.slots.take()
                else:
                    await self.slots.acquire()
            finally:
                self._without_slot -= 1
            try:
                return await self._carry(claimed, is_probe=is_probe)
            finally:
                self._free_slot()
        finally:
            self._replays -= replays
            self.drain_limit.in_progress -= drains
            self._held.discard(claimed.delivery.id)

    def _free_slot(self) -> None:
        self.slots.release()
        if self.is_behind:
            self._work.set()

    async def _carry(
        self, claimed: Claimed, *, is_probe: bool = False, came_at: float | None = None
    ) -> Outcome | WaitReason | None:
        """Forward a claimed delivery and record what came of it.

        `came_at` is when its webhook came in (`time.monotonic()`), None for one that was stored earlier. Returns the
        outcome, why the delivery waits, or None if another relay has it by now.
        """
        delivery = claimed.delivery
        self._held.add(delivery.id)
        result: Outcome | WaitReason | None = None
        try:
            result = await self._run(claimed, is_probe=is_probe, came_at=came_at)
        finally:
            self._held.discard(delivery.id)
            self.senders.answer(delivery.id, result)
        return result

    def _takes_next(self, delivery: Delivery) -> bool:
        """Whether the next delivery of the conversation may have the slot of this one, without a claim of its own.

        Not while others wait for a slot, which come first, or while rates or replays limit what starts.
        """
        limited = self.is_behind or self._gate.has_rates or self.slots.free < self._reserved
        return (
            delivery.conversation_id is not None
            and self._gate.is_open
            and self._lease.is_held
            and self.is_accepting
            and not limited
            and self.slots.used <= self.slots.limit
            and self.room_bytes > 0
        )

    async def _run(self, claimed: Claimed, *, is_probe: bool, came_at: float | None) -> Outcome | WaitReason | None:
        delivery = claimed.delivery
        try:
            run = await self._forwarder.run(delivery, self._lease.check, is_probe=is_probe)
        except LeaseLost:
            self._forwarding_log.given_up(delivery)
            return None
        began = now()
        facts = [] if isinstance(run, Deferred) else await facts_for(delivery, run, self._endpoint)
        if not isinstance(run, Deferred) and run.last.retryable and not delivery.test:
            await self.before_death()
        next_claim = uuid4() if self._takes_next(delivery) else None
        recording_at = time.monotonic()
        finished = await self._finisher.record(Finish(claimed.claim, delivery, run, facts, next_claim=next_claim))
        if came_at is not None:
            self.drain_limit.committed(time.monotonic() - recording_at)
        self._tracing.step("finish", delivery.delivery_id, delivery.headers, began)
        if finished.next is not None and not self._draining:  # else it is handed back
            self.resume(finished.next)
        if finished.promoted:
            self._work.set()
        if not finished.recorded:
            self._forwarding_log.given_up(delivery)
            return None
        trace_id = self._tracing.trace_id(delivery.delivery_id, delivery.headers)
        return self._ends.report(delivery, run, finished, came_at=came_at, trace_id=trace_id)
