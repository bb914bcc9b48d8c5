"""Whether a customer's message was answered by now: what was answered in public needs no draft any more."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from relay.chatwoot.client import AT_ONCE, Chatwoot, ChatwootError
from relay.chatwoot.faults import Fault
from relay.chatwoot.messages import is_reply
from relay.errors import RelayError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from relay.chatwoot.client import Message
    from relay.settings import Settings

_PAGE = 100
_MOST_PAGES = 20


def replies_in(messages: Iterable[Message]) -> list[int]:
    """The ids of the replies that persons wrote in public. What a bot, a rule or a campaign posts is no answer."""
    return [message.id for message in messages if is_reply(message.raw)]


def answered_of(message_ids: Iterable[int], replies: Sequence[int]) -> set[int]:
    """Those of `message_ids` that a later reply follows (message ids grow with time)."""
    last = max(replies, default=0)
    return {message_id for message_id in message_ids if message_id < last}


async def answered_rows(settings: Settings, messages: Mapping[int, tuple[int, int]], *, within_s: float) -> set[int]:
    """Return the keys of those of `messages`, pairs of conversation and message id, that were answered by now.

    Raises:
        RelayError: Chatwoot cannot be asked, or did not answer in time.
    """
    try:
        async with asyncio.timeout(within_s), Chatwoot(settings) as chatwoot:
            found = await answered(chatwoot, messages.values())
    except TimeoutError:
        raise RelayError(f"Chatwoot did not answer within {within_s:g} s") from None
    return {key for key, message in messages.items() if message in found}


async def answered(chatwoot: Chatwoot, messages: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those of `messages`, pairs of conversation and message id, that were answered by now.

    A conversation that is gone counts as not answered.

    Raises:
        ChatwootError: Chatwoot cannot be asked.
    """
    wanted: dict[int, list[int]] = defaultdict(list)
    for conversation_id, message_id in messages:
        wanted[conversation_id].append(message_id)
    turn = asyncio.Semaphore(AT_ONCE)

    async def check(conversation_id: int, ids: list[int]) -> set[tuple[int, int]]:
        async with turn:
            replies = await _replies_after(chatwoot, conversation_id, min(ids))
        return {(conversation_id, message_id) for message_id in answered_of(ids, replies)}

    found = await asyncio.gather(*(check(number, ids) for number, ids in wanted.items()))
    return set().union(*found)


async def _replies_after(chatwoot: Chatwoot, conversation_id: int, message_id: int) -> list[int]:
    """The replies that follow a message, as far as `_MOST_PAGES` of a hundred messages reach."""
    replies: list[int] = []
    for _ in range(_MOST_PAGES):
        try:
            page = await chatwoot.messages(conversation_id, after=message_id)
        except ChatwootError as error:
            if error.fault is Fault.NOT_FOUND:
                return replies
            raise
        replies += replies_in(page)
        if len(page) < _PAGE:
            break
        message_id = max(message.id for message in page)
    return replies
