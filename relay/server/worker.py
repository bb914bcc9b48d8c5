"""One relay process, put together: store, pipeline, HTTP context and background services."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from relay import __version__
from relay.chatwoot.samples import DEMO_CONVERSATIONS, DEMO_CUSTOMERS, DEMO_EVENTS, documented_payload
from relay.domain.notifications import Origin
from relay.errors import SchemaError, SpoolError, StoreUnavailable
from relay.forwarding.backlog import Backlog
from relay.forwarding.concurrency import Slots
from relay.forwarding.finisher import Finisher
from relay.forwarding.forwarder import Forwarder
from relay.forwarding.gate import Gate
from relay.forwarding.lease import Lease
from relay.forwarding.pipeline import Pipeline
from relay.forwarding.receipt_storage import ReceiptStorage
from relay.forwarding.recovery import Recovery
from relay.forwarding.spool_drain import SpoolDrain, SpoolReporter
from relay.forwarding.spooling import Spooling
from relay.incident.situation import SituationReader
from relay.incident.state import SpoolState
from relay.intake.body_budget import BodyBudget
from relay.intake.context import IntakeContext
from relay.intake.rejections import RejectionRecorder, Rejections
from relay.intake.store_probe import StoreProbe
from relay.monitoring.alert_notifier import AlertNotifier
from relay.monitoring.facts_check import FactsCheck
from relay.monitoring.heartbeat import Heartbeat
from relay.monitoring.outside_heartbeat import OutsideHeartbeat
from relay.monitoring.prober import Prober
from relay.monitoring.store_outage import StoreOutage
from relay.replay.automatic import INTERVAL_S, AutoReplay
from relay.replay.discards import DiscardRunner
from relay.replay.runner import ReplayRunner
from relay.server.maintenance import HeaderScrubber, OrderHealer, Retention, SignatureCleaner
from relay.server.services import ServiceLoop
from relay.store import deliveries, demo_history, facts, gate, instances, log, replay_work, slots, spools
from relay.store.database import Database
from relay.store.databases import database_name
from relay.store.failures import described
from relay.store.instances import Instance
from relay.store.migrate import migrate, migrations, schema_version
from relay.store.receipts import ReceiptStore
from relay.store.spool import Spool
from relay.telemetry import log_tail
from relay.telemetry.forwarding_log import ForwardingLog
from relay.telemetry.log_sink import RELAY_SCOPE
from relay.telemetry.log_tail import LogTail
from relay.telemetry.metrics import Counters
from relay.telemetry.tracing import make_tracing

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.domain.delivery import Attempt, Delivery
    from relay.server.services import Service
    from relay.settings import Settings
    from relay.store.database import Connection
    from relay.telemetry.log_sink import LogSink

DRAIN_S = 15
"""How long a stopping relay waits for what is in flight, after its listeners have closed."""

_SERVICES_END_S = 2
_GOODBYE_S = 3


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a relay process is. `name` is the address it holds, `boot` this start of it, `slot` the worker.

    `counts` is the memory for counts that all workers of this start share; None: there is one worker.
    """

    name: str
    boot: UUID
    slot: int = 0
    counts: memoryview | None = None


