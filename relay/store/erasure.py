"""Erases a person's stored payloads from deliveries, facts and this host's spool, and what the agent said of them, for
it may have repeated what a customer wrote. Needs the tables' owner's rights.

States, times and counts stay, so that the figures do not change, and so do the numbers of erased messages, so that a
backfill does not take them for missing. What is still to be forwarded is left as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL

from relay.domain.delivery import FactType
from relay.domain.person import ERASED, ERASED_MARK, account_of
from relay.domain.retry import SAID
from relay.store.database import exact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from relay.domain.delivery import Receipt
    from relay.domain.person import Person
    from relay.store.database import Connection

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Erased:
    """How many rows held a payload of the person, and how many receipts in this host's spool (`spooled`).

    `unfinished` deliveries were left: they are still to be forwarded.
    """

    deliveries: int = 0
    facts: int = 0
    drafts: int = 0
    unfinished: int = 0
    spooled: int = 0


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
           encoded_body = NULL, agent_status = NULL, last_error = split_part(d.last_error, %(said)s, 1),
           state = CASE state WHEN 'dead' THEN 'discarded' ELSE state END
      FROM (SELECT g.id, substring(g.payload ->> 'id' FROM '^[0-9]{1,18}$') AS message,
                   substring(g.payload #>> '{account,id}' FROM '^[0-9]{1,18}$') AS account
              FROM (SELECT id, relay.payload(body) AS payload FROM relay.deliveries
                     WHERE id = ANY(%(ids)s) OFFSET 0) AS g) AS p
     WHERE d.id = p.id AND d.state IN ('delivered', 'dead', 'discarded', 'ignored')
    RETURNING d.id
"""
_ANSWERS = """
    UPDATE relay.attempts SET answer = '', error = split_part(error, %(said)s, 1)
     WHERE delivery = ANY(%(ids)s) AND (answer <> '' OR position(%(said)s IN error) > 0)
"""
# What is counted of a cause is spread over its writers' rows. Those that another session holds are left to retention.
_CAUSES = """
    WITH locked AS MATERIALIZED (
        SELECT c.writer, c.final_status, c.last_error, c.event, c.letters FROM relay.dead_causes c
         WHERE position(%(said)s IN c.last_error) > 0 FOR UPDATE SKIP LOCKED
    ), over AS (
        SELECT l.final_status, l.last_error, l.event FROM locked l GROUP BY 1, 2, 3
        HAVING sum(l.letters) = 0 AND count(*) = (
               SELECT count(*) FROM relay.dead_causes d
                WHERE (d.final_status, d.last_error, d.event) = (l.final_status, l.last_error, l.event))
    )
    DELETE FROM relay.dead_causes d USING over o
     WHERE (d.final_status, d.last_error, d.event) = (o.final_status, o.last_error, o.event)
       AND d.writer IN (SELECT l.writer FROM locked l WHERE l.last_error = d.last_error)
"""
_EDITS = """
    UPDATE relay.replay_plans p SET edited_body = NULL
     WHERE edited_body IS NOT NULL
       AND EXISTS (SELECT FROM relay.replay_items i WHERE i.plan_id = p.id AND i.delivery = ANY(%(ids)s))
"""
_ASIDE = """
    SELECT id, payload, value, metadata FROM relay.facts_aside
     WHERE fact_type = %(kind)s AND (payload IS NOT NULL OR value ? 'payload')
       AND (position(%(needle)s IN concat(payload, value, metadata)) > 0 OR delivery_id = ANY(%(names)s))
"""
_ERASE_ASIDE = """
    UPDATE relay.facts_aside
       SET payload = NULL, value = jsonb_set(value, '{payload}', %(text)s::jsonb)
                || CASE WHEN value ? 'lastError' THEN jsonb_build_object(
                        'lastError', split_part(value ->> 'lastError', %(said)s, 1)) ELSE '{}' END
     WHERE id = ANY(%(ids)s)
"""
_THEIRS = SQL("""
    n.note_id IS NOT NULL AND n.draft <> ''
       AND EXISTS (SELECT FROM unnest(%(accounts)s::bigint[], %(conversations)s::bigint[]) AS t(account, conversation)
                    WHERE t.conversation = n.conversation_id
                      AND (t.account IS NULL OR n.account_id IS NULL OR t.account = n.account_id))
""")
_DRAFTS = SQL("UPDATE relay.notes n SET draft = '' WHERE {}").format(_THEIRS)
_COUNT_DRAFTS = SQL("SELECT count(*) FROM relay.notes n WHERE {}").format(_THEIRS)
_COLUMN = """
    SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
     WHERE a.attrelid = to_regclass('dashboard_facts') AND a.attname = 'value'
"""
_FACTS = """
    SELECT tableoid::bigint AS part, ctid::text AS place, relay.json_or_null(format('%%s', value)) AS value,
           relay.json_or_null(format('%%s', metadata)) AS metadata
      FROM dashboard_facts
     WHERE rtrim(format('%%s', fact_type)) = %(kind)s
       AND (position(%(needle)s IN concat(value, metadata)) > 0
            OR relay.json_or_null(format('%%s', metadata)) ->> 'deliveryId' = ANY(%(names)s))
"""
_ERASE_FACTS = """
    UPDATE dashboard_facts f
       SET value = (jsonb_set(f.value::text::jsonb, '{{payload}}', %(text)s::jsonb)
                    || CASE WHEN f.value::text::jsonb ? 'lastError' THEN jsonb_build_object(
                            'lastError', split_part(f.value::text::jsonb ->> 'lastError', %(said)s, 1))
                            ELSE '{{}}' END)::text::{type}
      FROM unnest(%(parts)s::oid[], %(places)s::tid[]) AS p(part, place)
     WHERE f.tableoid = p.part AND f.ctid = p.place
"""
_RECORD = "SELECT relay.record_action(operator => %s, action => 'note', reason => %s, details => %s::jsonb)"


