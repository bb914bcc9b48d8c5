"""Running the relay: one worker in this process, or several under a supervisor that replaces the dead.

Every worker has a listening socket of its own on the one address (`SO_REUSEPORT`), so that the kernel spreads
connections over them. The supervisor holds the sockets as well: while a worker is being replaced, its new
connections wait instead of being refused.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import signal
import socket
import sys
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from relay.errors import SchemaError
from relay.intake.app import create_app, create_metrics_app
from relay.server.embedded_restart import supervised
from relay.server.http import serve_http
from relay.server.listener import bound_url, listen, raise_file_limit, run_loop, stop_on_signals, stop_signals
from relay.server.notify import READY, STOPPING, notify
from relay.server.pulse import PULSE_BYTES, StallWatch, beat
from relay.server.worker import Identity, Worker
from relay.settings import is_default_agent
from relay.telemetry.counts import PART_BYTES
from relay.telemetry.log_sink import RELAY_SCOPE, LogSink, capture_libraries
from relay.telemetry.tracing import NOT_INSTALLED, REMEDY, is_installed

if TYPE_CHECKING:
    from ctypes import Array, c_ubyte
    from multiprocessing.process import BaseProcess

    from relay.settings import Settings
    from relay.store.embedded import EmbeddedPostgres
    from relay.telemetry.log_sink import Format

STOP_WITHIN_S = 25
"""From SIGTERM to the end, whatever is in flight (DESIGN; the first seconds are the senders' answers)."""

REFUSED = 2
"""Exit status of a relay, or of one of its workers, whose database is not one that it can work on."""

_FILES_APART = 64
"""The open files of a worker without a delivery: libraries' own, Postgres, the spool, clients that wait."""

_ANSWER_S = 6
_SCRAPE_S = 3
_RESTART_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How to log: the form of the lines and the least level."""

    form: Format = "text"
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Sockets:
    """What one worker listens on. `metrics` is None where `RELAY_METRICS_BIND` is not set."""

    webhooks: socket.socket
    metrics: socket.socket | None = None

    def close(self) -> None:
        """Close both."""
        self.webhooks.close()
        if self.metrics is not None:
            self.metrics.close()


def _listen(settings: Settings) -> list[Sockets]:
    """The sockets of each worker.

    Raises:
        ConfigurationError: an address cannot be bound.
    """
    webhooks = listen(settings.relay_bind, settings.relay_workers)
    if settings.relay_metrics_bind is None:
        return [Sockets(bound) for bound in webhooks]
    metrics = listen(settings.relay_metrics_bind, settings.relay_workers, variable="RELAY_METRICS_BIND")
    return [Sockets(*bound) for bound in zip(webhooks, metrics, strict=True)]


def relay_name(bound: socket.socket) -> str:
    """What one relay at a time can be called: host, boot of its kernel, network namespace and bound address.

    The first relay with the name of another ends that one's leases, so two machines must not share a name. Host names,
    machine ids and addresses are copied with an image; the boot id is random. Where there is none, the name is of this
    start alone, and leases of an earlier one expire.
    """
    host, port = bound.getsockname()[:2]
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        network = str(Path("/proc/self/ns/net").stat().st_ino)
    except (OSError, ValueError):
        boot, network = str(uuid4()), "-"
    return f"{socket.gethostname()}/{boot}/{network}/{host}:{port}"


def settle_garbage_collection() -> None:
    """Leave what was made so far out of every later collection, and collect less often. For a process that only serves.

    A delivery makes a few hundred short-lived objects, almost none of them in cycles; looking for cycles after
    every 700 of them cost an eighth of the relay's CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def serve_worker(
    settings: Settings,
    dsn: str,
    identity: Identity,
    sockets: Sockets,
    sink: LogSink,
    stop: asyncio.Event,
    *,
    checks: bool = True,
    demo: bool = False,
) -> None:
    """Serve on `sockets` until `stop` is set, then drain. Takes `STOP_WITHIN_S` from there at most.

    `checks` is False for a worker that replaces another: it does not refuse to start. `demo` is True for the relay of
    a demo, which alone may work on a demo's database.

    Raises:
        SchemaError: the database is not one that this version can work on.
        BaseException: whatever ended the services by a defect; the relay has drained and stopped.
    """
    worker = Worker(settings, dsn, identity, sink, checks=checks, demo=demo)
    await worker.start(stop.set)
    try:
        deadline_s = settings.chatwoot_webhook_response_deadline_ms / 1000
        async with asyncio.TaskGroup() as group:
            if sockets.metrics is not None:
                app = create_metrics_app(worker.intake)
                group.create_task(serve_http(app, sockets.metrics, stop, answer_s=_SCRAPE_S))
            app = create_app(worker.intake)
            answer_s = min(_ANSWER_S, deadline_s + 1)
            serving = serve_http(app, sockets.webhooks, stop, answer_s=answer_s, on_listening=lambda: notify(READY))
            group.create_task(serving)
    finally:
        await worker.stop()
    if worker.defect is not None:
        raise worker.defect


