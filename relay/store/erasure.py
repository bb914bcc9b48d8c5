"""Erases a person's stored payloads from deliveries and facts. Needs the rights of the tables' owner.

States, times and counts stay, so that the figures do not change, and so do the numbers of erased messages, so that a
backfill does not take them for missing. What is still to be forwarded is left as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL

from relay.domain.delivery import FactType
from relay.domain.person import ERASED, ERASED_MARK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.domain.person import Person
    from relay.store.database import Connection

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Erased:
    """How many rows held a payload of the person. `unfinished` deliveries were left: they are still to be forwarded."""

    deliveries: int = 0
    facts: int = 0
    drafts: int = 0
    unfinished: int = 0


_CANDIDATES = """
    SELECT id, delivery_id, conversation_id, state, body FROM relay.deliveries
     WHERE id > %(after)s AND substr(body, 1, length(%(mark)s::bytea)) <> %(mark)s::bytea
       AND CASE WHEN %(conversation)s::text IS NULL THEN position(%(needle)s::bytea IN body) > 0
                ELSE conversation_id = %(conversation)s END
     ORDER BY id LIMIT %(page)s
"""
_DELIVERIES = """
    UPDATE relay.deliveries d
       SET body = CASE WHEN d.event = 'message_created' AND p.message IS NOT NULL
                       THEN convert_to(concat(%(mark)s::text, ', "account": {"id": ' || p.account || '}',
                                              ', "id": ' || p.message, '}'), 'UTF8')
                       ELSE %(erased)s END,
           encoded_body = NULL, state = CASE state WHEN 'dead' THEN 'discarded' ELSE state END
      FROM (SELECT g.id, substring(g.payload ->> 'id' FROM '^[0-9]{1,18}$') AS message,
                   substring(g.payload #>> '{account,id}' FROM '^[0-9]{1,18}$') AS account
              FROM (SELECT id, relay.payload(body) AS payload FROM relay.deliveries
                     WHERE id = ANY(%(ids)s) OFFSET 0) AS g) AS p
     WHERE d.id = p.id AND d.state IN ('delivered', 'dead', 'discarded', 'ignored')
    RETURNING d.id
"""
_ANSWERS = "UPDATE relay.attempts SET answer = '' WHERE delivery = ANY(%(ids)s) AND answer <> ''"
_EDITS = """
    UPDATE relay.replay_plans p SET edited_body = NULL
     WHERE edited_body IS NOT NULL
       AND EXISTS (SELECT FROM relay.replay_items i WHERE i.plan_id = p.id AND i.delivery = ANY(%(ids)s))
"""
_ASIDE = """
    UPDATE relay.facts_aside
       SET payload = CASE WHEN payload IS NULL THEN NULL ELSE %(text)s END,
           value = CASE WHEN value ? 'payload' THEN jsonb_set(value, '{payload}', %(text)s::jsonb) ELSE value END
     WHERE delivery_id = ANY(%(names)s) AND (payload IS NOT NULL OR value ? 'payload')
"""
_DRAFTS = "UPDATE relay.notes SET draft = '' WHERE conversation_id = ANY(%s) AND note_id IS NOT NULL AND draft <> ''"
_COUNT_DRAFTS = """
    SELECT count(*) FROM relay.notes WHERE conversation_id = ANY(%s) AND note_id IS NOT NULL AND draft <> ''
"""
_COLUMN = """
    SELECT format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL)
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = to_regclass('dashboard_facts') AND a.attname = 'value'
"""
_TYPES = {"jsonb": "jsonb", "json": "json", "text": "text", "character varying": "text"}
_FACTS = """
    SELECT ctid::text AS place, relay.json_or_null(format('%%s', value)) AS value,
           relay.json_or_null(format('%%s', metadata)) AS metadata
      FROM dashboard_facts
     WHERE rtrim(format('%%s', fact_type)) = %(kind)s
       AND (position(%(needle)s IN concat(value, metadata)) > 0
            OR relay.json_or_null(format('%%s', metadata)) ->> 'deliveryId' = ANY(%(names)s))
"""
_ERASE_FACTS = """
    UPDATE dashboard_facts
       SET value = jsonb_set(value::text::jsonb, '{{payload}}', %(text)s::jsonb)::text::{type}
     WHERE ctid = ANY(%(places)s::tid[])
