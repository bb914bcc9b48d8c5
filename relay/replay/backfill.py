"""Backfill: finds the messages of customers that Chatwoot has and no webhook brought here (DESIGN, 1.6).

Reads Chatwoot's conversations, the last active first, and each one's messages back to the window's beginning. Storing
what is missing and replaying it is the caller's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.chatwoot.client import AT_ONCE, ChatwootError
from relay.chatwoot.faults import Fault
from relay.chatwoot.synthesis import message_created
from relay.domain.delivery import BACKFILL_ID
from relay.replay.answered import answered_of, replies_in

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from relay.chatwoot.client import Chatwoot, Conversation, Message

_MOST_PASSES = 5


@dataclass(frozen=True, slots=True)
class Found:
    """A customer's message within the window. `answered`: a public reply followed it."""

    conversation_id: int
    message_id: int
    created_at: int
    answered: bool
    body: bytes

    def delivery_id(self, account_id: int) -> str:
        """The id of the delivery that backfill makes of it."""
        return f"{BACKFILL_ID}{account_id}-{self.message_id}"


async def customers_messages(chatwoot: Chatwoot, account_id: int, since: datetime, until: datetime) -> list[Found]:
    """All messages of customers from `since` until before `until`, in the order in which they were written.

    Raises:
        ChatwootError: Chatwoot cannot be asked.
    """
    conversations = await _active_since(chatwoot, int(since.timestamp()))
    turn = asyncio.Semaphore(AT_ONCE)

    async def read(conversation: Conversation) -> list[Found]:
        async with turn:
            messages = await _messages_since(chatwoot, conversation.id, int(since.timestamp()))
        incoming = [
            message
            for message in messages
            if message.incoming and not message.private and since.timestamp() <= message.created_at < until.timestamp()
        ]
        answered = answered_of((message.id for message in incoming), replies_in(messages))
        return [
            Found(
                conversation.id, message.id, message.created_at, message.id in answered,
                message_created(message.raw, conversation.raw, account_id),
            )
            for message in incoming
        ]  # fmt: skip

    found = await asyncio.gather(*map(read, conversations))
    return sorted((one for part in found for one in part), key=lambda one: one.message_id)


def missing(found: Collection[Found], known: Collection[int]) -> list[Found]:
    """Those of `found` whose message id is not `known`, in their order."""
    return [one for one in found if one.message_id not in known]


async def _active_since(chatwoot: Chatwoot, since: int) -> list[Conversation]:
    """The conversations that were active at `since` or later.

    A conversation that becomes active moves to the first page while later pages are read, and those behind it move
    back. So the pages are read again from the first one until a pass finds nothing new.
    """
    found: dict[int, Conversation] = {}
    for number in range(_MOST_PASSES):
        fresh, page = 0, 1
        while True:
            listed = await chatwoot.conversations(page)
            new = [
                one
                for one in listed
                if one.last_activity_at >= since
                and (one.id not in found or found[one.id].last_activity_at < one.last_activity_at)
            ]
            found |= {one.id: one for one in new}
            fresh += len(new)
            is_past = not listed or listed[-1].last_activity_at < since
            if is_past or (number and not new):
                break
            page += 1
        if number and not fresh:
            break
    return list(found.values())


async def _page_before(chatwoot: Chatwoot, conversation_id: int, message_id: int) -> list[Message]:
    """The page before a message.

    Raises:
        ChatwootError: Chatwoot, or a cache before it, ignores the message's id: reading on would never end.
    """
    page = await chatwoot.messages(conversation_id, before=message_id)
    if page and page[0].id >= message_id:
        raise ChatwootError(f"Chatwoot answers the same messages again for ?before={message_id}; is a cache before it?")
    return page


async def _messages_since(chatwoot: Chatwoot, conversation_id: int, since: int) -> list[Message]:
    """A conversation's messages back to `since`, oldest first. None of one that is gone by now."""
    messages: list[Message] = []
    try:
        page = await chatwoot.messages(conversation_id)
        while page:
            messages = [*page, *messages]
            if page[0].created_at < since:
                break
            page = await _page_before(chatwoot, conversation_id, page[0].id)
    except ChatwootError as error:
        if error.fault is not Fault.NOT_FOUND:
            raise
    return messages