class Worker:
    """Everything behind the HTTP routes of one relay process.

    With `checks` it ends with a `SchemaError` if the database refuses what every delivery needs. Without, for a worker
    that replaces another, it serves as well as it can. Only the relay of a `demo` works on a demo's database.
    """

    def __init__(
        self, settings: Settings, dsn: str, identity: Identity, sink: LogSink, *, checks: bool = True,
        demo: bool = False,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._checks = checks
        self._demo = demo
        self.database = Database(dsn, lease_s=settings.relay_lease_seconds)
        self.counters = Counters(identity.counts, identity.slot)
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
        forwarding_log = ForwardingLog(sink, settings.agent_endpoint_shown)
        self.rejections = Rejections(self.counters, forwarding_log)
        lease = Lease(settings.relay_lease_seconds)
        owner = self.instance.id
        its_gate = Gate(settings.agent_endpoint_shown, settings.relay_agent_rate)
        self._tracing = make_tracing(settings, "hotdash-relay")
        self._forwarder = Forwarder(
            settings, forwarding_log, its_gate, attempted=self._attempted, tracing=self._tracing
        )
        self._receipts = ReceiptStore(self.database, owner)
        self._finisher = Finisher(self.database, owner, self._log)
        self._tail = LogTail(self.database, owner, sink)
        own_slots = Slots(settings.relay_max_in_flight)
        if settings.relay_agent_concurrency is not None:
            own_slots.limit_agent(0)  # until this relay holds slots
        self.spool = Spool(
            settings.relay_data_dir,
            dsn,
            max_bytes=settings.relay_spool_max_bytes,
            say=lambda sentence: self._log.error("The spool was damaged", reason=sentence),
        )
        spooling = Spooling(self.spool, forwarding_log, self.counters, settings.agent_endpoint_shown)
        ordered = settings.relay_order == "conversation"
        self.pipeline = Pipeline(
            forwarder=self._forwarder,
            storage=ReceiptStorage(self._receipts, spooling, forwarding_log, ordered=ordered),
            finisher=self._finisher,
            lease=lease,
            gate=its_gate,
            slots=own_slots,
            forwarding_log=forwarding_log,
            counters=self.counters,
            endpoint=settings.agent_endpoint_shown,
        )
        self._backlog = Backlog(
            settings, self.database, owner, pipeline=self.pipeline, lease=lease, forwarding_log=forwarding_log
        )
        self._receipts.on_late = self.pipeline.adopt
        self.pipeline.before_death = self._backlog.open_if_due
        self._drain = SpoolDrain(
            self.spool, spooling, self.database, owner, pipeline=self.pipeline, forwarding_log=forwarding_log
        )
        outage = StoreOutage(self.counters, self._spool_share)
        self._facts_check = FactsCheck(dsn, self.database, self._log)
        self.intake = IntakeContext(
            settings=settings,
            instance=self.instance,
            database=self.database,
            pipeline=self.pipeline,
            spool=self.spool,
            rejections=self.rejections,
            body_budget=BodyBudget(),
            counters=self.counters,
            facts_check=self._facts_check,
            store_probe=StoreProbe(self.database, owner, self.pipeline.store_faults),
            tracing=self._tracing,
            outage=outage,
        )
        self._heartbeat = Heartbeat(
            self.database,
            self.instance,
            self._log,
            lease_s=lease.seconds,
            in_flight=lambda: self.pipeline.in_flight,
            on_renewed=lease.renewed,
        )
        self._replays = ReplayRunner(self.database, self.pipeline, owner, forwarding_log)
        self._recovery = Recovery(
            self.database,
            owner,
            pipeline=self.pipeline,
            lease=lease,
            forwarding_log=forwarding_log,
            counters=self.counters,
        )
        self._alerts = AlertNotifier(
            settings,
            self.database,
            owner,
            self._log,
            reader=SituationReader(self._spool_state),
            outage=outage,
            origin=Origin(settings.installation, database_name(settings)),
            leads=identity.slot == 0,
        )
        self._main: asyncio.Task[None] | None = None
        self.defect: BaseException | None = None
        self._stopping = asyncio.Event()

    def _spool_state(self) -> SpoolState | None:
        """This host's spool, for the headline of an outage."""
        state = self.spool.state
        if not state.can_store:
            return None
        oldest_s = None if state.oldest_at is None else (datetime.now(UTC) - state.oldest_at).total_seconds()
        return SpoolState(state.receipts, oldest_s, state.bytes / state.max_bytes)

    def _spool_share(self) -> float | None:
        """How full this host's spool is, from 0 to 1; None without one."""
        state = self.spool.state
        return state.bytes / state.max_bytes if state.max_bytes else None

    def _attempted(self, delivery: Delivery, attempt: Attempt) -> None:
        self._backlog.attempted(delivery, attempt)

    def _services(self) -> list[Service]:
        owner, settings = self.instance.id, self.settings
        services: list[Service] = [
            self._heartbeat,
            self._recovery,
            self._backlog,
            RejectionRecorder(self.database, self.rejections),
            self._tail,
            self._replays,
            DiscardRunner(self.database),
            Prober(settings, self.database, owner),
            self._alerts,
            self._finisher,
            self._facts_check,
            Retention(self.database, owner, timedelta(days=settings.relay_retention_days), self._stopping.is_set),
            SignatureCleaner(self.database, self._stopping.is_set),
            HeaderScrubber(self.database, self._stopping.is_set),
            OrderHealer(self.database, owner, self._stopping.is_set),
        ]
        if self.spool.is_on:
            services += [self._drain, SpoolReporter(self.spool, self.database)]
        if settings.relay_heartbeat_url is not None and self.instance.slot == 0:
            url = settings.relay_heartbeat_url.get_secret_value()
            services.append(
                OutsideHeartbeat(
                    url,
                    self.database,
                    self._log,
                    store_fault=self.intake.store_probe.fault,
                    can_spool=lambda: self.spool.is_on and self.spool.state.can_store,
                )
            )
        if settings.relay_auto_replay:
            interval_s = min(INTERVAL_S, settings.relay_probe_seconds)
            services.append(AutoReplay(self.database, owner, self._log, interval_s=interval_s))
        return services

    async def start(self, on_defect: Callable[[], object] = lambda: None) -> None:
        """Start the services in the background; webhooks wait until the store is ready.

        `on_defect` is called if they end by themselves, which is a defect: `defect` is then its exception.
        """
        await self.database.open()
        await self._open_spool()
        self._main = asyncio.create_task(self._run(), name="relay worker")
        self._main.add_done_callback(lambda main: None if main.cancelled() else self._fail(main, on_defect))

    async def _open_spool(self) -> None:
        state = await self.spool.refresh(probe=True)
        if state.error is not None:
            self._log.warning("The spool cannot be used: webhooks are answered 503 while Postgres is away",
                              reason=state.error)  # fmt: skip
        if state.receipts:
            self._log.info("The spool holds webhooks, they go into Postgres now", webhooks=state.receipts)
        if state.foreign:
            self._log.warning("The spool holds webhooks for another database, which stay there", webhooks=state.foreign)

    def _fail(self, main: asyncio.Task[None], on_defect: Callable[[], object]) -> None:
        self.defect = main.exception()
        if not isinstance(self.defect, SchemaError):
            reason = None if self.defect is None else described(self.defect)
            self._log.critical("The relay's services have ended by a defect; it stops", error=reason)
        on_defect()

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Drain, hand back what is left, deregister, close."""
        await self.pipeline.drain(drain_s)
        self._stopping.set()
        await self._replays.close()
        if self._main is not None:
            self._main.cancel()
            ended, _ = await asyncio.wait((self._main,), timeout=_SERVICES_END_S)
            await asyncio.gather(*ended, return_exceptions=True)
            if not ended:
                self._log.error("A service does not end; the relay stops without it")
        try:
            await self._deregister()
        except StoreUnavailable:
            self._log.warning("Postgres is away; what was in flight is taken over when the lease runs out")
        for part in (self._receipts, self._finisher, self._tail):
            await part.close()
        await self._forwarder.close()
        await self.spool.close()
        await self.database.close()
        await asyncio.to_thread(self._tracing.close)

    async def _deregister(self) -> None:
        async with self.database.connection(_GOODBYE_S) as connection:
            handed_back = await deliveries.hand_back(connection, self.instance.id)
            await slots.leave(connection, self.instance.id)
            await replay_work.release_plans(connection, self.instance.id)
            await instances.leave_duties(connection, self.instance.id)
            await instances.end(connection, self.instance.id)
            await facts.record(connection, self.rejections.take(is_last=True))
            await log.append(connection, self.instance.id, self._sink.take_tail(log_tail.BATCH))
        if handed_back:
            self._log.warning("Deliveries handed back, any relay may claim them", deliveries=handed_back)

    async def _run(self) -> None:
        loop = ServiceLoop(self._log, strict=self._checks)
        watching = asyncio.create_task(self._watch_start(), name="alerts before the start")
        try:
            await loop.until_success("start", self._migrate_and_register)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        async with asyncio.TaskGroup() as group:
            for committer in (self._receipts, self._finisher):
                group.create_task(committer.run())
            self.pipeline.open()
            for service in self._services():
                group.create_task(loop.run(service), name=service.name)

    async def _watch_start(self) -> None:
        """Raise the alert that Postgres is away also while it has not been there yet."""
        while True:
            await self._alerts.run_before_start()
            await asyncio.sleep(self._alerts.interval_s)

    async def _migrate_and_register(self) -> None:
        await migrate(self._dsn)
        if self._checks:
            await self._facts_check.at_start()
        async with self.database.connection() as connection:
            if not self._demo:
                await self._exclude_invented(connection)
            await self._name_database(connection)
            self.pipeline.gate.refresh(await gate.read(connection, self.instance.id))  # nothing is claimed before
            found, known = await schema_version(connection), migrations()[-1].version
        if found > known:
            self._log.warning("The schema was made by a newer relay; this one works with it", schema=found, known=known)
        await self._heartbeat.register()

    async def _name_database(self, connection: Connection) -> None:
        """Let the spool know which database this is, so that it drains into no other."""
        if not self.spool.is_on:
            return
        try:
            await self.spool.name_target(await spools.database_name(connection))
        except SpoolError as error:
            self._log.warning("The spool cannot be used", reason=str(error))

    async def _exclude_invented(self, connection: Connection) -> None:
        """See that nothing that a demo invented is there to be forwarded, before the first delivery is claimed.

        Raises:
            SchemaError: the database is a demo's.
        """
        if await demo_history.is_demo(connection):
            raise SchemaError(demo_history.REFUSAL)
        if not self._checks:  # the worker that this one replaces has done the rest
            return
        discarded = await demo_history.discard_left_by_demo(
            connection,
            documented=[documented_payload(event) for event in DEMO_EVENTS],
            conversations=DEMO_CONVERSATIONS,
            customers=DEMO_CUSTOMERS,
        )
        if discarded:
            self._log.warning(
                "Undelivered webhooks of an earlier version's demo were discarded: they are invented",
                deliveries=discarded,
            )
