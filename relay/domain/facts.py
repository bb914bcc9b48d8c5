"""Builds the rows of `dashboard_facts` that the relay records. No I/O: `relay.store` writes them.

RUNBOOK, "Recorded Metrics", fixes the names in `value` and `metadata`; DESIGN, 6, adds to them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from relay.domain.delivery import Delivery, FactType, Outcome
from relay.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.domain.alerts import Transition

SCOPE = "support"
"""The `scope` of every fact that the relay writes."""

PAYLOAD_BYTES = 1024 * 1024
"""A fact holds a reference and an excerpt of a longer payload (DESIGN, 6)."""

EXCERPT_BYTES = 2_048
_NUMERIC_DIGITS = 131_072
_NUMERIC_SCALE = 16_383
_ESCAPED_TROUBLE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_MAX_PLAIN_NUMBER = 40


@dataclass(frozen=True, slots=True)
class Fact:
    """One row of `dashboard_facts`. The database puts `payload`, JSON text, under `value.payload`.

    The payload stays text on its way so that its numbers keep their digits.
    """

    fact_type: FactType
    value: dict[str, Any]
    metadata: dict[str, Any]
    payload: str | None = None


def alert_fact(change: Transition) -> Fact:
    """The `support.alert` fact of an alert that was raised or cleared (DESIGN, 6)."""
    rule = change.verdict.rule
    value = {
        "rule": rule.name,
        "severity": rule.severity,
        "state": change.state,
        "value": change.verdict.value,
        "threshold": change.verdict.threshold,
    }
    metadata = {"timestamp": rfc3339(change.at), "condition": rule.condition, "since": rfc3339(change.since)}
    return Fact(FactType.ALERT, value, metadata)


def facts_of_run(delivery: Delivery, outcome: Outcome, endpoint: str) -> list[Fact]:
    """The facts of one run of the retry loop.

    A first run yields a retry fact and, when it failed, a dead-letter fact. A replay yields a replay fact only, so
    that replays do not mask an outage. `endpoint` is the agent's URL without credentials.
    """
    metadata = _metadata(delivery)
    value: dict[str, Any] = {
        "attempts": outcome.count,
        "success": outcome.success,
        "durationMs": outcome.duration_ms,
        "finalStatus": outcome.last.status,
    }
    if delivery.plan_id is not None:
        replay = value | {"requestedBy": delivery.requested_by, "replayId": delivery.plan_id}
        return [Fact(FactType.REPLAY, replay, metadata)]
    facts = [Fact(FactType.RETRY, value, metadata)]
    if not outcome.success:
        facts.append(_dead_letter(delivery, outcome, endpoint, metadata))
    return facts


def _dead_letter(delivery: Delivery, outcome: Outcome, endpoint: str, metadata: dict[str, Any]) -> Fact:
    if len(delivery.body) > PAYLOAD_BYTES:
        payload, mark = _reference(delivery), {"payload_truncated": True}
    else:
        try:
            payload, altered = storable_json(delivery.body)
            mark = {"payload_altered": True} if altered else {}
        except (ValueError, RecursionError):  # nested too deep to be made storable
            payload, mark = _reference(delivery), {"payload_truncated": True}
    value = {
        "attempts": outcome.count,
        "lastError": outcome.last.error,
        "agentEndpoint": endpoint,
        "finalStatus": outcome.last.status,
        "deliveryId": delivery.delivery_id,
    }
    return Fact(FactType.DEAD_LETTER, value, metadata | {"requires_manual_review": True} | mark, payload)


def _reference(delivery: Delivery) -> str:
    """What a dead letter's fact holds in place of a long payload, as JSON text. The delivery keeps the whole body."""
    excerpt = delivery.body[:EXCERPT_BYTES].decode("utf-8", "ignore").replace("\0", "\N{REPLACEMENT CHARACTER}")
    reference = {
        "truncated": True,
        "bytes": len(delivery.body),
        "deliveryId": delivery.delivery_id,
        "excerpt": excerpt,
    }
    return _text(reference)


