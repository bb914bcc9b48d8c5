"""The webhook route: a plain ASGI application in front of Quart's (DESIGN, 2). Decides answers; knows no SQL.

Nearly every request is a webhook, and dispatching one through Quart costs more than reading and checking it.

Refusals come in the order of what they cost: size and content coding while it streams in, the signature, then the
JSON.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.chatwoot.payload import BadBody, BodyFault
from relay.chatwoot.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, SignatureFault, explained, verify
from relay.domain.delivery import WaitReason
from relay.domain.headers import CONTENT_ENCODING, FORWARDED_FROM_HEADER, TEST_SENDER, first_header
from relay.domain.networks import client_address
from relay.errors import StoreUnavailable
from relay.forwarding.receipt_storage import STORE_PATIENCE_S
from relay.intake.asgi import Answer, SenderGone, WholeBody, body_parts
from relay.intake.encoding import TAKEN, CorruptBody, DecodedTooLarge, Decoder, UnsupportedEncoding, coding_of
from relay.intake.receipt import read_receipt
from relay.intake.rejections import SENDER
from relay.settings import WEBHOOK_PATH
from relay.store.deliveries import Duplicate, Ignored, Spooled, Waiting
from relay.store.failures import NOT_IN_TIME
from relay.telemetry.tracing import now

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

    from relay.domain.delivery import Headers, Outcome, Receipt
    from relay.forwarding.senders import Ticket
    from relay.intake.body_budget import BodyShare
    from relay.intake.context import IntakeContext
    from relay.store.deliveries import Stored

BODY_TIMEOUT_S = 20
"""How long a body may take to stream in. Chatwoot itself gives up after five seconds."""

_DURABLE_WITHIN_S = STORE_PATIENCE_S + 1
"""How long a sender waits, past a shorter deadline of its own, until Postgres or the spool has the webhook."""

_STOPPED_S = 0.5
"""A process that wakes so much after a deadline was stopped (SIGSTOP, a machine that was paused)."""

_log = logging.getLogger(__name__)


class BodyTooLarge(Exception):
    """A body is larger than `CHATWOOT_WEBHOOK_MAX_BODY_BYTES`."""


_PATHS = frozenset({WEBHOOK_PATH, WEBHOOK_PATH + "/"})
"""Chatwoot may be configured with a trailing slash (CONTRACT, 1)."""


class WebhookRoute:
    """Answers requests for `WEBHOOK_PATH`, and passes all others to `app`."""

    def __init__(self, context: IntakeContext, app: ASGIFramework) -> None:
        self._context = context
        self._app = app

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        SENDER.set(_sender(self._context, scope, headers))
        if scope["path"] not in _PATHS:
            await self._app(scope, receive, send)
            return
        if scope["method"] != "POST":
            self._context.rejections.add("wrong_method", 405)
            await Answer(405, {"error": "Method Not Allowed"}, {"allow": "POST"}).send(send)
            return
        try:
            answer = await _answer(self._context, headers, receive)
        except Exception as error:  # noqa: BLE001 - a defect costs one answer, not the connection
            _log.error("A request failed by a defect: %s", type(error).__name__, exc_info=error)
            answer = Answer(500, {"error": "Internal error"})
        await answer.send(send)


async def _answer(context: IntakeContext, headers: Headers, receive: ASGIReceiveCallable) -> Answer:
    began_at = now()
    try:
        if isinstance(receive, WholeBody) and first_header(headers, CONTENT_ENCODING) is None:
            body = _whole(context, receive.body)
        else:
            async with asyncio.timeout(BODY_TIMEOUT_S) as patience:
                body = await _read_body(context, headers, receive, patience)
    except SenderGone:
        return Answer(400, {"error": "The body is not whole"})
    except (BodyTooLarge, DecodedTooLarge):
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
            fault = explained(verified, secrets, *signed, body.decoded)
            return _refuse(context, 401, fault, "Invalid signature", test=_is_test(headers))
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
    answer = await _carry(context, receipt)
    known = answer.content
    context.tracing.received(
        str(known.get("delivery_id", receipt.delivery_id)), receipt.headers, began_at, status=answer.status,
        event=receipt.event, bytes=len(receipt.body), client=SENDER.get(), test=receipt.test or None,
        duplicate=known.get("duplicate"), waiting=known.get("waiting"), spooled=known.get("spooled"),
    )  # fmt: skip
    return answer


def _sender(context: IntakeContext, scope: Any, headers: Headers) -> str | None:
    """The address that a request came from, behind the proxies that are trusted."""
    peer = scope.get("client")
    claims = [value for name, value in headers if name == "x-forwarded-for"]
    return client_address(peer[0] if peer else None, claims, context.settings.trusted_proxies)


@dataclass(frozen=True, slots=True)
class _Body:
    """A body without its content coding, and as it came (None: it had none)."""

    decoded: bytes
    encoded: bytes | None

    @property
    def forms(self) -> tuple[bytes, ...]:
        """What may have been signed: a sender signs what it sends, or a proxy compresses what was signed."""
        return (self.decoded,) if self.encoded is None else (self.encoded, self.decoded)


def _whole(context: IntakeContext, body: bytes) -> _Body:
    """A body that is in memory already, without a content coding.

    Raises:
        BodyTooLarge: it is larger than may be.
    """
    if len(body) > context.settings.chatwoot_webhook_max_body_bytes:
        raise BodyTooLarge
    return _Body(body, None)


async def _read_body(
    context: IntakeContext, headers: Headers, receive: ASGIReceiveCallable, patience: asyncio.Timeout
) -> _Body:
    """The body as it streams in, decoded meanwhile. While it waits for room in memory, `patience` is paused.

    Raises:
        SenderGone: its sender hung up.
        BodyTooLarge: it is larger than may be.
        DecodedTooLarge: without its content coding it is larger than may be.
        UnsupportedEncoding: it has a content coding that is not taken; it has been read to its end.
        CorruptBody: it is not a stream of its content coding; it has been read to its end.
    """
    limit, body = context.settings.chatwoot_webhook_max_body_bytes, bytearray()
    if int(first_header(headers, "content-length") or 0) > limit:
        raise BodyTooLarge
    decoder: Decoder | None = None
    fault: UnsupportedEncoding | CorruptBody | None = None
    try:
        coding = coding_of([value for name, value in headers if name == CONTENT_ENCODING])
        decoder = None if coding is None else Decoder(coding, limit)
    except UnsupportedEncoding as error:
        fault = error
    with context.body_budget.one() as share:
        async for part in body_parts(receive):
            body += part
            if len(body) > limit:
                raise BodyTooLarge
            await _reserve(share, len(body) + (0 if decoder is None else len(decoder.body)), patience)
            if decoder is not None and fault is None:
                try:
                    for _ in decoder.feed(part):
                        await _reserve(share, len(body) + len(decoder.body), patience)
                        await asyncio.sleep(0)
                except CorruptBody as error:
                    fault = error
        if fault is not None:
            raise fault
        if decoder is None:
            return _Body(bytes(body), None)
        decoder.close()
        return _Body(bytes(decoder.body), bytes(body))


async def _reserve(share: BodyShare, size: int, patience: asyncio.Timeout) -> None:
    """Count a body that has reached `size` bytes. Without room for it, its sender has to wait: nothing more is read."""
    if share.take(size):
        return
    loop, ends_at = asyncio.get_running_loop(), patience.when()
    left_s = BODY_TIMEOUT_S if ends_at is None else ends_at - loop.time()
    patience.reschedule(None)
    await share.wait(size)
    patience.reschedule(loop.time() + left_s)


async def _carry(context: IntakeContext, receipt: Receipt) -> Answer:
    """Put a good webhook on its way and answer as far as it has got when the sender must be answered.

    Deadlines count from here: the sender waits for its answer once it has sent the body, however slowly it did that.
    """
    settings, began = context.settings, time.monotonic()
    deadline = began + settings.chatwoot_webhook_response_deadline_ms / 1000
    try:
        ticket = context.pipeline.accept(receipt)
        respond_when = ticket.finished if settings.relay_respond == "forwarded" else ticket.stored
        try:
            await _wait(respond_when, deadline)
            await _wait_awake(ticket.stored, began + _DURABLE_WITHIN_S)
        finally:
            context.pipeline.senders.forget(ticket)
        stored = _stored(ticket)
    except StoreUnavailable as error:
        context.counters.unavailable += 1
        context.rejections.add("not_stored", 503)
        return Answer(503, {"error": str(error)}, {"Retry-After": "5"})
    if isinstance(stored, Duplicate):
        known = {"success": True, "duplicate": True, "delivery_id": stored.delivery_id, "state": stored.state}
        return Answer(200, known)
    if isinstance(stored, Ignored):
        return Answer(200, {"success": True, "ignored": True, "delivery_id": stored.delivery_id})
    context.counters.received += 1
    if isinstance(stored, Spooled):
        return Answer(202, {"accepted": True, "spooled": True, "delivery_id": stored.delivery_id})
    delivery_id = stored.delivery_id if isinstance(stored, Waiting) else stored.delivery.delivery_id
    accepted = {"accepted": True, "delivery_id": delivery_id}
    result = ticket.finished.result() if ticket.finished.done() else None
    if isinstance(result, WaitReason):
        return Answer(202, accepted | {"waiting": result})
    if result is not None and respond_when is ticket.finished:
        return _outcome(delivery_id, result)
    return Answer(202, accepted)


def _stored(ticket: Ticket) -> Stored:
    """What the store said.

    Raises:
        StoreUnavailable: it could not take the webhook, or has not said so in time.
    """
    if not ticket.stored.done():
        raise StoreUnavailable(NOT_IN_TIME)
    return ticket.stored.result()


async def _wait(future: asyncio.Future[Any], deadline: float) -> None:
    """Until `future` is done or `deadline` (`time.monotonic()`) has come. Never cancels it."""
    if not future.done():
        await asyncio.wait((future,), timeout=max(0.0, deadline - time.monotonic()))


async def _wait_awake(future: asyncio.Future[Any], deadline: float) -> None:
    """As `_wait`, and as long again if the process was stopped when the deadline came: nothing was done until then."""
    await _wait(future, deadline)
    if time.monotonic() > deadline + _STOPPED_S:
        await _wait(future, time.monotonic() + _DURABLE_WITHIN_S)


def _outcome(delivery_id: str, outcome: Outcome) -> Answer:
    common = {
        "delivery_id": delivery_id,
        "attempts": outcome.count,
        "duration_ms": outcome.duration_ms,
    }
    last = outcome.last
    if outcome.success:
        processed = {"success": True, "processed": True, **common, "agent_status": last.agent_status}
        return Answer(200, processed)
    failed = {
        "error": "Webhook processing failed",
        "message": last.error,
        **common,
        "retryable": last.retryable,
    }
    return Answer(500, failed)


def _is_test(headers: Headers) -> bool:
    return (first_header(headers, FORWARDED_FROM_HEADER) or "").strip().lower() == TEST_SENDER


def _refuse(
    context: IntakeContext,
    status: int,
    reason: str,
    message: str,
    headers: dict[str, str] | None = None,
    *,
    test: bool = False,
) -> Answer:
    context.rejections.add(reason, status, test=test)
    return Answer(status, {"error": message}, headers or {})


def _refuse_body(context: IntakeContext, headers: Headers, error: BadBody) -> Answer:
    if context.settings.secrets and first_header(headers, FORWARDED_FROM_HEADER) == TEST_SENDER:
        return Answer(400, {"error": str(error)})  # a diagnosis tries the secrets with a body that is no webhook
    return _refuse(context, 400, error.fault, str(error))
