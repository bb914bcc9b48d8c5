"""Replay plans, worked on at their rate and within their rules.

The deliveries of a plan go through the same pipeline as live ones. This module decides only when the next is sent:
the canary first and alone, then at most at the plan's rate and at those of all deliveries, with room left for live
traffic, and none after a rule has stopped the plan. Progress is in Postgres, so that any relay can continue a plan.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from relay.domain.delivery import Outcome
from relay.domain.format import plural
from relay.errors import StoreUnavailable
from relay.forwarding.rate_limit import CATCH_UP_S
from relay.forwarding.turns import turn
from relay.store import replay_work, replays
from relay.store.actions import signed
from relay.store.database import one_moment
from relay.store.failures import described
from relay.store.replays import Control, PlanState
from relay.text import clean

if TYPE_CHECKING:
    from uuid import UUID

    from relay.domain.delivery import WaitReason
    from relay.forwarding.pipeline import Pipeline
    from relay.store.database import Connection, Database
    from relay.store.deliveries import Claimed
    from relay.store.replays import Plan
    from relay.telemetry.forwarding_log import ForwardingLog

AT_ONCE = 32
"""Deliveries of one plan on their way at the same time, at most."""

PLANS_AT_ONCE = 4
_CHECK_EVERY_S = 0.25
_LIVE_FIRST_S = 0.05
_HELD_AGAIN_S = 0.25
_CLOSE_S = 2
_NAME_CHARS = 60


class ReplayRunner:
    """Works on the plans of operators, several at a time, as the relay `owner`."""

    name = "replays"
    interval_s = 0.25

    def __init__(self, database: Database, pipeline: Pipeline, owner: UUID, forwarding_log: ForwardingLog) -> None:
        self._database = database
        self._pipeline = pipeline
        self._owner = owner
        self._forwarding_log = forwarding_log
        self._working: dict[int, asyncio.Task[None]] = {}
        self._runs: set[_PlanRun] = set()
        self._given_up: set[int] = set()
        pipeline.wants_replay = lambda: any(run.wants_slot for run in self._runs)

    async def run_once(self) -> None:
        """Claim a plan that waits and start to work on it, if there is room for one.

        A relay without a slot of the agent leaves plans to the relays that have one.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        if len(self._working) >= PLANS_AT_ONCE or not self._pipeline.is_accepting or not self._pipeline.slots.limit:
            return
        async with self._database.connection() as connection:
            plan = await replay_work.claim(connection, self._owner, working=[*self._working, *self._given_up])
            if plan is not None and plan.ended:
                await replays.notify(connection, plan.id)
        if plan is None:
            return
        if plan.ended:
            self._forwarding_log.replay(plan.state, plan.id, left=plan.left, why=plan.stopped_why)
        else:
            self._working[plan.id] = asyncio.create_task(self._work(plan), name=f"replay {plan.id}")

    async def close(self) -> None:
        """Stop working. Deliveries in flight stay in the pipeline; the rest waits for another relay."""
        tasks = list(self._working.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_S)

    async def _work(self, plan: Plan) -> None:
        """Work on one plan to its end.

        If Postgres goes away, the plan is claimed again later. A plan that fails in any other way is stopped, with
        the reason: claimed again, it would fail again and keep the plans behind it waiting.
        """
        run = _PlanRun(plan, self._database, self._pipeline, self._owner, self._forwarding_log)
        self._runs.add(run)
        try:
            self._forwarding_log.replay("started", plan.id, deliveries=plan.left, requestedBy=plan.who)
            await run.work()
        except StoreUnavailable:
            self._forwarding_log.replay("interrupted, Postgres is away", plan.id)
        except Exception as error:  # noqa: BLE001 - the task's top
            await self._give_up(plan, described(error))
        finally:
            self._runs.discard(run)
            self._working.pop(plan.id, None)

    async def _give_up(self, plan: Plan, why: str) -> None:
        why = f"this relay cannot carry it out: {why}"
        self._given_up.add(plan.id)
        self._forwarding_log.replay("failed", plan.id, why=why)
        try:
            async with self._database.connection() as connection:
                await replay_work.settle(connection, plan.id, self._owner, PlanState.STOPPED, why)
        except StoreUnavailable:
            self._given_up.discard(plan.id)


