"""Backfill in Postgres: which messages came as deliveries, and storing those that did not (DESIGN, 1.6)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from relay.store.database import exact
from relay.store.failures import refusals
from relay.store.replays import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from relay.store.database import Connection

_CLOCKS_APART = timedelta(days=1)
"""Chatwoot's clock, which dates messages, and Postgres', which dates deliveries, are no further apart."""

_CONVERSATIONS_A_STATEMENT = 500
_KNOWN = """
    SELECT DISTINCT p.payload ->> 'id'
      FROM relay.deliveries d CROSS JOIN LATERAL (SELECT relay.payload(d.body) AS payload OFFSET 0) AS p
     WHERE d.conversation_id = ANY(%(conversations)s) AND d.event = 'message_created' AND NOT d.test
       AND d.received_at >= %(since)s
       AND coalesce(p.payload #>> '{account,id}', %(account)s) = %(account)s
"""


async def known_messages(
    connection: Connection, account_id: int, conversations: Sequence[int], since: datetime
) -> set[int]:
    """The ids of the messages of `conversations` that came as deliveries since then, whatever became of them.

    A delivery that names no account counts as of `account_id`.
    """
    known: set[int] = set()
    for start in range(0, len(conversations), _CONVERSATIONS_A_STATEMENT):
        part = [str(number) for number in conversations[start : start + _CONVERSATIONS_A_STATEMENT]]
        given = {"conversations": part, "account": str(account_id), "since": since - _CLOCKS_APART}
        cursor = await exact(connection).execute(_KNOWN, given)
        texts = [str(row[0]) for row in await cursor.fetchall() if row[0] is not None]
        known |= {int(text) for text in texts if text.isascii() and text.isdigit()}
    return known


_STORE = """
    SELECT id, delivery_id, run
      FROM relay.store_backfill(%(ids)s::text[], %(conversations)s::text[], %(bodies)b::bytea[], %(operator)s)
"""
_MOST_MESSAGES, _MOST_BYTES = 500, 16 * 1024 * 1024


async def store(connection: Connection, messages: Sequence[tuple[str, int, bytes]], operator: str) -> list[DeadLetter]:
    """Store messages (delivery id, conversation, body) as dead letters for a replay, and return them.

    All are stored or none. What is stored already and waits as a dead letter is returned too; what was delivered
    meanwhile is not. The audit names `operator`.

    Raises:
        Refused: an id is not `backfill-ACCOUNT-MESSAGE`, or a body is not that message, or larger than 64 MiB.
    """
    letters: list[DeadLetter] = []
    with refusals():
        async with connection.transaction():
            for part in _parts(messages):
                letters += await _store_part(connection, part, operator)
    return letters


def _parts(messages: Sequence[tuple[str, int, bytes]]) -> list[list[tuple[str, int, bytes]]]:
    """`messages` in parts that one statement takes."""
    parts: list[list[tuple[str, int, bytes]]] = []
    room = 0
    for message in messages:
        if not parts or len(parts[-1]) == _MOST_MESSAGES or len(message[2]) > room:
            parts.append([])
            room = _MOST_BYTES
        parts[-1].append(message)
        room -= len(message[2])
    return parts


async def _store_part(
    connection: Connection, messages: Sequence[tuple[str, int, bytes]], operator: str
) -> list[DeadLetter]:
    given = {
        "ids": [delivery_id for delivery_id, _, _ in messages],
        "conversations": [str(number) for _, number, _ in messages],
        "bodies": [body for _, _, body in messages],
        "operator": operator,
    }
    conversations = {delivery_id: str(number) for delivery_id, number, _ in messages}
    cursor = await exact(connection).execute(_STORE, given)
    return [
        DeadLetter(row_id, delivery_id, run, "message_created", conversations[delivery_id], None, None, None)
        for row_id, delivery_id, run in await cursor.fetchall()
    ]


_MESSAGES = """
    SELECT d.id, d.conversation_id, p.payload ->> 'id'
      FROM relay.deliveries d CROSS JOIN LATERAL (SELECT relay.payload(d.body) AS payload OFFSET 0) AS p
     WHERE d.id = ANY(%(ids)s) AND d.customer AND NOT d.test AND d.conversation_id ~ '^[0-9]{1,18}$'
       AND coalesce(p.payload #>> '{account,id}', %(account)s) = %(account)s AND p.payload ->> 'id' ~ '^[0-9]{1,18}$'
"""


async def messages_of(connection: Connection, account_id: int, row_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Conversation and message id of those of the deliveries that are messages of customers of the account, by row."""
    cursor = await exact(connection).execute(_MESSAGES, {"ids": list(row_ids), "account": str(account_id)})
    return {row[0]: (int(row[1]), int(row[2])) for row in await cursor.fetchall()}
