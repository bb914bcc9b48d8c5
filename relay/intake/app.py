"""The HTTP surface: Quart's routes over the pipeline (DESIGN, 2). Decides answers; knows no SQL.

Refusals come in the order of what they cost: size and content coding while it streams in, the signature, then the
JSON.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import psycopg
from quart import Quart, Request, Response, request
from quart.sessions import NullSession, SessionInterface
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from relay import __version__
from relay.chatwoot.payload import BadBody, BodyFault
from relay.chatwoot.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, SignatureFault, explained, verify
from relay.domain.delivery import WaitReason
from relay.domain.headers import CONTENT_ENCODING, FORWARDED_FROM_HEADER, TEST_SENDER, first_header
from relay.domain.targets import Target
from relay.errors import Overloaded, StatementRefused, StoreUnavailable
from relay.intake.asgi import HttpConnection, IncomingRequest, SenderGone
from relay.intake.encoding import TAKEN, CorruptBody, DecodedTooLarge, Decoder, UnsupportedEncoding, coding_of
from relay.intake.receipt import read_receipt
from relay.settings import WEBHOOK_PATH
from relay.store import aside, backlog, facts, instances, overview
from relay.store.deliveries import Duplicate, Ignored, Waiting
from relay.store.refusal import explain
from relay.telemetry.gauges import Gauge, gauges_of
from relay.telemetry.metrics import exposition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from quart.wrappers import BaseRequestWebsocket
    from werkzeug.routing import MapAdapter

    from relay.domain.delivery import Headers, Outcome, Receipt
    from relay.forwarding.pipeline import Ticket
    from relay.intake.context import IntakeContext
    from relay.store.aside import Waiting as FactsWaiting
    from relay.store.backlog import BacklogState
    from relay.store.deliveries import Claimed

BODY_TIMEOUT_S = 20
"""How long a body may take to stream in. Chatwoot itself gives up after five seconds."""

_HEALTH_TIMEOUT_S = 2


class _NoSessions(SessionInterface):
    """Webhooks come without sessions; Quart's own would look for a cookie in every one."""

    async def open_session(self, _app: Quart, _request: BaseRequestWebsocket) -> NullSession:
        return NullSession()

    async def save_session(self, *_: object) -> None:
        """There is nothing to save."""


class _App(Quart):
    """Routes by path and method alone: the relay is meant, whatever host a sender names."""

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        if request is None:
            return None
        return self.url_map.bind("relay", path_info=request.path, default_method=request.method)


def create_app(context: IntakeContext) -> Quart:
    """The relay's ASGI application, over a `context` whose parts its caller starts and stops."""
    app = _App("relay", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = context.settings.chatwoot_webhook_max_body_bytes
    app.config["BODY_TIMEOUT"] = None  # watched where the body is read, without a task of its own
    app.config["RESPONSE_TIMEOUT"] = None  # answers fit into a socket's buffer
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # a wrong method like any other (DESIGN, 2)
    app.url_map.merge_slashes = False  # another path like any other, and no redirect
    app.asgi_http_class, app.request_class = HttpConnection, IncomingRequest
    app.session_interface = _NoSessions()  # type: ignore[assignment] # typed narrower than documented

    @app.post(WEBHOOK_PATH)
    @app.post(WEBHOOK_PATH + "/")
    async def webhook() -> Response:
        return await _webhook(context, cast("IncomingRequest", request))

    @app.get("/health")
    async def health() -> Response:
        return await _health(context)

    @app.get("/metrics")
    async def metrics() -> Response:
        return await _metrics(context)

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


async def _webhook(context: IntakeContext, http: IncomingRequest) -> Response:
    began = time.monotonic()
    headers: Headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in _raw_headers(http))
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await _read_body(context, http, headers)
    except SenderGone:
        return _answer(400, {"error": "The body is not whole"})
    except Overloaded as error:
        return _overloaded(context, error)
    except (RequestEntityTooLarge, DecodedTooLarge):
        limit = context.settings.chatwoot_webhook_max_body_bytes
        return _refuse(context, 413, "body_too_large", f"The body is larger than {limit} bytes")
    except UnsupportedEncoding as error:
        message = f"Content-Encoding {str(error)[:100]!r} is not supported; supported are {TAKEN}"
        return _refuse(context, 415, "unsupported_encoding", message, {"Accept-Encoding": TAKEN})
    except CorruptBody:
        return _refuse_body(context, headers, BadBody(BodyFault.CORRUPT))
    except TimeoutError:
        return _refuse(context, 408, "body_too_slow", f"The body did not arrive within {BODY_TIMEOUT_S} s")
    secrets, signature = context.settings.secrets, None
    if secrets:
        signed = first_header(headers, TIMESTAMP_HEADER), first_header(headers, SIGNATURE_HEADER)
        verified = verify(secrets, *signed, body.forms, now=time.time())
        if isinstance(verified, SignatureFault):
            return _refuse(context, 401, explained(verified, secrets, *signed, body.decoded), "Invalid signature")
        signature = verified
    try:
        receipt = read_receipt(
            headers,
            body.decoded,
            context.settings.forwarded_events,
            encoded_body=body.encoded,
            signature=signature,
            own_account=context.settings.chatwoot_account_id,
        )
    except BadBody as error:
        return _refuse_body(context, headers, error)
    return await _carry(context, receipt, began)


