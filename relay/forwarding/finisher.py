"""Records the outcomes of deliveries. Nothing that Postgres refuses here costs another attempt at the agent.

Light outcomes share statements. Heavy ones, and those that Postgres cancelled or refused, go alone on connections of
their own, so that they delay no other. Facts that `dashboard_facts` does not take wait in `relay.facts_aside`; while
it is slow or locked, all facts go there at once and `run_once` moves them over, so that no outcome waits for it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import psycopg

from relay.domain.facts import as_json_text, facts_of_run, without_payload
from relay.errors import StatementRefused, StoreUnavailable
from relay.store import aside, instances
from relay.store.batch import GroupCommit
from relay.store.database import DEDICATED_SILENCE_S, DedicatedConnection, may_cancel, time_limit
from relay.store.failures import described
from relay.store.finishing import finish as commit
from relay.store.refusal import explain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from structlog.typing import FilteringBoundLogger

    from relay.domain.delivery import Delivery, Outcome
    from relay.domain.facts import Fact
    from relay.store.database import Connection, Database
    from relay.store.deliveries import FactsAside, Finish, Finished

LEAST_PACE_S = 0.3
"""However quick Postgres usually is, no batch is cancelled before that."""

_BATCH_BYTES = 1024 * 1024
_HEAVY_BYTES = 128 * 1024
_ALONE_LIMIT_MS = 3_000
_MOST_TRIES = 3
_FIRST_PAUSE_S = 0.05
_PAUSE_AWAY_S = 2.0
_PAUSE_REFUSED_S = 10.0
_MOST_LOCK_MS = 320
_ANSWER_S = 1.0
_ROUND_S = 60.0
_ROUND_PATIENCE_S = 60.0


class Finisher:
    """Commits outcomes. Run `run` as a task.

    As a service it restores facts that wait aside: once a minute, and each round while they are late.
    """

    name = "facts aside"
    interval_s = 1.0

    def __init__(self, database: Database, owner: UUID, log: FilteringBoundLogger) -> None:
        self._database = database
        self._owner = owner
        self._log = log
        self._connection = DedicatedConnection(database)
        self._pace = Pace()
        self._group: GroupCommit[Finish, Finished] = GroupCommit(
            self._commit, alone=self._commit_alone, size=weight, max_bytes=_BATCH_BYTES, heavy=_HEAVY_BYTES
        )
        self._behind = False  # dashboard_facts is slow or locked: facts go aside at once
        self._late = False  # facts of this relay wait to be moved over
        self._restore_broke = False  # the last round lost its connection
        self._guarded_until = 0.0
        self._next_round = 0.0
        self._logged_reason: str | None = None

    async def run(self) -> None:
        """Commit what `record` is given, until cancelled."""
        await self._group.run()

    async def close(self) -> None:
        """Give the connection back to the pool."""
        await self._connection.close()

    async def record(self, finish: Finish) -> Finished:
        """Commit an outcome, however long that takes, and return what became of it.

        What Postgres refuses or cancels is tried again by itself: at once without text from outside if a value was
        refused, and after `_MOST_TRIES` without payload and with its facts aside. So is what ends its connection
        again and again while Postgres answers. A row that another session holds is waited for.
        """
        pause_s, refusals, failures = _FIRST_PAUSE_S, 0, 0
        while True:
            try:
                return await self._group.submit(finish, alone=refusals > 0)
            except (StoreUnavailable, psycopg.Error) as error:
                failures += 1
                is_refused = not _is_away(error) or (failures > 1 and await self._answers())
                if is_refused:
                    refusals += 1
                    finish = self._after_refusal(finish, error, refusals)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_REFUSED_S if is_refused else _PAUSE_AWAY_S)

    def _after_refusal(self, finish: Finish, error: Exception, refusals: int) -> Finish:
        """What of `finish` to try next."""
        self._log.warning(
            "Outcome not recorded, will retry; the agent is not called again",
            delivery_id=finish.delivery.delivery_id,
            tries=refusals,
            reason=str(error) if isinstance(error, StoreUnavailable) else described(error),
        )
        if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
            return replace(finish, lock_ms=min(4 * finish.lock_ms, _MOST_LOCK_MS))
        if refusals >= _MOST_TRIES:
            return _plainest(finish)
        return _plainer(finish) if isinstance(error, psycopg.DataError) else finish

    async def _answers(self) -> bool:
        """Whether Postgres takes other statements now."""
        try:
            async with self._database.connection(_ANSWER_S) as connection:
                return await instances.can_write(connection)
        except (StoreUnavailable, psycopg.Error):
            return False

    async def run_once(self) -> None:
        """Move facts aside back into `dashboard_facts`: one relay each minute, and this one while facts are late.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        is_late, self._late = self._late, False
        if not is_late and time.monotonic() < self._next_round:
            return
        async with self._database.connection(_ROUND_PATIENCE_S) as connection:
            if not is_late:
                self._next_round = time.monotonic() + _ROUND_S
                if not await instances.take_duty(connection, "facts aside", self._owner, for_s=1.5 * _ROUND_S):
                    return
            one_by_one, self._restore_broke = self._restore_broke, True
            result = await aside.restore(connection, one_by_one=one_by_one)
            self._restore_broke = False
        if result.caught_up:
            self._behind = False
        elif is_late:
            self._late = True
        if result.refused:
            self._warn(result.refused, result.reason)
        if result.moved:
            self._log.info("Facts that waited aside are recorded", facts=result.moved)
            self._logged_reason = None if not result.refused else self._logged_reason

    async def _commit(self, batch: Sequence[Finish]) -> list[Finished]:
        began, behind = time.monotonic(), self._behind
        async with self._connection.connection() as connection, self._cancelled_when_late(connection):
            recorded = await commit(
                connection,
                batch,
                owner=self._owner,
                guarded=began < self._guarded_until,
                facts_later=behind,
                on_aside=partial(self._went_aside, behind=behind),
            )
        if self._behind == behind:
            self._pace.observe(time.monotonic() - began)
        return recorded

    async def _commit_alone(self, finish: Finish) -> Finished:
        began, behind = time.monotonic(), self._behind
        async with (
            self._database.connection(DEDICATED_SILENCE_S) as connection,
            time_limit(connection, _ALONE_LIMIT_MS),
        ):
            (recorded,) = await commit(
                connection,
                [finish],
                owner=self._owner,
                guarded=True,
                facts_later=behind,
                lock_ms=finish.lock_ms,
                on_aside=partial(self._went_aside, behind=behind or finish.facts_later),
            )
        if self._behind == behind and weight(finish) <= _HEAVY_BYTES:
            self._pace.observe(time.monotonic() - began)
        return recorded

    def _went_aside(self, facts: FactsAside, *, behind: bool) -> None:
        """Facts went aside; with `behind` because they were sent there, else because of `dashboard_facts`."""
        if facts.late:
            self._late = True
            self._behind = self._behind or not behind
        if facts.refused:
            self._guarded_until = time.monotonic() + _ROUND_S
            self._warn(facts.refused, facts.reason)

    def _warn(self, count: int, reason: str | None) -> None:
        """Log a refusal once a reason, not once a fact."""
        if reason != self._logged_reason:
            self._logged_reason = reason
            what, remedy = explain(reason)
            self._log.error("dashboard_facts refuses facts; they wait aside", facts=count, reason=what, remedy=remedy)

    @asynccontextmanager
    async def _cancelled_when_late(self, connection: Connection) -> AsyncIterator[None]:
        """Cancel the block's statement if it takes far longer than usual, and again until it ends.

        One that waits is cancelled at the limit, one that works half as much later.
        """
        done = asyncio.Event()
        tasks: list[asyncio.Task[None]] = []
        limit_s = self._pace.limit_s
        loop = asyncio.get_running_loop()
        timer = loop.call_later(
            limit_s, lambda: tasks.append(loop.create_task(self._cancel_until(done, connection, limit_s / 2)))
        )
        try:
            yield
        finally:
            timer.cancel()
            done.set()
            await asyncio.gather(*tasks)  # a cancellation under way must not meet the next statement

    async def _cancel_until(self, done: asyncio.Event, connection: Connection, every_s: float) -> None:
        even_at_work = False
        while not done.is_set():
            with suppress(StoreUnavailable, psycopg.Error, OSError):
                async with self._database.connection(1.0) as other:
                    pid = connection.server_pid
                    is_due = await may_cancel(other, pid, even_at_work=even_at_work)
                if is_due and not done.is_set():
                    await connection.cancel_safe(timeout=1.0)
            even_at_work = True
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await done.wait()


