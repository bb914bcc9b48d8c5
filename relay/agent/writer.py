"""One note a webhook: drafted, remembered, posted, whatever is killed in between.

The draft is committed before it is posted, and a try that follows an uncertain one looks for the note in Chatwoot
first: it carries the idempotency key. Two tries at once do not happen: the key is worked on under a lock that
Postgres ends with its holder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.errors import RelayError
from relay.store import notes

if TYPE_CHECKING:
    from relay.agent.drafts import ModelDrafter, TemplateDrafter
    from relay.chatwoot.client import Chatwoot
    from relay.store.database import Connection, Database


class Busy(RelayError):
    """Another try for the same webhook is under way."""


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer's message: whose, in which conversation, what."""

    conversation_id: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Written:
    """The note in Chatwoot; `fresh` if this try posted it."""

    note_id: int
    fresh: bool


class NoteWriter:
    """Writes notes through `chatwoot`."""

    def __init__(self, database: Database, chatwoot: Chatwoot, drafter: TemplateDrafter | ModelDrafter) -> None:
        self._database = database
        self._chatwoot = chatwoot
        self._drafter = drafter

    async def write(self, key: str, customer: Customer) -> Written:
        """Make sure that there is one note for `key`.

        Raises:
            Busy: another try is under way.
            DraftFailed, ChatwootError, StoreUnavailable: it could not be done now.
        """
        async with self._database.connection() as connection, notes.turn(connection, key) as mine:
            if not mine:
                raise Busy("Another try for the same webhook is under way")
            note = await notes.find(connection, key)
            if note is not None and note.note_id is not None:
                return Written(note.note_id, fresh=False)
            if note is None:
                draft = await self._draft(customer)
                await notes.keep(connection, key, customer.conversation_id, draft)
                return await self._post(connection, key, customer.conversation_id, draft)
            found = await self._chatwoot.find_note(customer.conversation_id, key)
            if found is not None:
                await notes.posted(connection, key, found)
                return Written(found, fresh=False)
            return await self._post(connection, key, customer.conversation_id, note.draft)

    async def draft(self, customer: Customer) -> str:
        """A draft for a test webhook: nothing is posted or remembered, and Chatwoot is not asked.

        Raises:
            DraftFailed: the language model makes none now.
        """
        return await self._drafter.draft(customer.name, customer.text, [])

    async def _draft(self, customer: Customer) -> str:
        before = await self._chatwoot.messages(customer.conversation_id) if self._drafter.needs_context else []
        return await self._drafter.draft(customer.name, customer.text, before)

    async def _post(self, connection: Connection, key: str, conversation_id: int, draft: str) -> Written:
        note_id = await self._chatwoot.post_private_note(conversation_id, draft, key)
        await notes.posted(connection, key, note_id)
        return Written(note_id, fresh=True)
