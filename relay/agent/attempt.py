"""One try at a note whose claim is held: read the conversation, wait for quiet, draft, read it again, post.

The draft is stored before it is posted and the note carries its key, so that a try after an uncertain one finds the
note in Chatwoot. Only the newest message's webhook posts; the webhooks of older ones leave it to that one.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.agent import rules
from relay.agent.failures import Busy, NoNote, Unsettled
from relay.agent.message import Author
from relay.agent.prompt import NOTHING_TO_READ, late_mark, make_request
from relay.agent.rules import Ended
from relay.chatwoot.client import ChatwootError
from relay.store import notes
from relay.text import chatwoot_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from relay.agent.conversations import Conversations, Seen
    from relay.agent.drafts import ModelDrafter, TemplateDrafter
    from relay.agent.media import AttachmentReader
    from relay.agent.message import Message
    from relay.agent.rules import Rules
    from relay.agent.webhook import Webhook
    from relay.store.database import Database
    from relay.store.notes import NoteKey, NoteState

SETTLE_S = 25.0
"""How long after its begin a post may still reach Chatwoot: the agent waits 10 s for the answer, and Rails ends a
request after 15 s (rack-timeout)."""

LATE_AFTER_S = 600.0
"""A draft that comes later than this after the customer's message is marked as late."""

DRAFT_CHARS = 8_000
_POLLS_A_WINDOW = 3
_POLL_S = (0.2, 1.0)  # at least and at most between two reads
_OVER = frozenset({500, 502, 503})
"""Answers after which Chatwoot works on a request no longer. After a 504 it may."""


