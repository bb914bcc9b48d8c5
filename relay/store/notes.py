"""The reference agent's notes: who works on which one, its draft, and whether Chatwoot has it.

Every statement is a transaction of its own, so that no connection is held while a model or Chatwoot is waited for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.store.database import exact_rows_of

if TYPE_CHECKING:
    from uuid import UUID

    from relay.store.database import Connection


@dataclass(frozen=True, slots=True)
class NoteKey:
    """What a note is recognised by, here and in Chatwoot (`text`), and what it belongs to."""

    text: str
    account_id: int
    conversation_id: int
    message_id: int


@dataclass(frozen=True, slots=True)
class NoteState:
    """A note's row. `mine`: the caller holds the claim.

    `note_id` is Chatwoot's, once the note is known to be posted. `posting_s` is how many seconds ago a post began whose
    end is not known; None if there is none.
    """

    mine: bool
    note_id: int | None = None
    draft: str | None = None
    posting_s: float | None = None


_CLAIM = """
    WITH taken AS (
        INSERT INTO relay.notes AS n (key, account_id, conversation_id, message_id, claim, claimed_until)
        VALUES (%(key)s, %(account)s, %(conversation)s, %(message)s, %(claim)s,
                clock_timestamp() + %(lease_s)s * interval '1 second')
        ON CONFLICT (key) DO UPDATE SET claim = excluded.claim, claimed_until = excluded.claimed_until
         WHERE n.note_id IS NULL AND coalesce(n.claimed_until, '-infinity') < clock_timestamp()
        RETURNING n.note_id, n.draft, n.posting_at
    ), state AS (
        SELECT true AS mine, note_id, draft, posting_at FROM taken
        UNION ALL
        SELECT false, note_id, draft, posting_at FROM relay.notes
         WHERE key = %(key)s AND NOT EXISTS (SELECT FROM taken)
    )
    SELECT mine, note_id, draft, extract(epoch FROM clock_timestamp() - posting_at)::float8 AS posting_s
      FROM state
"""
_RENEW = """
    UPDATE relay.notes SET claimed_until = clock_timestamp() + %(lease_s)s * interval '1 second'
     WHERE key = %(key)s AND claim = %(claim)s AND claimed_until IS NOT NULL
"""
_KEEP_DRAFT = "UPDATE relay.notes SET draft = %(draft)s WHERE key = %(key)s AND claim = %(claim)s"
_BEGIN_POST = """
    UPDATE relay.notes SET posting_at = clock_timestamp()
     WHERE key = %(key)s AND claim = %(claim)s AND claimed_until > clock_timestamp() AND note_id IS NULL
"""
_NOT_POSTED = "UPDATE relay.notes SET posting_at = NULL WHERE key = %(key)s AND claim = %(claim)s"
_POSTED = """
    UPDATE relay.notes SET note_id = %(note_id)s, posted_at = now(), posting_at = NULL, claimed_until = NULL
     WHERE key = %(key)s
"""
_FORGET_EMPTY = """
    DELETE FROM relay.notes
     WHERE key = %(key)s AND claim = %(claim)s AND draft IS NULL AND posting_at IS NULL AND note_id IS NULL
"""
_RELEASE = "UPDATE relay.notes SET claimed_until = NULL WHERE key = %(key)s AND claim = %(claim)s"


async def claim(connection: Connection, key: NoteKey, claim: UUID, lease_s: float) -> NoteState:
    """Claim the note of `key` for `lease_s` seconds, unless it is posted or another agent holds a claim on it."""
    values = {
        "key": key.text, "account": key.account_id, "conversation": key.conversation_id, "message": key.message_id,
        "claim": claim, "lease_s": lease_s,
    }  # fmt: skip
    cursor = await exact_rows_of(connection, NoteState).execute(_CLAIM, values)
    return await cursor.fetchone() or NoteState(mine=False)  # None: another agent inserts it just now


async def renew(connection: Connection, key: NoteKey, claim: UUID, lease_s: float) -> None:
    """Extend a claim that is still held."""
    await connection.execute(_RENEW, {"key": key.text, "claim": claim, "lease_s": lease_s})


async def keep_draft(connection: Connection, key: NoteKey, claim: UUID, draft: str) -> None:
    """Store the draft before it is posted, so that it is made once."""
    await connection.execute(_KEEP_DRAFT, {"key": key.text, "claim": claim, "draft": draft})


async def begin_post(connection: Connection, key: NoteKey, claim: UUID) -> bool:
    """Record that the note is about to be posted. False if the claim ran out: then it must not be posted."""
    cursor = await connection.execute(_BEGIN_POST, {"key": key.text, "claim": claim})
    return cursor.rowcount == 1


async def not_posted(connection: Connection, key: NoteKey, claim: UUID) -> None:
    """Record that the post ended and that Chatwoot does not have the note."""
    await connection.execute(_NOT_POSTED, {"key": key.text, "claim": claim})


async def posted(connection: Connection, key: NoteKey, note_id: int) -> None:
    """Record that Chatwoot has the note."""
    await connection.execute(_POSTED, {"key": key.text, "note_id": note_id})


async def release(connection: Connection, key: NoteKey, claim: UUID) -> None:
    """End a claim. A row without a draft goes; one with a draft waits for the next try."""
    values = {"key": key.text, "claim": claim}
    await connection.execute(_FORGET_EMPTY, values)
    await connection.execute(_RELEASE, values)
