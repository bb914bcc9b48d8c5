"""The reference Agent SDK's HTTP side: `POST /webhooks/chatwoot` and `GET /health`.

A webhook with `X-Relay-Test` is a test: the reply is drafted and nothing is posted, unless the value is `post`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from quart import Quart, Response, request

from relay.agent.drafts import DraftFailed
from relay.agent.writer import Busy, Customer
from relay.chatwoot.client import ChatwootError
from relay.chatwoot.payload import BadBody, is_from_customer, parse_object
from relay.chatwoot.signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, verify
from relay.domain.delivery import Signature
from relay.domain.headers import CONTENT_ENCODING, POST_TEST, TEST_HEADER
from relay.errors import StoreUnavailable
from relay.intake.encoding import TAKEN, CorruptBody, DecodedTooLarge, UnsupportedEncoding, decoded
from relay.settings import AGENT_PATH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structlog.typing import FilteringBoundLogger

    from relay.agent.writer import NoteWriter

KEY_HEADER = "idempotency-key"
_MAX_BODY = 16 * 1024 * 1024
_KEY_CHARS = 300
_OF_A_TEST: dict[str, Any] = {"status": "drafted", "posted": False, "test": True}


def create_agent_app(writer: NoteWriter, secrets: Sequence[bytes], log: FilteringBoundLogger) -> Quart:
    """The app. `secrets` are Chatwoot's; empty: unsigned webhooks are accepted."""
    app = Quart("relay.agent")
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY

    @app.post(AGENT_PATH)
    async def webhook() -> Response:
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
        reason = ignored_because(payload)
        if reason is not None:
            return _answer(200, {"ignored": True, "reason": reason})
        return await _note(writer, payload, log)

    @app.get("/health")
    async def health() -> Response:
        return _answer(200, {"status": "ok"})

    return app


def _is_signed(secrets: Sequence[bytes], forms: Sequence[bytes]) -> bool:
    """True if one of `secrets` signed one of a body's `forms`, however long ago: the relay may forward hours later."""
    timestamp = request.headers.get(TIMESTAMP_HEADER, "")
    if not secrets:
        return True
    now = float(timestamp) if timestamp.isascii() and timestamp.isdigit() else 0.0
    return isinstance(verify(secrets, timestamp, request.headers.get(SIGNATURE_HEADER), forms, now=now), Signature)


def ignored_because(payload: dict[str, Any]) -> str | None:
    """Why there is nothing to draft for a webhook; None for a customer's new message."""
    if payload.get("event") != "message_created":
        return "not a new message"
    if not is_from_customer(payload.get("event"), payload):
        return "not a customer's message"
    if _conversation(payload) is None:
        return "no conversation"
    return None


def _conversation(payload: dict[str, Any]) -> int | None:
    conversation = payload.get("conversation")
    found = conversation.get("id") if isinstance(conversation, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found < 2**63 else None


async def _note(writer: NoteWriter, payload: dict[str, Any], log: FilteringBoundLogger) -> Response:
    conversation_id = _conversation(payload)
    assert conversation_id is not None
    sender, text = payload.get("sender"), payload.get("content")
    name = sender.get("name") if isinstance(sender, dict) else None
    customer = Customer(
        conversation_id=conversation_id,
        name=name[:100] if isinstance(name, str) else "",
        text=text if isinstance(text, str) else "",
    )
    key = (request.headers.get(KEY_HEADER) or request.headers.get(DELIVERY_HEADER) or "").strip()[:_KEY_CHARS]
    key = key or f"message {payload.get('id')} of conversation {conversation_id}"
    test = request.headers.get(TEST_HEADER, "").strip().lower()
    try:
        if test and test != POST_TEST:
            await writer.draft(customer)
            log.info("Test webhook: drafted, not posted", conversation=conversation_id)
            return _answer(200, _OF_A_TEST | {"conversation_id": conversation_id})
        written = await writer.write(key, customer)
    except Busy as error:
        return _answer(503, {"error": str(error)}, {"Retry-After": "1"})
    except StoreUnavailable as error:
        return _answer(503, {"error": str(error)}, {"Retry-After": "5"})
    except (ChatwootError, DraftFailed) as error:
        log.warning("No note was posted", conversation=conversation_id, reason=str(error))
        return _answer(502, {"error": str(error)})
    log.info("Note posted" if written.fresh else "Note was there already", conversation=conversation_id)
    told = {"status": "draft_ready", "conversation_id": conversation_id, "note_id": written.note_id}
    if test:
        told |= {"posted": True, "test": True}
    return _answer(200, told if written.fresh else told | {"duplicate": True})


def _answer(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, content_type="application/json")