def announce(sink: LogSink, settings: Settings, bound: socket.socket, *, embedded: bool) -> None:
    """Say where the relay listens, what it forwards to, and whatever an operator should know at the start."""
    log = sink.logger(RELAY_SCOPE)
    log.info(
        "Relay is listening",
        url=bound_url(bound),
        agentEndpoint=settings.agent_endpoint_shown,
        workers=settings.relay_workers,
        database="embedded" if embedded else "DATABASE_URL",
    )
    if is_default_agent(settings.agent_endpoint):
        log.warning("AGENT_SDK_URL is the default: deliveries go there", agentEndpoint=settings.agent_endpoint_shown)
    if settings.otel_exporter_otlp_endpoint is not None and not is_installed():
        log.warning(NOT_INSTALLED, remedy=REMEDY)
    if not settings.secrets:
        log.warning("CHATWOOT_WEBHOOK_SECRET is not set: unsigned webhooks are accepted")


def warn_of_file_limit(sink: LogSink, settings: Settings, limit: int) -> None:
    """Say so if `limit` open files are too few for `RELAY_MAX_IN_FLIGHT` deliveries, with two sockets each."""
    needed = _FILES_APART + 2 * settings.relay_max_in_flight
    if limit < needed:
        sink.logger(RELAY_SCOPE).warning(
            "The limit of open files is too low for RELAY_MAX_IN_FLIGHT: webhooks may wait or be refused",
            limit=limit,
            needed=needed,
            remedy="raise it (ulimit -n, LimitNOFILE of systemd), or lower RELAY_MAX_IN_FLIGHT",
        )