@dataclass(frozen=True, slots=True)
class Job:
    """A webhook with a customer's message to draft a reply to.

    `delivery_key` is the webhook's idempotency key, which notes of earlier versions carry. A `test` is posted at once,
    under a key of its own.
    """

    webhook: Webhook
    message: Message
    conversation_id: int
    delivery_key: str
    test: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """The note is in Chatwoot. `fresh` if this webhook posted it."""

    note_id: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class LeftToNewer:
    """The webhook of a newer message makes the draft."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """No draft is wanted: why."""

    reason: str


Outcome = Written | LeftToNewer | Ignored
_ENDS: dict[Ended, Outcome] = {
    Ended.ANSWERED: Ignored("answered already"),
    Ended.LEFT_TO_NEWER: LeftToNewer(),
    Ended.DELETED: Ignored("deleted message"),
}


@dataclass(frozen=True, slots=True)
class Means:
    """What notes are made with."""

    database: Database
    conversations: Conversations
    drafter: TemplateDrafter | ModelDrafter
    attachments: AttachmentReader
    rules: Rules
    quiet_s: float

    async def draft(self, webhook: Webhook, thread: Sequence[Message], group: Sequence[Message]) -> str:
        """A draft that answers the messages in `group`, which are in `thread`; fit to be posted.

        Raises:
            DraftFailed: the language model makes none.
        """
        media = await self.attachments.read(group)
        request = make_request(webhook.name, webhook.language, thread, group, media)
        if not request.turns:
            return NOTHING_TO_READ
        return chatwoot_text(await self.drafter.draft(request), limit=DRAFT_CHARS)


class Attempt:
    """A try at the note of `key` under `claim`."""

    def __init__(self, means: Means, job: Job, key: NoteKey, claim: UUID) -> None:
        self._means = means
        self._job = job
        self._key = key
        self._claim = claim
        self._anchor = job.message.id
        self._marks = frozenset({key.text, job.delivery_key} - {""})

    async def run(self, state: NoteState) -> Outcome:
        """Do what is left to do by the note's `state`.

        Raises:
            NoNote, ChatwootError, StoreUnavailable: it could not be done.
        """
        if self._job.test and state.posting_s is None:
            return await self._post(state.draft or await self._new_draft([]))
        seen = await self._look()
        if found := await self._found(seen):
            return found
        if state.posting_s is not None:
            if state.posting_s < SETTLE_S:
                raise Unsettled(SETTLE_S - state.posting_s)
            await self._not_posted()
        if self._job.webhook.is_form:
            self._anchor = max(one.id for one in (*seen.messages, self._job.message))
        if ended := await self._ended(seen):
            return ended
        draft = state.draft
        if draft is None:
            history = await self._means.conversations.until(self._job.conversation_id, self._anchor)
            if ended := await self._quiet(history):
                return ended
            draft = await self._new_draft(history)
        now = await self._look()
        return await self._found(now) or await self._ended(now) or await self._post(draft)

    async def _look(self) -> Seen:
        return await self._means.conversations.since(self._job.conversation_id, self._job.message.id)

    async def _found(self, seen: Seen, *, fresh: bool = False) -> Written | None:
        """The note, if Chatwoot has it."""
        note_id = rules.note_under(seen.messages, self._marks)
        if note_id is None:
            return None
        await self._posted(note_id)
        return Written(note_id, fresh)

    async def _ended(self, seen: Seen) -> Outcome | None:
        """What ends the webhook without a draft, by the conversation as it is now."""
        if self._job.test:
            return None
        if ended := rules.ended_by(seen.messages, self._job.message.id, self._anchor):
            return _ENDS[ended]
        state = self._job.webhook.state.updated(seen.state)
        if self._means.rules.statuses:
            state = state.with_status(await self._means.conversations.status(self._job.conversation_id))
        reason = rules.state_ignored_because(state, self._means.rules)
        return None if reason is None else Ignored(reason)

    async def _quiet(self, history: Sequence[Message]) -> Outcome | None:
        """Wait until the customer writes no more. Returns what ended the wait, None if it is over."""
        if self._job.test:
            return None
        clock = asyncio.get_running_loop().time
        wait_s = rules.quiet_wait_s(self._means.quiet_s, self._thread(history))
        poll_s = min(max(wait_s / _POLLS_A_WINDOW, _POLL_S[0]), _POLL_S[1])
        until = clock() + wait_s
        while (left_s := until - clock()) > 0:
            await asyncio.sleep(min(left_s, poll_s))
            if ended := await self._ended(await self._look()):
                return ended
        return None

    def _thread(self, history: Sequence[Message]) -> list[Message]:
        """`history` in the order of the ids, with the job's message at its end.

        Chatwoot's own copy of the message is taken if there is one, except for a form's, which has no answers in it.
        """
        message = self._job.message
        stored = next((one for one in history if one.id == message.id and one.author is Author.CUSTOMER), message)
        return [*(one for one in history if one.id != message.id), stored]

    async def _new_draft(self, history: Sequence[Message]) -> str:
        thread = self._thread(history)
        group = rules.unanswered(thread[:-1], thread[-1])
        draft = await self._means.draft(self._job.webhook, thread, group)
        async with self._means.database.connection() as connection:
            await notes.keep_draft(connection, self._key, self._claim, draft)
        return draft

    async def _post(self, draft: str) -> Written:
        late = "" if self._job.test else late_mark(self._job.message.created_at, time.time(), LATE_AFTER_S)
        async with self._means.database.connection() as connection:
            if not await notes.begin_post(connection, self._key, self._claim):
                raise Busy
        try:
            note_id = await self._means.conversations.post_note(self._job.conversation_id, late + draft, self._key.text)
        except ChatwootError as error:
            return await self._after_failed_post(error)
        await self._posted(note_id)
        return Written(note_id, fresh=True)

    async def _after_failed_post(self, error: ChatwootError) -> Written:
        """The note, if Chatwoot has it in spite of `error`, which is raised otherwise."""
        if not error.in_doubt:
            await self._not_posted()
            raise error
        try:
            found = await self._found(await self._look(), fresh=True)
        except ChatwootError:
            found = None
            is_over = False
        else:
            is_over = error.status in _OVER
        if found is not None:
            return found
        if is_over:
            await self._not_posted()
            raise error
        raise NoNote(str(error), retry_after_s=SETTLE_S) from error

    async def _not_posted(self) -> None:
        async with self._means.database.connection() as connection:
            await notes.not_posted(connection, self._key, self._claim)

    async def _posted(self, note_id: int) -> None:
        async with self._means.database.connection() as connection:
            await notes.posted(connection, self._key, note_id)
