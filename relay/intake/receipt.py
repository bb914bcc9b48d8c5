"""From an HTTP request's headers and body to a `Receipt`: JSON check and reading of the few fields used.

Knows nothing of Quart, signatures or the store. The body is checked to be a JSON object and then kept
as the bytes that came: nothing is ever re-serialised on its way to the agent.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from relay.chatwoot.payload import is_from_customer, is_private_note, parse_object
from relay.chatwoot.signature import DELIVERY_HEADER
from relay.domain.delivery import OWN_IDS, Headers, Receipt
from relay.domain.headers import FORWARDED_FROM_HEADER, TEST_SENDER, first_header, received

if TYPE_CHECKING:
    from collections.abc import Collection

    from relay.domain.delivery import Signature

_FIELD_CHARS = 200
_DELIVERY_ID = re.compile(r"[\x21-\x7e]{1,200}")


def read_receipt(
    headers: Headers,
    body: bytes,
    forwarded: Collection[str] = (),
    *,
    encoded_body: bytes | None = None,
    signature: Signature | None = None,
    own_account: int | None = None,
) -> Receipt:
    """The receipt of a webhook with these `headers` (names in lower case) and this `body`, which came as
    `encoded_body` if it had a content coding. `signature` is the one that was verified. A payload that
    names no account belongs to `own_account`.

    It is ignored if it is a private note that comes back (CONTRACT, "loops"), or if events are named that are
    `forwarded`, and it is none of them. An event that is no string counts as unknown.

    A delivery id that is missing, is not 1 to 200 visible ASCII characters, or has a form that only the relay gives
    is replaced by a fresh UUID: such a webhook is no duplicate by its id (DESIGN, 1).

    Raises:
        BadBody: the body is not a JSON object.
    """
    payload = parse_object(body)
    given = first_header(headers, DELIVERY_HEADER) or ""
    event = payload["event"] if isinstance(payload.get("event"), str) else None
    return Receipt(
        delivery_id=given if _may_be_given(given) else str(uuid.uuid4()),
        headers=received(headers),
        body=body,
        event=_field_text(event),
        conversation_id=_conversation_id(event, payload),
        customer=is_from_customer(event, payload),
        test=(first_header(headers, FORWARDED_FROM_HEADER) or "").strip().lower() == TEST_SENDER,
        ignored=is_private_note(event, payload) or bool(forwarded and event not in forwarded),
        encoded_body=encoded_body,
        signature=signature,
        account_id=_account_id(payload) or _field_text(own_account),
    )


def _may_be_given(delivery_id: str) -> bool:
    """True for a delivery id that a sender may give."""
    return _DELIVERY_ID.fullmatch(delivery_id) is not None and not delivery_id.lower().startswith(OWN_IDS)


def _account_id(payload: dict[str, Any]) -> str | None:
    account = payload.get("account")
    return _field_text(account.get("id")) if isinstance(account, dict) else None


def _conversation_id(event: object, payload: dict[str, Any]) -> str | None:
    """`conversation.id` of a message event, the top-level `id` of a conversation event (CONTRACT)."""
    conversation = payload.get("conversation")
    if isinstance(conversation, dict):
        return _field_text(conversation.get("id"))
    if isinstance(event, str) and event.startswith("conversation_"):
        return _field_text(payload.get("id"))
    return None


def _field_text(value: object) -> str | None:
    """`value` as text that Postgres can hold, or None if it is neither text nor a whole number."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value)[:_FIELD_CHARS].encode("utf-8", "replace").decode()
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") or None