class Pace:
    """How long a batch may take before it is cancelled, in seconds: four times what is usual now, 0.3 s at least.

    A Postgres that is slow in general is given its time; what is much slower than the rest is not.
    """

    def __init__(self, least_s: float | None = None, most_s: float = 4.0) -> None:
        self._least_s, self._most_s = LEAST_PACE_S if least_s is None else least_s, most_s
        self._seconds: deque[float] = deque(maxlen=15)

    def observe(self, seconds: float) -> None:
        """Count a commit that succeeded."""
        self._seconds.append(seconds)

    @property
    def limit_s(self) -> float:
        """The limit now."""
        usual = statistics.median(self._seconds) if self._seconds else 0.0
        return max(self._least_s, min(4 * usual, self._most_s))


def _is_away(error: Exception) -> bool:
    """True unless Postgres itself refused or cancelled the statement."""
    return isinstance(error, StoreUnavailable) and not isinstance(error, StatementRefused)


def weight(finish: Finish) -> int:
    """The bytes of `finish` that Postgres has to parse: payloads and answers. Bodies that end well cost nothing."""
    payloads = sum(len(fact.payload) for fact in finish.facts if fact.payload is not None)
    return payloads + sum(len(attempt.answer) for attempt in finish.outcome.attempts)


async def facts_for(delivery: Delivery, outcome: Outcome, endpoint: str) -> list[Fact]:
    """`facts_of_run`, in a thread if the body is large: making it storable may take long."""
    if outcome.success or len(delivery.body) < _HEAVY_BYTES:
        return facts_of_run(delivery, outcome, endpoint)
    return await asyncio.to_thread(facts_of_run, delivery, outcome, endpoint)


def _plainer(finish: Finish) -> Finish:
    """`finish` without anything that came from outside and that Postgres may refuse."""
    attempts = tuple(replace(attempt, answer="", agent_status=None) for attempt in finish.outcome.attempts)
    text = as_json_text(finish.delivery.body)
    facts = [
        fact
        if fact.payload is None
        else replace(fact, payload=text, metadata=fact.metadata | {"payload_altered": True})
        for fact in finish.facts
    ]
    return replace(finish, outcome=replace(finish.outcome, attempts=attempts), facts=facts)


def _plainest(finish: Finish) -> Finish:
    """`finish` with a reference in place of the payload, no answers, and its facts aside."""
    attempts = tuple(replace(attempt, answer="", agent_status=None) for attempt in finish.outcome.attempts)
    facts = [without_payload(fact, finish.delivery) for fact in finish.facts]
    return replace(finish, outcome=replace(finish.outcome, attempts=attempts), facts=facts, facts_later=True)