async def erase(
    connection: Connection,
    person: Person,
    *,
    operator: str,
    reason: str,
    dry_run: bool,
    erase_spooled: Callable[[], Awaitable[int]],
) -> Erased:
    """Erase the payloads of `person` and record that in the audit; with `dry_run` only count them.

    All in one transaction, but for the spool: `erase_spooled` erases there (with `dry_run` it counts) and returns how
    many receipts. It is called once it is clear that the login may, and before the deliveries are read: a receipt that
    is drained meanwhile is found among them.

    Raises:
        SpoolError: the spool cannot be read or written.
        psycopg.Error: the login may not, or Postgres is away; nothing has changed then.
    """
    async with connection.transaction():
        if not dry_run:
            await _erase_deliveries(connection, [])  # fails if the login may not
        spooled = await erase_spooled()
        rows, unfinished = await _matching(connection, person)
        theirs = _conversations(person, rows)
        names = [row.name for row in rows]
        waiting = await _aside(connection, person, names, lock=not dry_run)  # first: one may be on its way to the facts
        facts = await _facts(connection, person, names)
        if dry_run:
            row = await (await connection.execute(_COUNT_DRAFTS, theirs)).fetchone()
            return Erased(len(rows), len(facts) + len(waiting), row[0] if row else 0, unfinished, spooled)
        erased = await _erase_deliveries(connection, rows)
        open_now = unfinished + len(rows) - erased
        await connection.execute(_ERASE_ASIDE, {"ids": waiting, "text": ERASED.decode(), "said": SAID})
        number = await _erase_facts(connection, facts) + len(waiting)
        found = Erased(erased, number, unfinished=open_now, spooled=spooled)
        drafts = await connection.execute(_DRAFTS, theirs)
        found = replace(found, drafts=drafts.rowcount)
        details = {
            "erase": person.name, "account": person.account, "deliveries": found.deliveries, "facts": found.facts,
            "drafts": found.drafts, "unfinished": found.unfinished, "spooled": found.spooled,
        }  # fmt: skip
        await connection.execute(_RECORD, (operator, reason, json.dumps(details)))
        return found


def concerned(person: Person) -> Callable[[Receipt], bool]:
    """True for a receipt whose payload concerns `person`."""
    return lambda receipt: person.concerns(_parsed(receipt.body))


