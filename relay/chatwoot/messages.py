"""What a message of Chatwoot is, by its JSON: its type, and whether a machine or a person wrote it. Pure.

Sources: chatwoot/CONTRACT, "Webhooks it sends" and "API it answers"; app/views/api/v1/models/_message.json.jbuilder.
The agent, a backfill and a replay read messages with this, so that they agree on what is an answer.
"""

from __future__ import annotations

from typing import Any

_TYPES = ("incoming", "outgoing", "activity", "template")
_MACHINES = frozenset({"agent_bot", "agentbot", "captain_assistant", "captain::assistant"})
_AUTOMATION = frozenset({"automation_rule_id", "campaign_id"})


def as_dict(value: object) -> dict[str, Any]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def message_type(value: object) -> str | None:
    """Chatwoot's message type as a word, whether it came as a word or as a number."""
    if isinstance(value, str):
        return value
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return _TYPES[value] if 0 <= value < len(_TYPES) else None


def sender_type(message: dict[str, Any]) -> str:
    """Who wrote `message`, in lower case: `contact`, `user`, `agent_bot` …; empty if it does not say."""
    return str(as_dict(message.get("sender")).get("type") or message.get("sender_type") or "").lower()


def is_automatic(message: dict[str, Any]) -> bool:
    """True for an outgoing message or a template that a bot, an automation rule or a campaign wrote."""
    attributes = as_dict(message.get("content_attributes"))
    return (
        message_type(message.get("message_type")) == "template"
        or sender_type(message) in _MACHINES
        or bool(_AUTOMATION & attributes.keys())
        or "campaign_id" in as_dict(message.get("additional_attributes"))
    )


def is_deleted(message: dict[str, Any]) -> bool:
    """True for a message that was deleted: Chatwoot keeps its place and a sentence."""
    return as_dict(message.get("content_attributes")).get("deleted") is True


def is_reply(message: dict[str, Any]) -> bool:
    """True for what a person of the team wrote in public and did not delete: it answers the customer."""
    is_public = message.get("private") is not True and message_type(message.get("message_type")) == "outgoing"
    return is_public and not is_automatic(message) and not is_deleted(message)
