"""One relay process, put together: store, pipeline, and the small services that keep it honest.

Every service has the same shape: a step that is done again and again. A step that fails is told and tried
again; the loss and the return of Postgres are told once each, not once a step.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from relay import __version__
from relay.errors import SchemaError, StatementRefused, StoreUnavailable
from relay.forwarding.finisher import RESTORE_EVERY_S, Finisher
from relay.forwarding.forwarder import Forwarder
from relay.forwarding.pipeline import STORE_PATIENCE_S, Lease, Pipeline
from relay.intake.body_budget import Arrivals
from relay.intake.context import IntakeContext
from relay.intake.rejections import Rejections
from relay.monitoring.alert_notifier import WATCH_EVERY_S, AlertWatch
from relay.monitoring.probes import agent_probe, chatwoot_probes, run_probes
from relay.replay.automatic import LOOK_EVERY_S, AutoReplay
from relay.replay.runner import Replayer
from relay.store import deliveries, facts, instances, log, preflight, replays, retention, scrub, signatures
from relay.store.batch import GroupCommit
from relay.store.database import LANE_SILENCE_S, Database, Lane, described, heeding_cancellation
from relay.store.instances import Instance
from relay.store.migrate import migrate, migrations, schema_version
from relay.telemetry.forwarding_log import Narration
from relay.telemetry.log_sink import RELAY_SCOPE
from relay.telemetry.metrics import Counters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from relay.settings import Settings
    from relay.store.deliveries import Claimed, Duplicate, Ignored, Incoming
    from relay.telemetry.log_sink import LogSink

DRAIN_S = 15
"""How long a stopping relay waits for what is in flight, after its listeners have closed."""

_SERVICES_END_S = 2
_GOODBYE_S = 3
_ORPHAN_S = 2 * STORE_PATIENCE_S + 5
_RETENTION_S = 900
_TAIL_BATCH = 2_000
_TAKE_OVER_BATCH = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a relay process is. `name` is the address it holds, `boot` this start of it, `slot` the worker."""

    name: str
    boot: UUID
    slot: int = 0


