"""What an erasure counts and whose data it leaves, in accounts, partitions, and beside a replay."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import psycopg

from relay.domain.person import Person
from relay.store.erasure import Erased, erase
from relay.store.migrate import migrate
from relay.store.sessions import connected
from tests.servers import Rows, until
from tests.store.plant import DEAD_LETTER, Plant

if TYPE_CHECKING:
    from relay.store.database import Connection

_NOTE = """
    INSERT INTO relay.notes (key, account_id, conversation_id, message_id, note_id, draft)
    VALUES (%(key)s::text, %(account)s, 7, %(key)s::text::int, 1, 'a draft')
"""
_REPLAYED = "UPDATE relay.deliveries SET state = 'received', finished_at = NULL WHERE id = %s"
_BLOCKED = """
    SELECT 1 FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%UPDATE relay.deliveries%'
"""


def payload(conversation: int, account: int = 1) -> dict[str, Any]:
    return {
        "event": "message_created", "account": {"id": account}, "conversation": {"id": conversation},
        "sender": {"id": 14, "type": "contact"},
    }  # fmt: skip


def plant(rows: Rows, conversation: int, account: int, state: str = "dead") -> int:
    body = json.dumps(payload(conversation, account)).encode()
    return Plant(rows).delivery(state, conversation_id=str(conversation), body=body)


async def erased(connection: Connection, person: Person, *, dry_run: bool = False) -> Erased:
    return await erase(
        connection, person, operator="maria", reason="asked", dry_run=dry_run, erase_spooled=nothing_spooled
    )


async def nothing_spooled() -> int:
    return 0


async def test_drafts_go_only_in_the_account_that_is_meant(connection: Connection, rows: Rows) -> None:
    """Chatwoot counts conversations in each account anew."""
    for key, account in enumerate([1, 2, None], 1):
        rows(_NOTE, {"key": str(key), "account": account})
    plant(rows, 7, 2)
    drafts = "SELECT key FROM relay.notes WHERE draft <> '' ORDER BY key"
    for person, number, left in [
        (Person(conversation=7, account=3), 1, ["1", "2"]),  # an earlier version's note names no account
        (Person(contact=14), 1, ["1"]),  # the contact's conversation is in account 2
        (Person(conversation=7), 1, []),
    ]:
        assert (await erased(connection, person, dry_run=True)).drafts == number, person
        assert (await erased(connection, person)).drafts == number, person
        assert rows(drafts) == left, person


async def test_a_delivery_that_is_replayed_meanwhile_is_counted_as_unfinished(
    connection: Connection, rows: Rows
) -> None:
    replayed, dead = plant(rows, 7, 1), plant(rows, 7, 1)
    async with await psycopg.AsyncConnection.connect(rows.dsn) as other:
        await other.execute(_REPLAYED, (replayed,))
        erasing = asyncio.create_task(erased(connection, Person(conversation=7)))
        await until(lambda: rows(_BLOCKED))
    found = await erasing
    assert (found.deliveries, found.unfinished) == (1, 1)
    assert rows("SELECT id FROM relay.deliveries WHERE body = %s", (b'{"erased": true}',)) == [dead]
    assert rows("SELECT details ->> 'unfinished' FROM relay.operator_actions") == ["1"]


async def test_in_a_partitioned_table_only_their_facts_go(empty_dsn: str) -> None:
    rows = Rows(empty_dsn)
    rows(
        "CREATE TABLE dashboard_facts (fact_type text, scope text, value jsonb, metadata jsonb, "
        "recorded_at timestamptz DEFAULT now()) PARTITION BY LIST (scope)"
    )
    for scope in ("a", "b"):
        rows(f"CREATE TABLE facts_{scope} PARTITION OF dashboard_facts FOR VALUES IN ('{scope}')")
    await migrate(empty_dsn)
    for scope, conversation in (("a", 7), ("b", 77)):
        rows(
            "INSERT INTO dashboard_facts (fact_type, scope, value) VALUES ('support.webhook.dead_letter', %s, %s)",
            (scope, json.dumps({"payload": payload(conversation)})),
        )
    async with connected(empty_dsn) as connection:
        assert (await erased(connection, Person(conversation=7))).facts == 1
    left = rows("SELECT scope, value -> 'payload' ? 'erased' FROM dashboard_facts ORDER BY 1")
    assert left == [("a", True), ("b", False)]


async def test_what_the_agent_repeated_goes_too(connection: Connection, rows: Rows) -> None:
    row, said = plant(rows, 7, 1), "Agent SDK answered 502: jane wrote this"
    rows("UPDATE relay.deliveries SET last_error = %s, agent_status = 'jane wrote this'", (said,))
    rows("INSERT INTO relay.attempts (delivery, run, number, started_at, wait_ms, duration_ms, status, error, answer) "
         "VALUES (%s, 1, 1, now(), 0, 1, '502', %s, '')", (row, said))  # fmt: skip
    Plant(rows).facts(DEAD_LETTER, {"payload": payload(7), "lastError": said, "attempts": 3})
    assert await erased(connection, Person(conversation=7)) == Erased(deliveries=1, facts=1)
    assert rows("SELECT last_error, agent_status FROM relay.deliveries") == [("Agent SDK answered 502", None)]
    assert rows("SELECT error FROM relay.attempts") == ["Agent SDK answered 502"]
    assert rows("SELECT last_error FROM relay.dead_causes WHERE position('jane' IN last_error) > 0") == []
    ((value, _),) = rows.facts(DEAD_LETTER)
    assert value == {"payload": {"erased": True}, "lastError": "Agent SDK answered 502", "attempts": 3}


_ASIDE = """
    INSERT INTO relay.facts_aside (delivery_id, fact_type, scope, value, metadata, payload, refused)
    VALUES (%s, 'support.webhook.dead_letter', 's', %s::jsonb, '{}', %s, true)
"""


async def test_facts_that_wait_aside_go_without_their_delivery_too(connection: Connection, rows: Rows) -> None:
    theirs, others = json.dumps(payload(7)), json.dumps(payload(77))
    long = json.dumps(payload(7) | {"content": "jane wrote this" * 100})
    for value, text in (("{}", theirs), (f'{{"payload": {theirs}}}', None), (json.dumps({"payload": long}), None)):
        rows(_ASIDE, ("gone", value, text))
    rows(_ASIDE, ("another", json.dumps({"payload": json.loads(others)}), None))
    assert (await erased(connection, Person(conversation=7), dry_run=True)).facts == 3
    assert (await erased(connection, Person(conversation=7))).facts == 3
    left = rows("SELECT payload, value -> 'payload' FROM relay.facts_aside ORDER BY id")
    assert left == [(None, {"erased": True})] * 3 + [(None, json.loads(others))]
    assert (await erased(connection, Person(conversation=7))).facts == 0