def without_payload(fact: Fact, delivery: Delivery) -> Fact:
    """`fact` with the reference to its delivery in place of the payload, if it has one."""
    if fact.payload is None:
        return fact
    metadata = {key: mark for key, mark in fact.metadata.items() if key != "payload_altered"}
    return replace(fact, payload=_reference(delivery), metadata=metadata | {"payload_truncated": True})


def _metadata(delivery: Delivery) -> dict[str, Any]:
    conversation = delivery.conversation_id
    numeric = conversation is not None and conversation.isascii() and conversation.isdigit()
    metadata = {
        "timestamp": rfc3339(datetime.now(UTC)),
        "deliveryId": delivery.delivery_id,
        "event": delivery.event,
        "conversationId": int(conversation) if conversation is not None and numeric else conversation,
    }
    waited = {"waitedMs": delivery.waited_ms} if delivery.waited_ms else {}
    return metadata | waited | ({"test": True} if delivery.test else {})


def storable_json(body: bytes) -> tuple[str, bool]:
    """`body` (valid JSON in UTF-8) as text that `jsonb` takes, and whether that meant altering it.

    `jsonb` refuses `\\u0000`, lone surrogates and numbers beyond `numeric`'s range, all of them valid
    JSON. The first two become U+FFFD, such numbers become strings. The delivery keeps the raw body.
    """
    altered = False

    def number(text: str) -> int | float | str | _Verbatim:
        nonlocal altered
        if _fits_numeric(text):
            return _Verbatim(text)
        altered = True
        return text

    if not _ESCAPED_TROUBLE.search(body) and not _has_long_number(body):
        return body.decode(), False
    parsed = json.loads(body.decode(), parse_int=number, parse_float=number, object_pairs_hook=_Pairs)
    cleaned, touched = _clean(parsed)
    if not (touched or altered):
        return body.decode(), False
    return _dump(cleaned), True


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, duplicate names included: `jsonb` parses all of them and keeps the last."""

    __slots__ = ()


class _Verbatim(str):
    """The text of a number, written back unchanged."""

    __slots__ = ()


_LONG_NUMBER = re.compile(rb"[0-9.]{%d}|[0-9.][eE][+-]?[0-9]{4}" % _MAX_PLAIN_NUMBER)


def _has_long_number(body: bytes) -> bool:
    """True if a number may be too long for `numeric` (or digits inside a string look like one)."""
    return _LONG_NUMBER.search(body) is not None


def _fits_numeric(text: str) -> bool:
    """True if Postgres's `numeric` holds the JSON number `text`: 131072 digits before the point, 16383 after."""
    mantissa, _, exponent_text = text.lower().lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    if len(exponent_text) > 8:
        return False
    exponent = int(exponent_text or 0)
    return len(whole) + exponent <= _NUMERIC_DIGITS and len(fraction) - exponent <= _NUMERIC_SCALE


def _clean(value: Any) -> tuple[Any, bool]:
    """`value` with unstorable characters replaced in every string and key; and whether any was."""
    if isinstance(value, _Verbatim):
        return value, False
    if isinstance(value, str):
        text = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        return text, text != value
    if isinstance(value, _Pairs):
        pairs = [(_clean(key), _clean(item)) for key, item in value]
        return _Pairs((key, item) for (key, _), (item, _) in pairs), any(k[1] or v[1] for k, v in pairs)
    if isinstance(value, list):
        items = [_clean(item) for item in value]
        return [item for item, _ in items], any(touched for _, touched in items)
    return value, False


def _dump(value: Any) -> str:
    """JSON text of a cleaned value, its numbers as they were written."""
    if isinstance(value, _Verbatim):
        return str(value)
    if isinstance(value, _Pairs):
        return "{" + ", ".join(f"{_text(key)}: {_dump(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_dump, value))}]"
    return _text(value)


_text: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False).encode


def as_json_text(body: bytes) -> str:
    """`body`, whatever it holds, as one JSON string."""
    return _text(body.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}"))
