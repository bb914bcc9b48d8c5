"""Messages and conversations in the forms in which Chatwoot's API and its webhooks carry them.

Sources: app/views/api/v1/models/_message.json.jbuilder, conversations/partials/_conversation.json.jbuilder;
Message#webhook_data, Message#push_event_data and Conversations::EventDataPresenter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from relay.text import rfc3339

INCOMING, OUTGOING, ACTIVITY, TEMPLATE = range(4)
TYPE_WORDS = ("incoming", "outgoing", "activity", "template")

INBOX = {"id": 1, "name": "Acme Support"}
ACCOUNT_NAME = "Acme Inc"

KEPT_ATTRIBUTES = frozenset({"in_reply_to", "items", "automation_rule_id"})
"""The `content_attributes` that every version keeps of a message posted through the API (message_builder.rb)."""


def contact(name: str, contact_id: int = 14) -> dict[str, Any]:
    """A customer as the API and nested messages show one; webhooks leave out `type` (Contact#webhook_data)."""
    return {"id": contact_id, "name": name, "email": None, "phone_number": None, "thumbnail": "", "type": "contact"}


def user(name: str = "Demo Agent", user_id: int = 1) -> dict[str, Any]:
    """A member of the team."""
    return {"id": user_id, "name": name, "available_name": name, "avatar_url": "", "type": "user"}


@dataclass(slots=True)
class State:
    """What a conversation is besides its messages. `assignee` is None if the conversation has none."""

    status: str = "open"
    labels: list[str] = field(default_factory=list)
    assignee: dict[str, Any] | None = field(default_factory=user)
    blocked: bool = False


def api_message(message: dict[str, Any], conversation_id: int) -> dict[str, Any]:
    """A stored message as the API answers it: a numeric type, unix seconds. What a test left out has its default."""
    shown = {
        "id": message["id"],
        "content": message.get("content"),
        "inbox_id": INBOX["id"],
        "conversation_id": conversation_id,
        "message_type": message.get("message_type", INCOMING),
        "content_type": message.get("content_type", "text"),
        "status": "sent",
        "content_attributes": message.get("content_attributes") or {},
        "created_at": message.get("created_at", 0),
        "private": bool(message.get("private")),
        "source_id": message.get("source_id"),
    }
    if message.get("sender") is not None:
        shown["sender"] = message["sender"]
    if message.get("attachments"):
        shown["attachments"] = message["attachments"]
    return shown


def webhook_message(
    message: dict[str, Any], conversation_id: int, account_id: int, nested: dict[str, Any], state: State
) -> dict[str, Any]:
    """The payload of `message_created`: the type as a word, ISO 8601 times; `nested` has the conversation."""
    sender = message.get("sender")
    if isinstance(sender, dict) and sender.get("type") == "contact":
        sender = {key: value for key, value in sender.items() if key != "type"}
    payload = {
        "account": {"id": account_id, "name": ACCOUNT_NAME},
        "additional_attributes": {},
        "content_attributes": message.get("content_attributes") or {},
        "content_type": message.get("content_type", "text"),
        "content": message.get("content"),
        "conversation": webhook_conversation(conversation_id, nested, state),
        "created_at": _iso(message.get("created_at", 0)),
        "id": message["id"],
        "inbox": dict(INBOX),
        "message_type": TYPE_WORDS[message.get("message_type", INCOMING)],
        "private": bool(message.get("private")),
        "sender": sender,
        "source_id": message.get("source_id"),
    }
    if message.get("attachments"):
        payload["attachments"] = message["attachments"]
    return payload | {"event": "message_created"}


def webhook_conversation(conversation_id: int, nested: dict[str, Any], state: State) -> dict[str, Any]:
    """A conversation in a payload. It names no account (newer versions do)."""
    seconds = nested.get("created_at", 0)
    return {
        "additional_attributes": {},
        "can_reply": True,
        "channel": "Channel::WebWidget",
        "contact_inbox": {"id": conversation_id, "inbox_id": INBOX["id"], "source_id": f"source-{conversation_id}"},
        "id": conversation_id,
        "inbox_id": INBOX["id"],
        "messages": [api_message(nested, conversation_id)],
        "labels": list(state.labels),
        "meta": {"sender": _blocked(nested, state), "assignee": state.assignee, "team": None, "hmac_verified": False},
        "status": state.status,
        "custom_attributes": {},
        "snoozed_until": None,
        "unread_count": 1,
        "first_reply_created_at": None,
        "priority": None,
        "waiting_since": seconds,
        "agent_last_seen_at": 0,
        "contact_last_seen_at": 0,
        "last_activity_at": seconds,
        "timestamp": seconds,
        "created_at": seconds,
    }


def _blocked(message: dict[str, Any], state: State) -> dict[str, Any] | None:
    sender = message.get("sender")
    return sender | {"blocked": state.blocked} if isinstance(sender, dict) else None


def messages_meta(messages: list[dict[str, Any]], state: State) -> dict[str, Any]:
    """What stands beside a conversation's messages (messages/index.json.jbuilder): no `assignee` if there is none."""
    customer = next((one for one in messages if one.get("message_type") == INCOMING), {"sender": contact("Customer")})
    meta: dict[str, Any] = {"labels": list(state.labels), "additional_attributes": {}}
    meta["contact"] = _blocked(customer, state)
    if state.assignee is not None:
        meta["assignee"] = state.assignee
    return meta | {"agent_last_seen_at": None, "assignee_last_seen_at": None}


def listed_conversation(
    conversation_id: int, account_id: int, messages: list[dict[str, Any]], state: State
) -> dict[str, Any]:
    """A conversation in the API's list: its newest message alone, and when it was last active."""
    newest = messages[-1] if messages else {}
    at = last_activity(messages)
    customer = next((one.get("sender") for one in messages if one.get("message_type") == INCOMING), None)
    meta = {"assignee": state.assignee} if state.assignee is not None else {}
    return {
        "meta": meta
        | {"sender": customer or contact("Customer"), "channel": "Channel::WebWidget", "hmac_verified": False},
        "id": conversation_id,
        "messages": [api_message(newest, conversation_id)] if newest else [],
        "account_id": account_id,
        "additional_attributes": {},
        "can_reply": True,
        "custom_attributes": {},
        "inbox_id": INBOX["id"],
        "labels": list(state.labels),
        "muted": False,
        "status": state.status,
        "created_at": messages[0].get("created_at", 0) if messages else 0,
        "timestamp": at,
        "last_activity_at": at,
        "unread_count": 1,
    }


def last_activity(messages: list[dict[str, Any]]) -> int:
    """When a conversation was last active, in unix seconds."""
    return max((message.get("created_at", 0) for message in messages), default=0)


def _iso(seconds: float) -> str:
    return rfc3339(datetime.fromtimestamp(seconds, UTC))
