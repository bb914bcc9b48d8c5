"""Whose data to erase, and which payloads concern them (Chatwoot's webhook payloads)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ERASED = b'{"erased": true}'
"""What takes the place of an erased payload."""

ERASED_MARK = ERASED.rstrip(b"}")
"""How each of them begins: a stored message keeps its number and its account's, by which it is known to have come."""


@dataclass(frozen=True, slots=True)
class Person:
    """A conversation or a contact by its number in Chatwoot, in `account` (None: in any account)."""

    conversation: int | None = None
    contact: int | None = None
    account: int | None = None

    @property
    def name(self) -> str:
        """`conversation 7` or `contact 14`."""
        return f"conversation {self.conversation}" if self.contact is None else f"contact {self.contact}"

    @property
    def needle(self) -> bytes:
        """The digits that every payload which concerns them contains."""
        return str(self.conversation if self.contact is None else self.contact).encode()

    def concerns(self, payload: object) -> bool:
        """True if `payload` belongs to the conversation, or to any conversation of the contact."""
        if not isinstance(payload, dict) or not self._in_account(payload):
            return False
        return self._is_contacts(payload) if self.contact is not None else self._is_conversations(payload)

    def _in_account(self, payload: dict[str, Any]) -> bool:
        found = account_of(payload)
        return self.account is None or found is None or found == self.account

    def _is_conversations(self, payload: dict[str, Any]) -> bool:
        if _id(payload.get("conversation")) is not None:
            return _id(payload.get("conversation")) == self.conversation
        return _begins(payload, "conversation_") and _id(payload) == self.conversation

    def _is_contacts(self, payload: dict[str, Any]) -> bool:
        conversation = payload.get("conversation")
        inner = conversation if isinstance(conversation, dict) else {}
        owners = [_id(payload.get("contact")), *(_contact_of(one) for one in (payload, inner))]
        sender = payload.get("sender")
        if isinstance(sender, dict) and sender.get("type", "contact") == "contact":
            owners.append(_id(sender))
        if _begins(payload, "contact_"):
            owners.append(_id(payload))
        return self.contact in owners


def account_of(payload: object) -> int | None:
    """The account that a payload names; None if it names none."""
    return _id(payload.get("account")) if isinstance(payload, dict) else None


def _contact_of(conversation: dict[str, Any]) -> int | None:
    """The contact that a conversation belongs to."""
    inbox = conversation.get("contact_inbox")
    if isinstance(inbox, dict) and isinstance(inbox.get("contact_id"), int):
        return int(inbox["contact_id"])
    meta = conversation.get("meta")
    return _id(meta.get("sender")) if isinstance(meta, dict) else None


def _begins(payload: dict[str, Any], prefix: str) -> bool:
    return str(payload.get("event", "")).startswith(prefix)


def _id(value: object) -> int | None:
    """The `id` of an object, which may be digits in quotes; None if it has none."""
    number = value.get("id") if isinstance(value, dict) else None
    if isinstance(number, str) and number.isascii() and number.isdigit():
        return int(number)
    return number if isinstance(number, int) and not isinstance(number, bool) else None
