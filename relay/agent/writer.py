"""One private note for each group of a customer's messages: who works on it, across all agents.

A note is keyed by account and newest message. One agent at a time works on a key, under a claim in Postgres that it
renews; no connection is held while a model or Chatwoot is waited for. What is done under a claim is in `attempt`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from relay.agent.attempt import Attempt, Written
from relay.agent.failures import Busy
from relay.errors import StoreUnavailable
from relay.store import notes
from relay.store.notes import NoteKey

if TYPE_CHECKING:
    from uuid import UUID

    from relay.agent.attempt import Job, Means, Outcome
    from relay.agent.webhook import Webhook
    from relay.store.notes import NoteState

LEASE_S = 6.0
"""How long a claim outlives an agent that was killed."""

_BUSY_PATIENCE_S = 10.0
_BUSY_POLL_S = 0.25


class NoteWriter:
    """Writes notes with `means`. `close` it at the end."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._running: dict[str, asyncio.Task[Outcome]] = {}

    async def close(self) -> None:
        """End what still runs, and release its claims."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def write(self, job: Job) -> Outcome:
        """Make sure that there is one note for the job's message, unless none is wanted.

        The work continues when the caller is cancelled, so that a relay that gave up finds the note at its next try. A
        second caller for the same note waits for the first one's.

        Raises:
            NoNote, ChatwootError, StoreUnavailable: it could not be done.
        """
        key = self._key(job)
        running = self._running.get(key.text)
        if running is not None:
            outcome = await asyncio.shield(running)
            return replace(outcome, fresh=False) if isinstance(outcome, Written) else outcome
        task = self._running[key.text] = asyncio.create_task(self._write(job, key))
        task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    async def draft(self, webhook: Webhook) -> str:
        """A draft for a test webhook: nothing is posted or stored, and Chatwoot is not asked.

        Raises:
            DraftFailed: the language model makes none.
        """
        assert webhook.message is not None
        return await self._means.draft(webhook, [webhook.message], [webhook.message])

    def _forget(self, key: NoteKey, task: asyncio.Task[Outcome]) -> None:
        del self._running[key.text]
        if not task.cancelled():
            task.exception()  # those who waited for it may be gone

    def _key(self, job: Job) -> NoteKey:
        account, message = self._means.rules.account_id, job.message.id
        text = f"relay-test-{job.delivery_key}" if job.test else f"relay-draft-{account}-{message}"
        return NoteKey(text, account, job.conversation_id, message)

    async def _write(self, job: Job, key: NoteKey) -> Outcome:
        claim = uuid4()
        state = await self._claimed(key, claim)
        if state.note_id is not None:
            return Written(state.note_id, fresh=False)
        renewing = asyncio.create_task(self._renew(key, claim))
        try:
            return await Attempt(self._means, job, key, claim).run(state)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            with contextlib.suppress(StoreUnavailable):
                async with self._means.database.connection() as connection:
                    await notes.release(connection, key, claim)

    async def _claimed(self, key: NoteKey, claim: UUID) -> NoteState:
        """The note's state, once it is posted or once `claim` holds it."""
        deadline = time.monotonic() + _BUSY_PATIENCE_S
        while True:
            async with self._means.database.connection() as connection:
                state = await notes.claim(connection, key, claim, LEASE_S)
            if state.mine or state.note_id is not None:
                return state
            if time.monotonic() > deadline:
                raise Busy
            await asyncio.sleep(_BUSY_POLL_S)

    async def _renew(self, key: NoteKey, claim: UUID) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            with contextlib.suppress(StoreUnavailable):
                async with self._means.database.connection() as connection:
                    await notes.renew(connection, key, claim, LEASE_S)
