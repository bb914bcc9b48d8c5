"""Claims what waits in Postgres when slots are free, and refreshes the gate, the shares and the circuit breaker."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from relay.domain.delivery import Outcome
from relay.errors import StoreUnavailable
from relay.forwarding.circuit_breaker import FIRST_PAUSE_S, MOST_PAUSE_S, AttemptWindow, verdict
from relay.forwarding.turns import turn
from relay.store import claims, deliveries, destinations, gate, instances, slots

if TYPE_CHECKING:
    from uuid import UUID

    from relay.domain.delivery import Attempt, Delivery, WaitReason
    from relay.forwarding.lease import Lease
    from relay.forwarding.pipeline import Pipeline
    from relay.settings import Settings
    from relay.store.database import Connection, Database
    from relay.store.deliveries import Claimed
    from relay.telemetry.forwarding_log import ForwardingLog

RELEASE_ORDER_S = 60.0
"""A conversation waits for a delivery in a retry wait for so long at most (DESIGN, 1.2)."""

_BATCH = 64
_REFRESH_S = 0.25
_PAUSE_S = 0.01
_HOUSEKEEPING_S = 1.0
_OPEN_PATIENCE_S = 1.0


class Backlog:
    """Each round reads the gate if that is due, claims as much as there is room for, and waits for more work."""

    name = "backlog"
    interval_s = 0.0

    def __init__(
        self,
        settings: Settings,
        database: Database,
        owner: UUID,
        *,
        pipeline: Pipeline,
        lease: Lease,
        forwarding_log: ForwardingLog,
    ) -> None:
        self._concurrency = settings.relay_agent_concurrency
        self._destination = settings.agent_endpoint_shown
        self._attempt_s = settings.agent_sdk_timeout_ms / 1000
        self._has_breaker = settings.relay_breaker == "on"
        self._database = database
        self._owner = owner
        self._pipeline = pipeline
        self._lease = lease
        self._forwarding_log = forwarding_log
        self._window = AttemptWindow(settings.chatwoot_webhook_max_delay_ms)
        self._refresh_at = self._housekeeping_at = self._turn_at = 0.0
        self._housekept_at = float("-inf")
        self._releases_at = 0.0
        self._more = False
        self._probes: set[asyncio.Task[Outcome | WaitReason | None]] = set()
        self._recordings: set[asyncio.Task[None]] = set()

    def attempted(self, delivery: Delivery, attempt: Attempt) -> None:
        """Count an attempt for the breaker; opens it soon if this relay's attempts are reason enough."""
        if attempt.retryable:
            self._pipeline.gate.attempt_failed()
        if self._has_breaker and not delivery.test and not self._pipeline.gate.breaker_is_open:
            self._window.add(attempt)
            if attempt.retryable and self._window.is_suspicious:
                self._refresh_at = 0.0
                self._pipeline.wake()

    async def open_if_due(self) -> None:
        """Open the breaker now if the attempts of all relays are reason enough: those that failed then wait."""
        if self._has_breaker and not self._pipeline.gate.breaker_is_open:
            with suppress(StoreUnavailable, psycopg.Error):  # what has failed is recorded once Postgres is back
                async with self._database.connection(_OPEN_PATIENCE_S) as connection:
                    await self._consider_opening(connection)

    async def run_once(self) -> None:
        """Refresh and claim, once there is work or a refresh is due.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        if not self._more:
            if self._pipeline.is_behind or self._pipeline.gate.owed:
                began = time.monotonic()
                await asyncio.sleep(_PAUSE_S)  # several slots may become free in the meantime, or webhooks come
                self._pipeline.drain_limit.delayed(time.monotonic() - began - _PAUSE_S)
            await self._wait()
        self._more = False
        async with self._database.connection() as connection:
            if time.monotonic() >= self._refresh_at:
                self._refresh_at = time.monotonic() + _REFRESH_S
                await self._refresh(connection)
                await self._answer_senders(connection)
                await self._resume_tests(connection)
            claimed = await self._claim(connection)
        for one in claimed:
            self._pipeline.resume(one, drains=True)

    async def _wait(self) -> None:
        """Until there is work that the rates allow, or a refresh is due."""
        if self._turn_at:
            await asyncio.sleep(min(self._refresh_at, self._turn_at) - time.monotonic())
        else:
            await self._pipeline.work(max(0.0, self._refresh_at - time.monotonic()))

    async def _refresh(self, connection: Connection) -> None:
        if self._has_breaker:
            await self._consider_opening(connection)
        state = await gate.read(connection, self._owner)
        self._pipeline.gate.refresh(state)
        if time.monotonic() >= self._housekeeping_at:
            self._housekeeping_at = time.monotonic() + _HOUSEKEEPING_S
            await self._keep_house(connection)
        if self._concurrency is not None:
            await self._share(connection, self._concurrency, state.relays, state.rank)
        if self._has_breaker and state.open and not state.held and not self._probes:
            await self._probe(connection)
        elif state.open and not self._has_breaker and await gate.close_unused_breaker(connection):
            self._forwarding_log.breaker("closed", why="no relay has RELAY_BREAKER=on any more")

    async def _answer_senders(self, connection: Connection) -> None:
        """Let senders know whose deliveries another relay has carried, in their turn in the conversation."""
        if rows := self._pipeline.awaited:
            for row, outcome in (await deliveries.outcomes(connection, rows)).items():
                self._pipeline.senders.answer(row, outcome)

    async def _resume_tests(self, connection: Connection) -> None:
        """Carry test webhooks whose wait is over past what stops or delays all others."""
        gate_now = self._pipeline.gate
        if not self._lease.is_held or not self._pipeline.is_accepting:
            return
        if not gate_now.is_open or gate_now.has_rates or not self._pipeline.capacity:
            for one in await claims.claim_tests(connection, self._owner, most=_BATCH):
                self._pipeline.resume(one)

    async def _keep_house(self, connection: Connection) -> None:
        """What relays do every second. A row that another session holds keeps it from none of the rest.

        Where a relay was without Postgres, the others may have been, too: they get the time to send a heartbeat before
        their destinations count as gone.
        """
        now, beats_s = time.monotonic(), 2 * instances.beat_every_s(self._lease.seconds) + 1
        if now - self._housekept_at > beats_s:
            self._releases_at = now + beats_s
        self._housekept_at = now
        with suppress(psycopg.errors.LockNotAvailable):
            await gate.end_holds(connection)
        with suppress(psycopg.errors.LockNotAvailable):
            await gate.release_order(connection, RELEASE_ORDER_S)
        await destinations.refresh(connection, self._owner, releases=now >= self._releases_at)
        if self._has_breaker and self._pipeline.gate.breaker_is_open:
            await gate.count_attempts(connection, self._owner, 0, 0)  # so that the breaker counts as used

    async def _share(self, connection: Connection, most: int, relays: int, rank: int) -> None:
        """Hold a fair share of the agent's slots. The limit falls before slots go back, and rises after they came."""
        fair, rest = divmod(most, relays)
        wanted = fair + (rank < rest)
        own, busy = self._pipeline.slots, self._pipeline.needed_slots
        own.limit_agent(min(own.agent_limit or 0, max(wanted, busy)))
        own.limit_agent(
            await slots.share(connection, self._owner, self._destination, slots=most, wanted=wanted, busy=busy)
        )

    async def _claim(self, connection: Connection) -> list[Claimed]:
        pipeline, gate_now = self._pipeline, self._pipeline.gate
        most = min(_BATCH, pipeline.backlog_room())
        was_limited, self._turn_at = self._turn_at > 0, 0.0
        if not self._lease.is_held or not gate_now.is_open or not (most or gate_now.owed):
            return []
        reserve = 1 if pipeline.wants_replay() and gate_now.is_replays_turn else 0
        async with turn(connection, gate_now, most, reserve=reserve, catching_up=was_limited) as now:
            claimed: list[Claimed] = []
            if now.allowed:
                claimed = await claims.claim_backlog(
                    connection, self._owner, most=now.allowed, most_bytes=pipeline.room_bytes
                )
            now.started = len(claimed)
        is_full = len(claimed) == now.allowed
        if gate_now.has_rates:
            gate_now.live_starts += len(claimed)
            if is_full and now.allowed < most:
                self._turn_at = time.monotonic() + now.due_s
        if not now.allowed:
            return []
        pipeline.is_behind = is_full
        self._more = is_full and now.allowed == _BATCH
        if is_full:
            pipeline.wake()
        return claimed

    async def _consider_opening(self, connection: Connection) -> None:
        if self._pipeline.gate.breaker_is_open:
            return
        opening = self._window.asked
        if opening is None:
            opening = verdict(*await gate.count_attempts(connection, self._owner, *self._window.counts))
        if opening is None:
            return
        why = opening.why if self._window.asked else f"{opening.why}: {self._window.last_error or 'no answer'}"
        self._window.clear()
        await gate.count_attempts(connection, self._owner, 0, 0)
        if await gate.open_the_breaker(connection, why, pause_s=opening.pause_s, first_s=FIRST_PAUSE_S):
            self._forwarding_log.breaker("opened", why=why)
        self._pipeline.gate.opened()

    async def _probe(self, connection: Connection) -> None:
        """Try one delivery while the breaker is open, if it is time and no other relay does."""
        if not self._lease.is_held or not self._pipeline.is_accepting or not self._pipeline.slots.limit:
            return
        is_due, last = await gate.take_probe(connection, attempt_s=self._attempt_s, most_s=MOST_PAUSE_S)
        if not is_due:
            return
        claimed = await claims.claim_probe(connection, self._owner, last)
        if claimed is None:
            await gate.no_probe(connection, FIRST_PAUSE_S)
            return
        await gate.probing(connection, claimed.delivery.order_key)
        task = self._pipeline.resume(claimed, is_probe=True)
        self._probes.add(task)
        task.add_done_callback(self._probed)

    def _probed(self, task: asyncio.Task[Outcome | WaitReason | None]) -> None:
        result = None if task.cancelled() or task.exception() is not None else task.result()
        recording = asyncio.create_task(self._record_probe(succeeded=isinstance(result, Outcome) and result.success))
        self._recordings.add(recording)

        def recorded(done: asyncio.Task[None]) -> None:
            self._recordings.discard(done)
            self._probes.discard(task)
            if not done.cancelled():
                done.exception()  # Postgres is away: the next probe comes when this one's time is over

        recording.add_done_callback(recorded)

    async def _record_probe(self, *, succeeded: bool) -> None:
        async with self._database.connection() as connection:
            if not succeeded:
                await gate.probe_failed(connection)
            elif await gate.close_the_breaker(connection):
                self._window.clear()
                self._forwarding_log.breaker("closed")
        self._refresh_at = 0.0
        self._pipeline.wake()
