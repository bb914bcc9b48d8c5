"""Conversations in Chatwoot as the agent needs them: their current messages and state, and a new private note.

Sources: chatwoot/CONTRACT, "API it answers"; app/finders/message_finder.rb; messages/index.json.jbuilder.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.agent.message import NOTE_KEY, as_list, as_text, read_message, whole_number
from relay.agent.webhook import ConversationState
from relay.chatwoot.client import Chatwoot, ChatwootError
from relay.chatwoot.messages import as_dict

if TYPE_CHECKING:
    from relay.agent.message import Message

MESSAGES_A_PAGE = 100
_PAGES = 50
POST_WITHIN_S = 10.0
"""The longest that a post takes, waits for its turn included. Then its end is in doubt."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The current messages of a conversation, in the order of their ids, and its state."""

    messages: tuple[Message, ...]
    state: ConversationState


class Conversations(Chatwoot):
    """The account's conversations."""

    requests_a_second = 40  # Chatwoot takes 50 of one address (3,000 a minute)

    async def since(self, conversation_id: int, message_id: int) -> Seen:
        """The message with `message_id` as it is now, and all later ones.

        Raises:
            ChatwootError: it does not answer, refuses, or answers something else.
        """
        found: dict[int, Message] = {}
        after, state = message_id - 1, ConversationState()
        for _ in range(_PAGES):
            page, meta = await self._page(conversation_id, f"after={max(after, 0)}")
            state = _state(meta)
            found |= {one.id: one for one in page if one.id >= message_id}
            newest = max((one.id for one in page), default=0)
            if len(page) < MESSAGES_A_PAGE or newest <= after:
                break
            after = newest
        return Seen(tuple(found[number] for number in sorted(found)), state)

    async def until(self, conversation_id: int, message_id: int) -> list[Message]:
        """The last messages up to and including the one with `message_id` (Chatwoot gives twenty).

        Raises:
            ChatwootError: as for `since`.
        """
        page, _ = await self._page(conversation_id, f"before={message_id + 1}")
        return sorted((one for one in page if one.id <= message_id), key=lambda one: one.id)

    async def _page(self, conversation_id: int, query: str) -> tuple[list[Message], dict[str, Any]]:
        answer = as_dict(await self._ask("GET", f"/conversations/{conversation_id}/messages?{query}"))
        if not isinstance(answer.get("payload"), list):
            raise ChatwootError("Chatwoot's list of messages has another form than documented")
        read = [read_message(as_dict(one)) for one in answer["payload"]]
        return [one for one in read if one is not None], as_dict(answer.get("meta"))

    async def status(self, conversation_id: int) -> str | None:
        """The conversation's status now; None if Chatwoot does not say.

        Raises:
            ChatwootError: as for `since`.
        """
        return as_text(as_dict(await self._ask("GET", f"/conversations/{conversation_id}")).get("status")) or None

    async def post_note(self, conversation_id: int, content: str, key: str) -> int:
        """Post a private note that carries `key` twice; returns its id. Never public, whatever is in it.

        Chatwoot before 4.16.1 drops unknown `content_attributes` and keeps `source_id`.

        Raises:
            ChatwootError: it was refused; or, with `in_doubt`, it may have been posted or may still be.
        """
        note = {
            "content": content,
            "message_type": "outgoing",
            "private": True,
            "content_attributes": {NOTE_KEY: key},
            "source_id": key,
        }
        try:
            async with asyncio.timeout(POST_WITHIN_S):
                answer = as_dict(await self._ask("POST", f"/conversations/{conversation_id}/messages", note))
        except TimeoutError:
            raise ChatwootError("Chatwoot does not answer (timeout)", in_doubt=True) from None
        number = whole_number(answer.get("id"))
        if number is None:
            raise ChatwootError("Chatwoot's answer to a new note has another form than documented", in_doubt=True)
        return number

    async def check_account(self) -> None:
        """Ask for the account, which the token must give access to.

        Raises:
            ChatwootError: it does not.
        """
        await self._ask("GET", str(self._client.base_url).rstrip("/"))

    async def inboxes(self) -> frozenset[int]:
        """The ids of the inboxes that the token's user may see.

        Raises:
            ChatwootError: as for `since`.
        """
        answer = as_dict(await self._ask("GET", "/inboxes"))
        ids = (whole_number(as_dict(one).get("id")) for one in as_list(answer.get("payload")))
        return frozenset(number for number in ids if number is not None)


def _state(meta: dict[str, Any]) -> ConversationState:
    """The state in a page's `meta`. Versions that name the contact name the assignee, if there is one."""
    known = "assignee" in meta or "contact" in meta
    return ConversationState(
        assigned=isinstance(meta.get("assignee"), dict) if known else None,
        labels=frozenset(as_text(label).lower() for label in as_list(meta.get("labels"))) if "labels" in meta else None,
        blocked=as_dict(meta.get("contact")).get("blocked") is True,
    )