@dataclass(frozen=True, slots=True)
class _Body:
    """A body without its content coding, and as it came (None: it had none)."""

    decoded: bytes
    encoded: bytes | None

    @property
    def forms(self) -> tuple[bytes, ...]:
        """What may have been signed: a sender signs what it sends, or a proxy compresses what was signed."""
        return (self.decoded,) if self.encoded is None else (self.encoded, self.decoded)


async def _read_body(context: IntakeContext, http: IncomingRequest, headers: Headers) -> _Body:
    """The body as it streams in, decoded meanwhile.

    Raises:
        SenderGone: its sender hung up.
        RequestEntityTooLarge: it is larger than may be.
        DecodedTooLarge: without its content coding it is larger than may be.
        UnsupportedEncoding: it has a content coding that is not taken; it has been read to its end.
        CorruptBody: it is not a stream of its content coding; it has been read to its end.
        Overloaded: large bodies that are still coming in have all the room there is for them.
    """
    limit, body = context.settings.chatwoot_webhook_max_body_bytes, bytearray()
    if (http.content_length or 0) > limit:
        raise RequestEntityTooLarge
    decoder: Decoder | None = None
    fault: UnsupportedEncoding | CorruptBody | None = None
    try:
        coding = coding_of([value for name, value in headers if name == CONTENT_ENCODING])
        decoder = None if coding is None else Decoder(coding, limit)
    except UnsupportedEncoding as error:
        fault = error
    with context.body_budget.one() as reached:
        async for part in http.parts():
            body += part
            if len(body) > limit:
                raise RequestEntityTooLarge
            reached(len(body) + (0 if decoder is None else len(decoder.body)))
            if decoder is not None and fault is None:
                try:
                    for _ in decoder.feed(part):
                        reached(len(body) + len(decoder.body))
                        await asyncio.sleep(0)
                except CorruptBody as error:
                    fault = error
        if fault is not None:
            raise fault
        if decoder is None:
            return _Body(bytes(body), None)
        decoder.close()
        return _Body(bytes(decoder.body), bytes(body))


def _raw_headers(http: Request) -> Iterable[tuple[bytes, bytes]]:
    """The headers as they came, names in lower case (ASGI)."""
    headers: Iterable[tuple[bytes, bytes]] = http.scope["headers"]
    return headers


async def _carry(context: IntakeContext, receipt: Receipt, began: float) -> Response:
    """Put a good webhook on its way and answer as far as it has got when the sender must be answered."""
    settings = context.settings
    deadline = began + settings.chatwoot_webhook_response_deadline_ms / 1000
    try:
        ticket = context.pipeline.accept(receipt)
        respond_when = ticket.finished if settings.relay_respond == "forwarded" else ticket.stored
        try:
            await _wait(respond_when, deadline)
        finally:
            context.pipeline.forget(ticket)
        stored = _stored(ticket)
    except StoreUnavailable as error:
        context.counters.unavailable += 1
        return _answer(503, {"error": str(error)}, {"Retry-After": "5"})
    if isinstance(stored, Duplicate):
        known = {"success": True, "duplicate": True, "delivery_id": stored.delivery_id, "state": stored.state}
        return _answer(200, known)
    if isinstance(stored, Ignored):
        return _answer(200, {"success": True, "ignored": True, "delivery_id": stored.delivery_id})
    context.counters.received += 1
    delivery_id = stored.delivery_id if isinstance(stored, Waiting) else stored.delivery.delivery_id
    accepted = {"accepted": True, "delivery_id": delivery_id}
    result = ticket.finished.result() if ticket.finished.done() else None
    if isinstance(result, WaitReason):
        return _answer(202, accepted | {"waiting": result})
    if result is not None and respond_when is ticket.finished:
        return _outcome(delivery_id, result)
    return _answer(202, accepted)