class Runtime:
    """Everything behind the HTTP routes of one relay process.

    With `checks` it ends with a `SchemaError` if the database refuses what every delivery needs. Without, for a worker
    that replaces another, it serves as well as it can.
    """

    def __init__(self, settings: Settings, dsn: str, identity: Identity, sink: LogSink, *, checks: bool = True) -> None:
        self.settings = settings
        self._checks = checks
        self.database = Database(dsn)
        self.counters = Counters()
        self.instance = Instance(
            id=uuid4(),
            name=identity.name,
            boot=identity.boot,
            slot=identity.slot,
            pid=os.getpid(),
            version=__version__,
            signed=bool(settings.secrets),
            agent=settings.agent_endpoint_shown,
        )
        self._dsn = dsn
        self._sink = sink
        self._log = sink.logger(RELAY_SCOPE)
        narration = Narration(sink, settings.agent_endpoint_shown)
        self.rejections = Rejections(self.counters, narration)
        self._narration = narration
        self._lease = Lease(settings.relay_lease_seconds)
        self._forwarder = Forwarder(settings, narration)
        self._receipt_lane, self._tail_lane = Lane(self.database), Lane(self.database)
        self._receipts: GroupCommit[Incoming, Claimed | Duplicate | Ignored] = GroupCommit(
            self._commit_receipts, alone=self._commit_receipt, size=lambda item: item.receipt.size
        )
        self._finisher = Finisher(self.database, self.instance.id, self._log)
        self.pipeline = Pipeline(
            forwarder=self._forwarder,
            receipts=self._receipts,
            finisher=self._finisher,
            lease=self._lease,
            narration=narration,
            counters=self.counters,
            endpoint=settings.agent_endpoint_shown,
            max_in_flight=settings.relay_max_in_flight,
        )
        self.intake = IntakeContext(
            settings=settings,
            instance=self.instance,
            database=self.database,
            pipeline=self.pipeline,
            rejections=self.rejections,
            body_budget=Arrivals(),
            counters=self.counters,
        )
        self._replayer = Replayer(self.database, self.pipeline, self.instance.id, narration)
        self._watch = AlertWatch(settings, self.database, self.instance.id, self._log)
        self._auto_replay = AutoReplay(self.database, self.instance.id, self._log)
        self._main: asyncio.Task[None] | None = None
        self.defect: BaseException | None = None
        self._stopping = asyncio.Event()
        self._unavailable = False

    async def start(self, on_defect: Callable[[], object] = lambda: None) -> None:
        """Start the services in the background; webhooks wait until the store is ready.

        `on_defect` is called if they end by themselves, which they never should: `defect` then says by what.
        """
        await self.database.open()
        self._main = asyncio.create_task(self._run(), name="relay runtime")
        self._main.add_done_callback(lambda main: None if main.cancelled() else self._fail(main, on_defect))

    def _fail(self, main: asyncio.Task[None], on_defect: Callable[[], object]) -> None:
        self.defect = main.exception()
        if not isinstance(self.defect, SchemaError):
            reason = None if self.defect is None else described(self.defect)
            self._log.critical("The relay's services have ended by a defect; it stops", error=reason)
        on_defect()

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Stop in good order: drain, hand back what is left, say goodbye."""
        await self.pipeline.drain(drain_s)
        self._stopping.set()
        await self._replayer.close()
        if self._main is not None:
            self._main.cancel()
            ended, _ = await asyncio.wait((self._main,), timeout=_SERVICES_END_S)
            await asyncio.gather(*ended, return_exceptions=True)
            if not ended:
                self._log.error("A service does not end; the relay stops without it")
        try:
            await self._say_goodbye()
        except StoreUnavailable:
            self._log.warning("Postgres is away; what was in flight is taken over when the lease runs out")
        for lane in (self._receipt_lane, self._finisher, self._tail_lane):
            await lane.close()
        await self._forwarder.close()
        await self.database.close()

    async def _say_goodbye(self) -> None:
        async with self.database.connection(_GOODBYE_S) as connection:
            handed_back = await deliveries.hand_back(connection, self.instance.id)
            await replays.let_go(connection, self.instance.id)
            await instances.leave_duties(connection, self.instance.id)
            await instances.end(connection, self.instance.id)
            await facts.record(connection, self.rejections.take())
            await log.append(connection, self.instance.id, self._sink.take_tail(_TAIL_BATCH))
        if handed_back:
            self._log.warning("Deliveries handed back, for any relay to take on", deliveries=handed_back)

    async def _run(self) -> None:
        await self._prepare()
        lease_s = self._lease.seconds
        async with asyncio.TaskGroup() as group:
            for lane in (self._receipts, self._finisher):
                group.create_task(lane.run())
            self.pipeline.open()
            services: list[tuple[str, float, Callable[[], Awaitable[Any]]]] = [
                ("heartbeat", lease_s / 3, self._beat),
                ("recovery", min(2.0, lease_s / 4), self._recover),
                ("rejections", 0.5, self._record_rejections),
                ("log tail", 0.1, self._append_tail),
                ("replays", 0.25, self._replayer.look),
                ("discards", 0.25, self._replayer.discard),
                ("probes", self.settings.relay_probe_seconds, self._probe),
                ("alerts", WATCH_EVERY_S, self._watch.look),
                ("facts aside", RESTORE_EVERY_S, self._finisher.restore),
                ("retention", 600, self._retire),
                ("signatures", 60, self._remove_signatures),
                ("header scrub", 60, self._scrub_headers),
            ]
            if self.settings.relay_auto_replay:
                every_s = min(LOOK_EVERY_S, self.settings.relay_probe_seconds)
                services.append(("auto-replay", every_s, self._auto_replay.look))
            for name, interval_s, step in services:
                group.create_task(self._again_and_again(name, interval_s, step), name=name)

    async def _prepare(self) -> None:
        """Migrate and register, for as long as it takes Postgres to be there."""
        while True:
            if await self._succeeds("start", self._migrate_and_register):
                return
            await asyncio.sleep(1)

    async def _migrate_and_register(self) -> None:
        await migrate(self._dsn)
        if self._checks:
            await preflight.check(self._dsn)
        async with self.database.connection() as connection:
            found, known = await schema_version(connection), migrations()[-1].version
        if found > known:
            self._log.warning("The schema is a newer relay's; this one goes on with it", schema=found, known=known)
        await self._register()

    async def _register(self) -> None:
        asked_at = time.monotonic()
        async with self.database.connection() as connection:
            replaced = await instances.register(connection, self.instance, self._lease.seconds)
        self._lease.renewed(asked_at)
        if replaced:
            self._log.info("Took the place of a relay that is gone", relays=replaced)

    async def _again_and_again(self, name: str, interval_s: float, step: Callable[[], Awaitable[Any]]) -> None:
        while True:
            succeeded = await self._succeeds(name, step)
            await asyncio.sleep(interval_s if succeeded else max(interval_s, 1.0))

    async def _succeeds(self, name: str, step: Callable[[], Awaitable[Any]]) -> bool:
        """The top of every service's loop: a failure is told and does not end the loop."""
        try:
            with heeding_cancellation():
                await step()
        except StatementRefused as error:
            self._log.warning("A statement was refused, will retry", service=name, reason=str(error))
        except StoreUnavailable as error:
            if not self._unavailable:
                self._unavailable = True
                self._log.error("Postgres is away; webhooks are answered 503", reason=str(error))
        except SchemaError as error:
            if self._checks and name == "start":
                raise
            self._log.error("A service failed and goes on", service=name, error=str(error))
        except Exception as error:  # noqa: BLE001 - the loop's top
            self._log.error("A service failed and goes on", service=name, error=described(error))
        else:
            if self._unavailable and name == "heartbeat":
                self._unavailable = False
                self._log.info("Postgres is back")
            return True
        return False

    async def _commit_receipts(self, batch: Sequence[Incoming]) -> list[Claimed | Duplicate | Ignored]:
        async with self._receipt_lane.connection() as connection:
            return await deliveries.store(connection, self.instance.id, batch)

    async def _commit_receipt(self, item: Incoming) -> Claimed | Duplicate | Ignored:
        async with self.database.connection(LANE_SILENCE_S) as connection:
            return (await deliveries.store(connection, self.instance.id, [item]))[0]

    async def _beat(self) -> None:
        asked_at = time.monotonic()
        async with self.database.connection() as connection:
            known = await instances.beat(
                connection,
                self.instance.id,
                lease_s=self._lease.seconds,
                in_flight=self.pipeline.in_flight,
                counters=self.counters.as_dict(),
            )
        if known:
            self._lease.renewed(asked_at)
        else:
            await self._register()

    async def _recover(self) -> None:
        """Take over what nobody forwards, as much as there is room for."""
        while True:
            most = min(_TAKE_OVER_BATCH, self.pipeline.capacity)
            if not most or not self._lease.is_held:
                return
            async with self.database.connection() as connection:
                claims = await deliveries.claim_abandoned(
                    connection,
                    self.instance.id,
                    held=list(self.pipeline.held),
                    settled=self._lease.is_settled,
                    most=most,
                    orphan_s=_ORPHAN_S,
                )
            for claimed in claims:
                self.counters.taken_over += 1
                self._narration.taken_over(claimed.delivery)
                self.pipeline.take_on(claimed)
            if len(claims) < most:
                return

    async def _record_rejections(self) -> None:
        refused = self.rejections.take()
        if not refused:
            return
        try:
            async with self.database.connection() as connection:
                await facts.record(connection, refused)
        except StoreUnavailable:
            self.rejections.put_back(refused)
            raise

    async def _append_tail(self) -> None:
        await self._sink.tail_ready.wait()
        lines = self._sink.take_tail(_TAIL_BATCH)
        if not lines:
            return
        try:
            async with self._tail_lane.connection() as connection:
                await log.append(connection, self.instance.id, lines)
        except StoreUnavailable:
            self._sink.put_back(lines)
            raise

    async def _probe(self) -> None:
        """Probe agent and Chatwoot, if it is this relay's turn, and record what came of it."""
        every_s = self.settings.relay_probe_seconds
        async with self.database.connection() as connection:
            if not await instances.take_duty(connection, "probes", self.instance.id, for_s=every_s * 1.5 + 15):
                return
        results = await run_probes([agent_probe(self.settings), *chatwoot_probes(self.settings)])
        async with self.database.connection() as connection:
            await facts.record(connection, [result.fact for result in results])

    async def _remove_signatures(self) -> None:
        async with self.database.connection(patience_s=_RETENTION_S) as connection:
            await signatures.remove_expired(connection, self._stopping.is_set)

    async def _scrub_headers(self) -> None:
        async with self.database.connection(patience_s=_RETENTION_S) as connection:
            await scrub.scrub_headers(connection, self._stopping.is_set)

    async def _retire(self) -> None:
        keep = timedelta(days=self.settings.relay_retention_days)
        async with self.database.connection(patience_s=_RETENTION_S) as connection:
            if await instances.take_duty(connection, "retention", self.instance.id, for_s=_RETENTION_S):
                await retention.retire(connection, keep, self._stopping.is_set)
