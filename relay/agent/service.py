"""The reference Agent SDK's HTTP side: `POST /webhooks/chatwoot` and `GET /health`.

A webhook with `X-Relay-Test` is a test: the reply is drafted and nothing is posted, unless the value is `post`. What
makes a note is in `writer`.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from quart import Quart, Response, request

from relay.agent.attempt import Ignored, Job, LeftToNewer
from relay.agent.failures import NoNote, as_no_note
from relay.agent.rules import account_ignored_because, ignored_because, no_message_because
from relay.agent.webhook import read_webhook
from relay.chatwoot.client import ChatwootError
from relay.chatwoot.payload import BadBody, parse_object
from relay.chatwoot.signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, verify
from relay.domain.delivery import Signature
from relay.domain.headers import CONTENT_ENCODING, POST_TEST, TEST_HEADER
from relay.domain.trace import TRACEPARENT
from relay.errors import StoreUnavailable
from relay.intake.encoding import TAKEN, CorruptBody, DecodedTooLarge, UnsupportedEncoding, decoded
from relay.settings import AGENT_PATH
from relay.telemetry.tracing import Tracing, now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structlog.typing import FilteringBoundLogger

    from relay.agent.rules import Rules
    from relay.agent.webhook import Webhook
    from relay.agent.writer import NoteWriter

KEY_HEADER = "idempotency-key"
_MAX_BODY = 64 * 1024 * 1024  # more than the relay takes by default (Chatwoot has no limit)
_KEY_CHARS = 300
_OF_A_TEST: dict[str, Any] = {"status": "drafted", "posted": False, "test": True}


def create_agent_app(
    writer: NoteWriter,
    rules: Rules,
    secrets: Sequence[bytes],
    log: FilteringBoundLogger,
    tracing: Tracing | None = None,
) -> Quart:
    """The app. `secrets` are Chatwoot's; empty: unsigned webhooks are accepted. Spans continue the relay's trace."""
    spans = tracing or Tracing()
    app = Quart("relay.agent")
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY

    @app.post(AGENT_PATH)
    async def webhook() -> Response:
        began = now()
        answer = await answered()
        spans.handled(request.headers.get(TRACEPARENT), began, answer.status_code, _key())
        return answer

    async def answered() -> Response:
        sent = await request.get_data(cache=False, as_text=False, parse_form_data=False)
        try:
            body = decoded(request.headers.getlist(CONTENT_ENCODING), sent, _MAX_BODY)
        except UnsupportedEncoding:
            return _answer(415, {"error": f"Supported content codings are {TAKEN}"}, {"Accept-Encoding": TAKEN})
        except CorruptBody:
            return _answer(400, {"error": "The body is not a whole stream of its Content-Encoding"})
        except DecodedTooLarge:
            return _answer(413, {"error": f"The body is larger than {_MAX_BODY} bytes"})
        if not _is_signed(secrets, (sent,) if body is sent else (sent, body)):
            return _answer(401, {"error": "Invalid signature"})
        try:
            payload = parse_object(body)
        except BadBody as error:
            return _answer(400, {"error": str(error)})
        test = request.headers.get(TEST_HEADER, "").strip().lower()
        return await _answer_to(writer, read_webhook(payload), rules, test, log)

    @app.get("/health")
    async def health() -> Response:
        return _answer(200, {"status": "ok"})

    return app


def _key() -> str:
    """The idempotency key of the request."""
    return (request.headers.get(KEY_HEADER) or request.headers.get(DELIVERY_HEADER) or "").strip()[:_KEY_CHARS]


def _is_signed(secrets: Sequence[bytes], forms: Sequence[bytes]) -> bool:
    """True if one of `secrets` signed one of a body's `forms`, however long ago: the relay may forward hours later."""
    timestamp = request.headers.get(TIMESTAMP_HEADER, "")
    if not secrets:
        return True
    now = float(timestamp) if timestamp.isascii() and timestamp.isdigit() else 0.0
    return isinstance(verify(secrets, timestamp, request.headers.get(SIGNATURE_HEADER), forms, now=now), Signature)


async def _answer_to(
    writer: NoteWriter, webhook: Webhook, rules: Rules, test: str, log: FilteringBoundLogger
) -> Response:
    """The answer to a webhook whose `X-Relay-Test` has the value `test`, empty for all but test webhooks."""
    posts = not test or test == POST_TEST
    try:
        if not posts:
            return await _tested(writer, webhook, log)
        if test:
            reason = account_ignored_because(webhook, rules) or no_message_because(webhook, forms=rules.forms)
        else:
            reason = ignored_because(webhook, rules)
        return _ignored(reason) if reason is not None else await _noted(writer, webhook, log, test=bool(test))
    except (NoNote, ChatwootError, StoreUnavailable) as error:
        failed = as_no_note(error)
        log.warning("No note was posted", conversation=webhook.conversation_id, reason=str(failed))
        return _failed(failed)


async def _tested(writer: NoteWriter, webhook: Webhook, log: FilteringBoundLogger) -> Response:
    if reason := no_message_because(webhook, forms=True):
        return _ignored(reason)
    await writer.draft(webhook)
    log.info("Test webhook: drafted, not posted", conversation=webhook.conversation_id)
    return _answer(200, _OF_A_TEST | {"conversation_id": webhook.conversation_id})


async def _noted(writer: NoteWriter, webhook: Webhook, log: FilteringBoundLogger, *, test: bool) -> Response:
    assert webhook.message is not None
    assert webhook.conversation_id is not None
    key = _key()
    known = {"conversation": webhook.conversation_id, "message": webhook.message.id}
    outcome = await writer.write(Job(webhook, webhook.message, webhook.conversation_id, key, test))
    if isinstance(outcome, Ignored):
        log.info("No draft is wanted", reason=outcome.reason, **known)
        return _ignored(outcome.reason)
    if isinstance(outcome, LeftToNewer):
        log.info("Left to a newer message", **known)
        return _answer(200, {"status": "left_to_newer"})
    log.info("Note posted" if outcome.fresh else "Note was there already", note=outcome.note_id, **known)
    answer = {"status": "draft_ready", "conversation_id": webhook.conversation_id, "note_id": outcome.note_id}
    if test:
        answer |= {"posted": True, "test": True}
    return _answer(200, answer if outcome.fresh else answer | {"duplicate": True})


def _ignored(reason: str) -> Response:
    return _answer(200, {"ignored": True, "reason": reason})


def _failed(error: NoNote) -> Response:
    body = {"error": str(error)} | ({"remedy": error.remedy} if error.remedy else {})
    again = error.retry_after_s
    return _answer(error.status, body, None if again is None else {"Retry-After": str(math.ceil(again))})


def _answer(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, content_type="application/json")