class _PlanRun:
    """One relay's work on one plan, from its claim to its end, its pause or its loss to another relay."""

    def __init__(
        self, plan: Plan, database: Database, pipeline: Pipeline, owner: UUID, forwarding_log: ForwardingLog
    ) -> None:
        self._plan = plan
        self._database = database
        self._pipeline = pipeline
        self._owner = owner
        self._forwarding_log = forwarding_log
        self._sending: dict[asyncio.Task[Outcome | WaitReason | None], int] = {}
        self._elsewhere: set[int] = set()  # rows under way that this relay does not carry: most of them wait
        self._streak = 0
        self._canary_left = max(0, plan.canary - plan.delivered)
        self._next_send_at = time.monotonic()
        self._turn_at = 0.0
        self._nothing_left = False
        self._notified = (plan.delivered, plan.dead, plan.skipped)

    async def work(self) -> None:
        """Send, settle and follow the operators' controls until the plan ends or another relay has it."""
        async with self._database.connection() as connection, one_moment(connection):
            self._streak = await replay_work.failures_in_a_row(connection, self._plan.id)
            self._elsewhere = await replay_work.unsettled(connection, self._plan.id)
        checked_at = float("-inf")
        while True:
            if time.monotonic() - checked_at >= _CHECK_EVERY_S:
                checked_at = time.monotonic()
                if not await self._heed():
                    return
            if (why := self._rule_broken()) is not None:
                await self._end(PlanState.STOPPED, why)
                return
            if not self._pipeline.slots.limit and not self._sending:
                await self._end(PlanState.QUEUED)  # this relay has lost its slots of the agent, another one has them
                return
            room = self._room()
            if room:
                self._nothing_left = not await self._send(room)
            elif self._nothing_left and not self._sending and await self._all_settled():
                await self._end_or_leave()
                return
            else:
                await self._wait()

    async def _heed(self) -> bool:
        """Apply the last control and notify listeners of progress. False when the work on the plan ends."""
        async with self._database.connection() as connection:
            found = await replay_work.check(connection, self._plan.id, self._owner)
            if found is None:
                return False  # another relay has it
            self._plan, asked = found
            await self._follow_elsewhere(connection)
            counts = (self._plan.delivered, self._plan.dead, self._plan.skipped)
            if counts != self._notified:
                self._notified = counts
                await replays.notify(connection, self._plan.id)
        if asked is not None and asked.control is Control.STOP:
            name = clean(asked.operator, limit=_NAME_CHARS)
            login = asked.login and clean(asked.login, limit=_NAME_CHARS)
            await self._end(PlanState.STOPPED, f"stopped by {signed(name, login)}")
            return False
        if asked is not None and asked.control is Control.PAUSE:
            await self._end(PlanState.PAUSED)
            return False
        return True

    async def _follow_elsewhere(self, connection: Connection) -> None:
        """Count what became of deliveries that this relay does not carry: after a wait any relay may finish them."""
        if not self._elsewhere:
            return
        for row, delivered in await replay_work.settled(connection, self._plan.id, list(self._elsewhere)):
            self._elsewhere.discard(row)
            self._count(delivered=delivered)

    def _rule_broken(self) -> str | None:
        """Why no more may be sent, if a rule says so."""
        if self._streak and self._canary_left:
            return "the canary failed"
        if self._plan.stop_after and self._streak >= self._plan.stop_after:
            return f"{plural(self._streak, 'failure')} in a row"
        return None

    @property
    def wants_slot(self) -> bool:
        """True while a delivery of the plan would be sent now if a slot were free."""
        return self._most() > 0

    def _most(self) -> int:
        """How many the plan and the rates allow at this moment, whatever slots are free."""
        under_way = len(self._sending) + len(self._elsewhere)
        if self._nothing_left or not self._pipeline.gate.is_open or time.monotonic() < self._turn_at:
            return 0
        most = AT_ONCE - len(self._sending)
        if self._canary_left:
            most = min(most, 1 - under_way)
        if self._plan.stop_after:
            most = min(most, self._plan.stop_after - self._streak - under_way)
        if self._plan.rate is not None:
            most = min(most, 1 if time.monotonic() >= self._next_send_at else 0)
        return max(0, most)

    def _room(self) -> int:
        """How many may be sent at this moment."""
        free = self._pipeline.capacity
        return min(self._most(), free, max(free // 2, self._pipeline.slots.reserve - len(self._sending), 0))

    async def _send(self, room: int) -> bool:
        """Claim and start up to `room` deliveries. False once the plan has nothing left to send.

        Where rates limit all deliveries, live traffic comes first: a start is left to it, or, while it waits, it has
        all but the replays' share.
        """
        gate, is_behind = self._pipeline.gate, self._pipeline.is_behind
        if gate.has_rates and is_behind:
            if not gate.is_replays_turn:
                self._turn_at = time.monotonic() + _LIVE_FIRST_S
                return True
            room = 1
        claims: list[Claimed] = []
        skipped = held = 0
        is_late = time.monotonic() - self._turn_at < CATCH_UP_S
        async with (
            self._database.connection() as connection,
            turn(connection, gate, room, reserve=0 if is_behind else 1, catching_up=is_late) as now,
        ):
            if now.allowed:
                claims, skipped, held = await replay_work.claim_next(
                    connection, self._plan.id, self._owner, now.allowed
                )
            now.started = len(claims)
        if gate.has_rates:
            self._turn_at = time.monotonic() + now.due_s
            gate.live_starts = 0 if claims else gate.live_starts
        if held:  # by another session: leave the slots to others meanwhile
            self._turn_at = max(self._turn_at, time.monotonic() + _HELD_AGAIN_S)
        for claimed in claims:
            task = self._pipeline.resume(claimed)
            self._sending[task] = claimed.delivery.id
            task.add_done_callback(self._settled)
        if self._plan.rate is not None and claims:
            self._next_send_at = max(self._next_send_at + 1 / self._plan.rate, time.monotonic() - 1)
        return bool(claims or skipped or held or not now.allowed)

    def _settled(self, task: asyncio.Task[Outcome | WaitReason | None]) -> None:
        row = self._sending.pop(task)
        outcome = None if task.cancelled() or task.exception() is not None else task.result()
        if isinstance(outcome, Outcome):
            self._count(delivered=outcome.success)
        else:
            self._elsewhere.add(row)  # it waits, or another relay has it

    def _count(self, *, delivered: bool) -> None:
        """Count an outcome for the rules."""
        if delivered:
            self._streak = 0
            self._canary_left = max(0, self._canary_left - 1)
        else:
            self._streak += 1

    async def _wait(self) -> None:
        """Wait until a delivery is settled, the rate allows the next, or the next check is due."""
        until_s = _CHECK_EVERY_S
        if self._plan.rate is not None and not self._nothing_left:
            until_s = min(until_s, max(0.001, self._next_send_at - time.monotonic()))
        if not self._nothing_left and self._turn_at > time.monotonic():
            until_s = min(until_s, self._turn_at - time.monotonic())
        if self._sending:
            await asyncio.wait(self._sending, timeout=until_s, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(until_s)

    async def _all_settled(self) -> bool:
        """True once none of the plan's deliveries is in flight, in this relay or another."""
        async with self._database.connection() as connection:
            return not await replay_work.in_flight(connection, self._plan.id)

    async def _end_or_leave(self) -> None:
        """End the plan, or queue it again if what is left of it is for relays with another Agent SDK."""
        async with self._database.connection() as connection:
            is_left = await replay_work.left_to_others(connection, self._plan.id)
        await self._end(PlanState.QUEUED if is_left else PlanState.DONE)

    async def _end(self, state: PlanState, why: str | None = None) -> None:
        async with self._database.connection() as connection:
            await replay_work.settle(connection, self._plan.id, self._owner, state, why)
            plan = await replays.plan(connection, self._plan.id) or self._plan
        reason = {} if why is None else {"why": why}
        self._forwarding_log.replay(
            state, plan.id, delivered=plan.delivered, dead=plan.dead, skipped=plan.skipped, left=plan.left, **reason
        )
