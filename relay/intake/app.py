"""The HTTP surface of one relay process: the webhook route, and Quart's routes for everything else (DESIGN, 2)."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
from quart import Quart, Response, request
from werkzeug.exceptions import HTTPException

from relay import __version__
from relay.domain.delivery import WaitReason
from relay.domain.targets import Target
from relay.errors import StatementRefused, StoreUnavailable
from relay.intake.webhook import WebhookRoute
from relay.store import aside, backlog, facts, instances, overview
from relay.store.failures import webhooks_refused
from relay.store.refusal import explain
from relay.telemetry.gauges import Gauge, gauges_of, spool_gauges
from relay.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quart.wrappers import BaseRequestWebsocket
    from werkzeug.routing import MapAdapter

    from relay.errors import FactsRefused
    from relay.intake.context import IntakeContext
    from relay.store.aside import Waiting as FactsWaiting
    from relay.store.backlog import BacklogState

_HEALTH_TIMEOUT_S = 2


class _App(Quart):
    """Routes by path and method alone: the relay is meant, whatever host a sender names."""

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        if request is None:
            return None
        return self.url_map.bind("relay", path_info=request.path, default_method=request.method)


def create_app(context: IntakeContext) -> Quart:
    """The relay's ASGI application, over a `context` whose parts its caller starts and stops.

    `/metrics` is left out where it has an address of its own, which need not be as public (`create_metrics_app`).
    """
    app = _new_app(context)
    app.asgi_app = WebhookRoute(context, app.asgi_app)  # type: ignore[method-assign] # as Quart documents it
    if context.settings.relay_metrics_bind is None:
        _add_metrics(app, context)
    return app


def create_metrics_app(context: IntakeContext) -> Quart:
    """What is served on `RELAY_METRICS_BIND`: metrics and health, no webhooks."""
    app = _new_app(context)
    _add_metrics(app, context)
    return app


def _add_metrics(app: Quart, context: IntakeContext) -> None:
    @app.get("/metrics")
    async def metrics() -> Response:
        return await _metrics(context)


def _new_app(context: IntakeContext) -> Quart:
    """An application with the health checks (DESIGN, 2)."""
    app = _App("relay", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 0  # no route of Quart's reads a body
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # a wrong method like any other (DESIGN, 2)
    app.url_map.merge_slashes = False  # another path like any other, and no redirect

    @app.get("/health")
    @app.get("/health/ready")
    async def health() -> Response:
        return await _health(context)

    @app.get("/health/live")
    async def live() -> Response:
        return _answer(200, {"status": "ok", "version": __version__})

    @app.errorhandler(HTTPException)
    async def refused(error: HTTPException) -> Response:
        _count_wrong_address(context, error.code, request.method, request.path)
        allowed = getattr(error, "valid_methods", None)
        headers = {"Allow": ", ".join(sorted(allowed))} if allowed else {}
        return _answer(error.code or 500, {"error": error.name}, headers)

    @app.errorhandler(Exception)
    async def failed(error: Exception) -> Response:
        app.logger.error("A request failed by a defect: %s", type(error).__name__, exc_info=error)
        return _answer(500, {"error": "Internal error"})

    return app


def _count_wrong_address(context: IntakeContext, status: int | None, method: str, path: str) -> None:
    """Count a request to a path or with a method that the relay does not have (DESIGN, 2).

    A POST to a path that names webhooks or Chatwoot was meant for the relay, and is lost.
    """
    if status == 404:
        meant = method == "POST" and any(word in path.lower() for word in ("webhook", "chatwoot"))
        context.rejections.add("wrong_path" if meant else "unknown_path", status)
    elif status == 405:
        context.rejections.add("wrong_method", status)


def _answer(status: int, body: Mapping[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status=status, headers=headers, content_type="application/json")


async def _health(context: IntakeContext) -> Response:
    """200 while webhooks can be taken and stored; agent and Chatwoot as they were last probed."""
    database: dict[str, Any] = {"ok": False}
    probed: dict[str, Any] = {}
    recorded: dict[str, Any] | None = None
    waits: dict[str, Any] | None = None
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_HEALTH_TIMEOUT_S), context.database.connection() as connection:
            writable = await instances.can_write(connection)
            database = {"ok": writable, "latency_ms": round((time.perf_counter() - began) * 1000, 1)}
            if not writable:
                database["error"] = "Postgres is read-only"
            recorded = _facts(await aside.waiting(connection), context.facts_check.fault)
            waits = _waits(await backlog.read(connection))
            probed = {
                health.target: {
                    "ok": health.ok,
                    "status": health.status,
                    "error": health.error,
                    "latency_ms": health.latency_ms,
                    "checked_at": rfc3339(health.at),
                }
                for health in await facts.last_health(connection)
            }
    except (StoreUnavailable, TimeoutError) as error:
        if isinstance(error, StatementRefused):
            database["error"] = str(error)
        elif not database["ok"]:
            why = context.database.failure
            database["error"] = "Postgres is away" if why is None else f"Postgres is away: {why}"
    except psycopg.ProgrammingError:
        if not database["ok"] or recorded is None:  # else only dashboard_facts cannot be read: webhooks are stored
            database = {"ok": False, "error": "Postgres has no tables that this relay may use, or not yet"}
    if database["ok"] and context.pipeline.is_accepting and (fault := await context.store_probe.fault()) is not None:
        database |= {"ok": False, "error": webhooks_refused(fault)}
    stores = database["ok"] and context.pipeline.is_accepting
    spool = await _spool(context, probe=not stores)
    spools = spool is not None and spool["ok"] and not context.pipeline.is_stopping
    ok = stores or spools
    body = {
        "status": "ok" if stores else "spooling" if spools else "unavailable",
        "version": __version__,
        "database": database,
        "spool": spool,
        "storing": _storing(context, database),
        "facts": recorded,
        **{target.value: probed.get(target) for target in Target},
        "in_flight": context.pipeline.in_flight,
        "backlog": waits,
        "signed": context.instance.signed,
    }
    if context.outage.since is not None:
        body["outage"] = {"since": rfc3339(context.outage.since), "refused": context.outage.lost}
    return _answer(200 if ok else 503, body, {} if ok else {"Retry-After": "5"})


async def _spool(context: IntakeContext, *, probe: bool) -> dict[str, Any] | None:
    """What the spool holds and whether it takes more; None if it is off. `probe` finds out by writing to the disk."""
    if not context.spool.is_on:
        return None
    state = context.spool.state
    try:
        async with asyncio.timeout(_HEALTH_TIMEOUT_S):
            state = await context.spool.refresh(probe=probe)
    except TimeoutError:
        state = replace(state, error="The spool's disk does not answer")
    return {
        "ok": state.can_store,
        "receipts": state.receipts,
        "bytes": state.bytes,
        "max_bytes": state.max_bytes,
        "oldest_at": None if state.oldest_at is None else rfc3339(state.oldest_at),
        "refused": state.refused,
        "foreign": state.foreign,
        "damaged_files": list(state.aside),
        "error": state.error,
    }


def _storing(context: IntakeContext, database: Mapping[str, Any]) -> dict[str, Any]:
    """Whether webhooks are stored, and how many this worker answered 503 in the last five minutes, with the reason."""
    recent = context.pipeline.store_faults.recent
    if recent is None:
        return {"ok": database["ok"], "not_stored": 0}
    return {"ok": False, "not_stored": recent.count, "reason": recent.reason}


def _waits(state: BacklogState) -> dict[str, Any]:
    """What waits, by reason, and whether forwarding is held or the breaker open."""
    return {
        "size": state.size,
        "waiting": state.waiting,
        "by_reason": {reason.value: state.by_reason.get(reason, 0) for reason in WaitReason},
        "oldest_s": state.oldest_s,
        "drain_per_s": state.drain_per_s,
        "empty_in_s": state.empty_in_s,
        "held": state.hold is not None,
        "breaker_open": state.breaker is not None,
    }


def _facts(waiting: FactsWaiting | None, fault: FactsRefused | None) -> dict[str, Any]:
    """Whether `dashboard_facts` takes what the relay records; if not, why, and what to do."""
    if fault is not None:
        return {
            "ok": False, "aside": 0 if waiting is None else waiting.facts, "reason": fault.reason,
            "remedy": fault.remedy,
        }  # fmt: skip
    if waiting is None:
        return {"ok": True, "aside": 0}
    reason, remedy = explain(waiting.reason)
    return {"ok": False, "aside": waiting.facts, "reason": reason, "remedy": remedy}


async def _metrics(context: IntakeContext) -> Response:
    """Prometheus text: this relay's workers' counts, and the gauges that all relays share."""
    from relay.telemetry.exposition import exposition  # noqa: PLC0415 - a relay that is not scraped needs no client

    gauges = [
        Gauge("relay_in_flight", context.pipeline.in_flight, "Deliveries that this worker forwards now"),
        Gauge("relay_in_flight_limit", context.settings.relay_max_in_flight, "The most that a worker forwards at once"),
    ]
    if context.spool.is_on:
        gauges += spool_gauges(await context.spool.refresh())
    is_up = True
    try:
        async with asyncio.timeout(_HEALTH_TIMEOUT_S), context.database.connection() as connection:
            gauges += gauges_of(await overview.read(connection))
    except (StoreUnavailable, TimeoutError, psycopg.ProgrammingError):
        is_up = False
    gauges.append(Gauge("relay_database_up", float(is_up), "1 while Postgres answers"))
    text, content_type = exposition(context.counters, gauges, request.headers.get("Accept", ""))
    return Response(text, content_type=content_type)
