"""One text in every column of every table that anyone may write text into: facts of other applications included."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg

from relay.domain.alerts import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import Rows

HOSTILE = (
    "\x1b]52;c;UFdORUQ=\x07\x1b[2J\x9b31m\x9d0;t\x9c\x7f\x08\r\nnew line\u2028\u202e\u2066\u200f\u200b\ufeff\U000e0041"
    "[/b][@click=app.quit]x[/]\\"
)
"""Controls of every kind, a line end, what turns or hides text, and markup."""

_TURNING = {"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI"}

_FACTS = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)
    SELECT f ->> 0, %(text)s, f -> 1, jsonb_build_object('event', %(text)s::text, 'test', %(text)s::text), now()
      FROM jsonb_array_elements(%(facts)s::jsonb) AS f
"""
_INSTANCE = """
    INSERT INTO relay.instances (id, name, boot, slot, pid, version, signed, agent, lease_until, counters)
    VALUES (%(instance)s, %(text)s, %(boot)s, 7, 1, %(text)s, true, %(text)s, now() + interval '1 hour',
            (SELECT jsonb_object_agg(kind, jsonb_build_object(%(text)s::text, 1))
               FROM unnest(ARRAY['attempts', 'rejected', 'outcomes']) AS kind))
"""
_DELIVERY = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, event, conversation_id, customer, finished_at,
                                  attempts, duration_ms, final_status, last_error, agent_status, headers, body)
    VALUES (%(text)s, 'dead', gen_random_uuid(), false, %(text)s, %(text)s, true, now(), 3, 1, %(text)s, %(text)s,
            %(text)s, jsonb_build_array(jsonb_build_array('x-chatwoot-event', %(text)s::text),
                                        jsonb_build_array(%(text)s::text, %(text)s::text)),
            convert_to(jsonb_build_object('event', %(text)s::text, %(text)s::text, 1)::text, 'UTF8'))
    RETURNING id
"""
_ATTEMPT = """
    INSERT INTO relay.attempts (delivery, run, number, started_at, wait_ms, duration_ms, status, error, answer)
    VALUES (%(row)s, 1, 1, now(), 0, 1, %(text)s, %(text)s, %(text)s)
"""
_PLAN = """
    INSERT INTO relay.replay_plans (request_id, state, requested_by, reason, filter, total, stopped_why, finished_at)
    VALUES (gen_random_uuid(), 'stopped', %(text)s, %(text)s, %(text)s, 1, %(text)s, now()) RETURNING id
"""
_ITEM = """
    INSERT INTO relay.replay_items (plan_id, position, delivery, run, state) VALUES (%(plan)s, 1, %(row)s, 1, 'dead')
"""
_ACTION = """
    INSERT INTO relay.operator_actions (operator, action, plan_id, deliveries, reason, details, result, applied_at)
    VALUES (%(text)s, %(action)s, %(plan)s, ARRAY[%(row)s]::bigint[], %(text)s,
            jsonb_build_object(%(text)s::text, %(text)s::text, 'list', jsonb_build_array(%(text)s::text)),
            jsonb_build_object(%(text)s::text, %(text)s::text), now())
"""
_DISCARDED = "UPDATE relay.discards SET applied_at = now(), result = jsonb_build_object('discarded', %(text)s::text)"
_LOG = """
    INSERT INTO relay.log (at, level, scope, message, fields, delivery_id, instance)
    SELECT now(), level, %(text)s, %(text)s,
           jsonb_build_object(%(text)s::text, %(text)s::text, 'list', jsonb_build_array(%(text)s::text)), %(text)s,
           gen_random_uuid()
      FROM unnest(ARRAY['warning', 'error', %(text)s]) AS level
"""
_ALERT = "INSERT INTO relay.alerts (rule) VALUES (%(text)s)"
_NOTICE = "INSERT INTO relay.notices (text) VALUES (%(text)s)"
_ACKNOWLEDGEMENT = """
    INSERT INTO relay.acknowledgements (rule, operator, login, reason, until)
    SELECT rule, %(text)s, %(text)s, %(text)s, now() + interval '1 hour' FROM unnest(%(rules)s::text[]) AS rule
        ON CONFLICT DO NOTHING
"""


def plant_hostile(rows: Rows, text: str = HOSTILE) -> int:
    """Plant `text` everywhere; returns the row of the dead letter that carries it."""
    facts = [
        ["support.webhook.retry", {"attempts": 3, "success": False, "durationMs": 5, "finalStatus": text}],
        ["support.webhook.replay", {"attempts": 3, "success": False, "finalStatus": text, "requestedBy": text}],
        ["support.webhook.dead_letter", {"lastError": text, "finalStatus": text, "agentEndpoint": text}],
        ["support.webhook.rejected", {"reason": text, "count": 3}],
        *(
            ["support.health", {"target": target, "ok": False, "status": text, "latencyMs": text, "error": text}]
            for target in ("agent", "chatwoot", "chatwoot_api", text)
        ),
        ["support.alert", {"rule": text, "severity": text, "state": "raised", "value": text}],
    ]
    rows(_FACTS, {"facts": json.dumps(facts), "text": text})
    given: dict[str, Any] = {"text": text, "instance": uuid4(), "boot": uuid4()}
    rows(_INSTANCE, given)
    given["row"] = rows.one(_DELIVERY, given)
    given["plan"] = rows.one(_PLAN, given)
    given["rules"] = [rule.name for rule in RULES]
    for statement in (_ATTEMPT, _ITEM, _LOG, _ALERT, _NOTICE, _ACKNOWLEDGEMENT):
        rows(statement, given)
    with psycopg.connect(rows.dsn) as connection:  # one transaction, so that no relay carries the discard out
        for action in ("discard", "replay", "replay.stop", text):
            connection.execute(_ACTION.encode(), given | {"action": action})
        connection.execute(_DISCARDED.encode(), given)
    row: int = given["row"]
    return row


def harmful(text: str, *, lines: bool = False) -> set[str]:
    """The characters of `text` that steer a terminal, hide or turn text; with `lines`, line ends are allowed.

    Does not use the function that cleans.
    """
    allowed = {"\n"} if lines else set()
    return {
        character
        for character in text
        if (
            unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
            or unicodedata.bidirectional(character) in _TURNING
        )
        and character not in allowed
    }


def texts_in(value: Any) -> Iterator[str]:
    """Every text inside a value: of dataclasses the fields, of containers the items and keys."""
    if isinstance(value, str):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from texts_in(getattr(value, field.name))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts_in(key)
            yield from texts_in(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from texts_in(item)