def _stored(ticket: Ticket) -> Claimed | Waiting | Duplicate | Ignored:
    """What the store said.

    Raises:
        StoreUnavailable: it could not take the webhook, or has not said so in time.
    """
    if not ticket.stored.done():
        raise StoreUnavailable("Postgres did not answer in time")
    return ticket.stored.result()


async def _wait(future: asyncio.Future[Any], deadline: float) -> None:
    """Until `future` is done or `deadline` (`time.monotonic()`) has come. Never cancels it."""
    if not future.done():
        await asyncio.wait((future,), timeout=max(0.0, deadline - time.monotonic()))


def _outcome(delivery_id: str, outcome: Outcome) -> Response:
    common = {
        "delivery_id": delivery_id,
        "attempts": outcome.count,
        "duration_ms": outcome.duration_ms,
    }
    last = outcome.last
    if outcome.success:
        processed = {"success": True, "processed": True, **common, "agent_status": last.agent_status}
        return _answer(200, processed)
    failed = {
        "error": "Webhook processing failed",
        "message": last.error,
        **common,
        "retryable": last.retryable,
    }
    return _answer(500, failed)


def _overloaded(context: IntakeContext, error: Overloaded) -> Response:
    context.counters.overloaded += 1
    return _answer(503, {"error": str(error)}, {"Retry-After": "1"})


def _refuse(
    context: IntakeContext, status: int, reason: str, message: str, headers: dict[str, str] | None = None
) -> Response:
    context.rejections.add(reason, status)
    return _answer(status, {"error": message}, headers)


def _refuse_body(context: IntakeContext, headers: Headers, error: BadBody) -> Response:
    if context.settings.secrets and first_header(headers, FORWARDED_FROM_HEADER) == TEST_SENDER:
        return _answer(400, {"error": str(error)})  # a diagnosis tries the secrets with a body that is no webhook
    return _refuse(context, 400, error.fault, str(error))


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
            recorded = _facts(await aside.waiting(connection))
            waits = _waits(await backlog.read(connection))
            probed = {
                health.target: {
                    "ok": health.ok,
                    "status": health.status,
                    "error": health.error,
                    "latency_ms": health.latency_ms,
                    "checked_at": health.at.isoformat(),
                }
                for health in await facts.last_health(connection)
            }
    except (StoreUnavailable, TimeoutError) as error:
        if isinstance(error, StatementRefused):
            database["error"] = str(error)
        elif not database["ok"]:
            database["error"] = "Postgres is away"
    except psycopg.ProgrammingError:
        if not database["ok"] or recorded is None:  # else only dashboard_facts cannot be read: webhooks are stored
            database = {"ok": False, "error": "Postgres has no tables that this relay may use, or not yet"}
    ok = database["ok"] and context.pipeline.is_accepting
    body = {
        "status": "ok" if ok else "unavailable",
        "version": __version__,
        "database": database,
        "facts": recorded,
        **{target.value: probed.get(target) for target in Target},
        "in_flight": context.pipeline.in_flight,
        "backlog": waits,
        "signed": context.instance.signed,
    }
    return _answer(200 if ok else 503, body, {} if ok else {"Retry-After": "5"})


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


def _facts(waiting: FactsWaiting | None) -> dict[str, Any]:
    """Whether `dashboard_facts` takes what the relay records; if not, why, and what to do."""
    if waiting is None:
        return {"ok": True, "aside": 0}
    reason, remedy = explain(waiting.reason)
    return {"ok": False, "aside": waiting.facts, "reason": reason, "remedy": remedy}


async def _metrics(context: IntakeContext) -> Response:
    """Prometheus text: this relay's workers' counts, and the gauges that all relays share."""
    workers: dict[int, Mapping[str, Any]] = {context.instance.slot: context.counters.as_dict()}
    gauges = [
        Gauge("relay_in_flight", context.pipeline.in_flight, "Deliveries that this worker forwards now"),
        Gauge("relay_in_flight_limit", context.settings.relay_max_in_flight, "The most that a worker forwards at once"),
    ]
    is_up = True
    try:
        async with asyncio.timeout(_HEALTH_TIMEOUT_S), context.database.connection() as connection:
            workers |= await instances.siblings_counters(connection, context.instance)
            gauges += gauges_of(await overview.read(connection))
    except (StoreUnavailable, TimeoutError, psycopg.ProgrammingError):
        is_up = False
    gauges.append(Gauge("relay_database_up", float(is_up), "1 while Postgres answers"))
    return Response(exposition(workers, gauges), content_type="text/plain; version=0.0.4; charset=utf-8")