def serve(settings: Settings, dsn: str, options: LogOptions, *, server: EmbeddedPostgres | None) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP. Returns the exit status. `server` is the embedded Postgres, if it is that.

    Raises:
        ConfigurationError: `RELAY_BIND` or `RELAY_METRICS_BIND` cannot be bound.
        SchemaError: the database is not one that this version can work on.
    """
    files = raise_file_limit()
    sockets = _listen(settings)
    first = sockets[0]
    name, boot = relay_name(first.webhooks), uuid4()
    sink = LogSink(options.form, level=options.level)
    capture_libraries(sink)
    announce(sink, settings, first.webhooks, embedded=server is not None)
    warn_of_file_limit(sink, settings, files)
    try:
        with supervised(server, sink.logger(RELAY_SCOPE)):
            if settings.relay_workers == 1:

                async def alone() -> None:
                    settle_garbage_collection()
                    await serve_worker(settings, dsn, Identity(name, boot), first, sink, stop_on_signals())

                run_loop(alone())
            else:
                _Supervisor(settings, dsn, name, boot, sockets, sink, options).run()
    finally:
        notify(STOPPING)
        sink.close()
    return 0


@dataclass(frozen=True, slots=True)
class _Shared:
    """Memory that all workers of a start share with the supervisor: their counts, and their signs of life."""

    counts: Array[c_ubyte]
    pulses: Array[c_ubyte]


class _Supervisor:
    """Keeps one worker process alive for each slot, until SIGTERM, SIGINT or SIGHUP."""

    def __init__(
        self,
        settings: Settings,
        dsn: str,
        name: str,
        boot: UUID,
        sockets: list[Sockets],
        sink: LogSink,
        options: LogOptions,
    ) -> None:
        self._settings = settings
        self._dsn = dsn
        self._name = name
        self._boot = boot
        self._sockets = sockets
        self._log = sink.logger(RELAY_SCOPE)
        self._options = options
        self._context = multiprocessing.get_context("spawn")
        self._lifeline, self._held = self._context.Pipe(duplex=False)
        self._refusals, self._refuse = self._context.Pipe(duplex=False)
        self._counts = self._context.RawArray("B", len(sockets) * PART_BYTES)
        self._pulses = self._context.RawArray("B", len(sockets) * PULSE_BYTES)
        self._stalls = StallWatch(memoryview(self._pulses).cast("B"))
        self._workers: dict[int, BaseProcess] = {}
        self._stopping = False

    def run(self) -> None:
        """Start every worker and replace those that end or stall, until a signal; then end them in order.

        Raises:
            SchemaError: a worker of the first start refuses the database.
        """
        for number in stop_signals():
            signal.signal(number, lambda *_: setattr(self, "_stopping", True))
        for slot in range(len(self._sockets)):
            self._start(slot, checks=True)
        refusal: str | None = None
        while not self._stopping and refusal is None:
            wait([worker.sentinel for worker in self._workers.values()], timeout=0.5)
            for slot, worker in list(self._workers.items()):
                if worker.exitcode == REFUSED and self._refusals.poll():
                    refusal = self._refusals.recv()
                    break
                self._replace_if_lost(slot, worker)
        self._end()
        if refusal is not None:
            raise SchemaError(refusal)

    def _replace_if_lost(self, slot: int, worker: BaseProcess) -> None:
        """Replace a worker that has ended or stalled: a stalled one holds connections and answers none."""
        if self._stopping:
            return
        if worker.is_alive():
            if not self._stalls.is_stalled(slot):
                return
            self._log.error("A worker does not respond and is replaced", worker=slot, pid=worker.pid)
            worker.kill()
            worker.join()
        else:
            how = "stopped" if worker.exitcode == 0 else "died"
            self._log.error(f"A worker {how} and is replaced", worker=slot, exitcode=worker.exitcode)
        time.sleep(_RESTART_PAUSE_S)
        try:
            self._start(slot, checks=False)
        except OSError as error:  # no memory, no process, no file descriptor: the next round tries again
            self._log.error("A worker cannot be started, will retry", worker=slot, error=error.strerror)

    def _start(self, slot: int, *, checks: bool) -> None:
        worker = self._context.Process(
            target=_worker,
            args=(
                self._settings,
                self._dsn,
                Identity(self._name, self._boot, slot),
                self._sockets[slot],
                _Shared(self._counts, self._pulses),
                self._options,
                self._lifeline,
                self._refuse if checks else None,
            ),
            name=f"relay worker {slot}",
        )
        worker.start()
        self._stalls.started(slot)
        self._workers[slot] = worker

    def _end(self) -> None:
        for sockets in self._sockets:
            sockets.close()
        for worker in self._workers.values():
            worker.terminate()
        deadline = time.monotonic() + STOP_WITHIN_S
        for worker in self._workers.values():
            worker.join(max(0.1, deadline - time.monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join()


def _worker(
    settings: Settings,
    dsn: str,
    identity: Identity,
    sockets: Sockets,
    shared: _Shared,
    options: LogOptions,
    lifeline: Connection,
    refuse: Connection | None,
) -> None:
    """A worker process. It stops on SIGTERM or SIGHUP, and when the supervisor at the lifeline's other end has died.

    With `refuse` it checks the database first: the reason why it cannot work on it goes there, and it exits with
    `REFUSED`.
    """
    raise_file_limit()
    sink = LogSink(options.form, level=options.level)
    capture_libraries(sink)
    identity = replace(identity, counts=memoryview(shared.counts).cast("B"))

    async def main() -> None:
        stop, loop = stop_on_signals(), asyncio.get_running_loop()

        def orphaned() -> None:
            loop.remove_reader(lifeline.fileno())
            stop.set()

        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor's to handle
        loop.add_reader(lifeline.fileno(), orphaned)
        beating = asyncio.create_task(beat(memoryview(shared.pulses).cast("B"), identity.slot))
        try:
            settle_garbage_collection()
            await serve_worker(settings, dsn, identity, sockets, sink, stop, checks=refuse is not None)
        finally:
            beating.cancel()

    try:
        run_loop(main())
    except SchemaError as error:
        assert refuse is not None
        refuse.send(str(error))
        sys.exit(REFUSED)
    finally:
        sink.close()
