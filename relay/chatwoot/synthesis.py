"""Makes the webhook that Chatwoot would have sent for a message out of what its API answers (DESIGN, 1.6). Pure.

The form is that of Message#webhook_data: the type as a word, times in ISO 8601, no `type` on the sender.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from relay.text import rfc3339

_TYPES = {0: "incoming", 1: "outgoing", 2: "activity", 3: "template"}
_PASSED = ("content", "content_type", "content_attributes", "source_id", "attachments")


def message_created(message: dict[str, Any], conversation: dict[str, Any], account_id: int) -> bytes:
    """The body of `message_created` for `message` in `conversation`, both as the API answers them."""
    sender = message.get("sender")
    kind = message.get("message_type")
    payload: dict[str, Any] = {
        "account": {"id": account_id},
        "id": message["id"],
        **{name: message[name] for name in _PASSED if name in message},
        "created_at": _iso(message.get("created_at")),
        "message_type": _TYPES.get(kind, kind) if isinstance(kind, int) else kind,
        "private": message.get("private") is True,
        "sender": {key: value for key, value in sender.items() if key != "type"} if isinstance(sender, dict) else None,
        "inbox": {"id": message.get("inbox_id", conversation.get("inbox_id"))},
        "conversation": {**conversation, "messages": [message]},
        "event": "message_created",
    }
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _iso(seconds: object) -> str | None:
    if not isinstance(seconds, int | float):
        return None
    return rfc3339(datetime.fromtimestamp(seconds, UTC))
