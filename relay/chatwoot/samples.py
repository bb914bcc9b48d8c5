"""Chatwoot's documented payloads, and what the demo puts into them. Data only."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

EVENTS = ("message_created", "message_updated", "conversation_status_changed", "webwidget_triggered")
"""The events with a documented payload."""

DEMO_EVENTS = ("message_created", "message_updated", "conversation_status_changed")
"""The events that the demo sends. Each names a conversation."""

DEMO_CONVERSATIONS = range(700, 760)
DEMO_CUSTOMERS = (
    ("Maria Silva", "Hi! My order says delivered, but nothing is here."),
    ("Jonas Weber", "Can I change the address of order 10482?"),
    ("Aiko Tanaka", "The discount code does not work at checkout."),
    ("Priya Nair", "I was charged twice, could somebody look?"),
    ("Tom O'Brien", "Where do I find the invoice for October?"),
    ("Zofia Kowalska", "The left headphone is silent since yesterday."),
)
"""The demo's customers: name and message. Deliveries that an earlier version left are recognised by them."""


def documented_body(event: str) -> bytes:
    """Chatwoot's own documented sample of `event`, one of `EVENTS`, byte for byte."""
    return (resources.files("relay.chatwoot") / "payloads" / f"{event}.json").read_bytes()


def documented_payload(event: str) -> dict[str, Any]:
    """The same as an object."""
    payload: dict[str, Any] = json.loads(documented_body(event))
    return payload