@dataclass(frozen=True, slots=True)
class _Match:
    """A delivery that concerns the person: its row, Chatwoot's id, its conversation and account as its payload says."""

    id: int
    name: str
    conversation: int | None
    account: int | None


async def _matching(connection: Connection, person: Person) -> tuple[list[_Match], int]:
    """The finished deliveries that concern `person`, and how many are not finished."""
    found: list[_Match] = []
    unfinished, after = 0, 0
    conversation = None if person.conversation is None else str(person.conversation)
    given = {"conversation": conversation, "needle": person.needle, "mark": ERASED_MARK, "page": _PAGE}
    while True:
        rows = await (await connection.execute(_CANDIDATES, given | {"after": after})).fetchall()
        if not rows:
            return found, unfinished
        after = rows[-1][0]
        for row_id, name, number, state, body in rows:
            payload = _parsed(body)
            if not person.concerns(payload):
                continue
            if state in {"received", "forwarding", "waiting"}:
                unfinished += 1
            else:
                belongs_to = int(number) if number and number.isdecimal() else None
                found.append(_Match(row_id, name, belongs_to, account_of(payload)))


def _conversations(person: Person, rows: Sequence[_Match]) -> dict[str, list[Any]]:
    """The conversations whose drafts go, each with its account: that of the payload, else the person's (None: any)."""
    own = {(row.account or person.account, row.conversation) for row in rows if row.conversation is not None}
    if person.conversation is not None:
        own.add((person.account, person.conversation))
    return {"accounts": [account for account, _ in own], "conversations": [number for _, number in own]}


async def _erase_deliveries(connection: Connection, rows: Sequence[_Match]) -> int:
    """Erase the payloads of deliveries; returns how many. One that is forwarded again by now is left as it is."""
    given = {"ids": [row.id for row in rows], "erased": ERASED, "mark": ERASED_MARK.decode(), "said": SAID}
    erased = await connection.execute(_DELIVERIES, given)
    ids = [row[0] for row in await erased.fetchall()]
    for statement in (_ANSWERS, _EDITS, _CAUSES):
        await connection.execute(statement, {"ids": ids, "said": SAID})
    return len(ids)


async def _aside(connection: Connection, person: Person, names: Sequence[str], *, lock: bool) -> list[int]:
    """The facts that wait aside and concern `person` or one of the deliveries `names`. With `lock` they stay there."""
    given = {"kind": FactType.DEAD_LETTER, "needle": person.needle.decode(), "names": list(names)}
    known, found = set(names), []
    cursor = await exact(connection).execute(_ASIDE + (" FOR UPDATE" if lock else ""), given)
    for row, payload, value, metadata in await cursor.fetchall():
        whole = value if payload is None else {**value, "payload": _parsed(payload.encode())}
        if _is_theirs(person, known, whole, metadata):
            found.append(row)
    return found


async def _facts(connection: Connection, person: Person, names: Sequence[str]) -> list[tuple[int, str]]:
    """The places of the dead letters' facts that concern `person` or one of the deliveries `names`.

    A place is a table, which may be a partition, and a row's place in it.
    """
    known, found = set(names), []
    async with exact(connection) as cursor:  # a payload that is no object is a text, and all of it counts
        given = {"kind": FactType.DEAD_LETTER, "needle": person.needle.decode(), "names": list(names)}
        await cursor.execute(_FACTS, given)
        async for part, place, value, metadata in cursor:
            if _is_theirs(person, known, value, metadata):
                found.append((part, place))
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


async def _erase_facts(connection: Connection, places: Sequence[tuple[int, str]]) -> int:
    """Erase the payloads of facts; returns how many."""
    if not places:
        return 0
    row = await (await connection.execute(_COLUMN)).fetchone()
    kind = (row[0] if row else "jsonb").replace("%", "%%")
    statement = SQL(_ERASE_FACTS).format(type=SQL(kind))
    parts, rows = (list(column) for column in zip(*places, strict=True))
    given = {"parts": parts, "places": rows, "text": ERASED.decode(), "said": SAID}
    done = await connection.execute(statement, given)
    return done.rowcount


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
