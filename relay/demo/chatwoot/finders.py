"""Which conversations and messages a request gets, in which order, and how many at most.

Sources: app/finders/conversation_finder.rb and app/finders/message_finder.rb.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.demo.chatwoot.records import last_activity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CONVERSATIONS_A_PAGE = 25
_LATEST = 20
_MOST_AFTER = 100
_MOST_BETWEEN = 1_000


def conversations_of_page(
    conversations: Mapping[int, list[dict[str, Any]]], page: int
) -> list[tuple[int, list[dict[str, Any]]]]:
    """Return a page of `conversations`, the one that was active last first. The order can change between two pages."""
    held = sorted(conversations.items(), key=lambda item: last_activity(item[1]), reverse=True)
    return held[(page - 1) * _CONVERSATIONS_A_PAGE : page * _CONVERSATIONS_A_PAGE]


def messages_between(messages: Sequence[dict[str, Any]], *, after: int, before: int) -> list[dict[str, Any]]:
    """Return the messages with ids between `after` and `before`, oldest first; 0 is an end that is open.

    `after` itself is among them if `before` is given too, as in Chatwoot.
    """
    found = sorted(messages, key=lambda one: (one.get("created_at", 0), one["id"]))
    if after and before:
        return [one for one in found if after <= one["id"] < before][:_MOST_BETWEEN]
    if before:
        return [one for one in found if one["id"] < before][-_LATEST:]
    if after:
        return [one for one in found if one["id"] > after][:_MOST_AFTER]
    return found[-_LATEST:]