"""
_RECORD = "SELECT relay.record_action(operator => %s, action => 'note', reason => %s, details => %s::jsonb)"


async def erase(connection: Connection, person: Person, *, operator: str, reason: str, dry_run: bool) -> Erased:
    """Erase the payloads of `person` and record that in the audit; with `dry_run` only count them.

    All in one transaction.

    Raises:
        psycopg.Error: the login may not, or Postgres is away; nothing has changed then.
    """
    async with connection.transaction():
        rows, unfinished = await _matching(connection, person)
        conversations = {int(row[2]) for row in rows if row[2] and str(row[2]).isdecimal()}
        if person.conversation is not None:
            conversations.add(person.conversation)
        names = [row[1] for row in rows]
        facts = await _facts(connection, person, names)
        found = Erased(len(rows), len(facts), unfinished=unfinished)
        if dry_run:
            row = await (await connection.execute(_COUNT_DRAFTS, (list(conversations),))).fetchone()
            return replace(found, drafts=row[0] if row else 0)
        await _erase_deliveries(connection, [row[0] for row in rows], names)
        await _erase_facts(connection, facts)
        drafts = await connection.execute(_DRAFTS, (list(conversations),))
        found = replace(found, drafts=drafts.rowcount)
        details = {
            "erase": person.name, "account": person.account, "deliveries": found.deliveries, "facts": found.facts,
            "drafts": found.drafts, "unfinished": found.unfinished,
        }  # fmt: skip
        await connection.execute(_RECORD, (operator, reason, json.dumps(details)))
        return found


async def _matching(connection: Connection, person: Person) -> tuple[list[Any], int]:
    """Id, delivery id and conversation of the finished deliveries that concern `person`; how many are not finished."""
    found: list[Any] = []
    unfinished, after = 0, 0
    conversation = None if person.conversation is None else str(person.conversation)
    given = {"conversation": conversation, "needle": person.needle, "mark": ERASED_MARK, "page": _PAGE}
    while True:
        rows = await (await connection.execute(_CANDIDATES, given | {"after": after})).fetchall()
        if not rows:
            return found, unfinished
        after = rows[-1][0]
        for row in rows:
            if not person.concerns(_parsed(row[4])):
                continue
            if row[3] in {"received", "forwarding", "waiting"}:
                unfinished += 1
            else:
                found.append(row[:3])


async def _erase_deliveries(connection: Connection, ids: Sequence[int], names: Sequence[str]) -> None:
    given = {
        "ids": list(ids), "names": list(names), "erased": ERASED, "text": ERASED.decode(), "mark": ERASED_MARK.decode(),
    }  # fmt: skip
    for statement in (_DELIVERIES, _ANSWERS, _EDITS, _ASIDE):
        await connection.execute(statement, given)


async def _facts(connection: Connection, person: Person, names: Sequence[str]) -> list[str]:
    """The places of the dead letters' facts that concern `person` or one of the deliveries `names`."""
    known, found = set(names), []
    async with connection.cursor() as cursor:
        given = {"kind": FactType.DEAD_LETTER, "needle": person.needle.decode(), "names": list(names)}
        await cursor.execute(_FACTS, given)
        async for place, value, metadata in cursor:
            if _is_theirs(person, known, value, metadata):
                found.append(place)
    return found


def _is_theirs(person: Person, names: set[str], value: object, metadata: object) -> bool:
    """True for a fact whose payload is not erased yet and concerns `person`."""
    if not isinstance(value, dict) or "payload" not in value or value["payload"] == json.loads(ERASED):
        return False
    notes = metadata if isinstance(metadata, dict) else {}
    if notes.get("deliveryId") in names:
        return True
    payload = value["payload"]
    if isinstance(payload, dict) and payload.get("truncated") is True:
        return person.conversation is not None and str(notes.get("conversationId")) == str(person.conversation)
    return person.concerns(_parsed(payload.encode()) if isinstance(payload, str) else payload)


async def _erase_facts(connection: Connection, places: Sequence[str]) -> None:
    if not places:
        return
    row = await (await connection.execute(_COLUMN)).fetchone()
    kind = _TYPES[row[0] if row else "jsonb"]
    statement = SQL(_ERASE_FACTS).format(type=SQL(kind))
    await connection.execute(statement, {"places": list(places), "text": ERASED.decode()})


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
