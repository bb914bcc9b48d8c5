"""Checks at the start whether the Chatwoot token can do what the agent needs, and says what it lacks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.agent.failures import as_no_note
from relay.chatwoot.client import ChatwootError
from relay.errors import ConfigurationError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from relay.agent.conversations import Conversations
    from relay.agent.rules import Rules

_PATIENCE_S = 5.0
_NEEDED = (
    "a user's access token is needed (Chatwoot: Profile settings, Access token), of a member of the inboxes that are "
    "to get drafts"
)


async def check_token(conversations: Conversations, rules: Rules, log: FilteringBoundLogger) -> None:
    """Log what the token lacks. A Chatwoot that does not answer is no reason not to start.

    Raises:
        ConfigurationError: the token is an agent bot's, which can read no conversation.
    """
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await conversations.check_account()
            await _check_inboxes(conversations, rules, log)
    except TimeoutError:
        log.warning("Chatwoot does not answer, so the token was not checked")
    except ChatwootError as error:
        if "bots" in error.said:
            raise ConfigurationError(f"CHATWOOT_API_KEY: it is an agent bot's token; {_NEEDED}") from error
        if error.status in {401, 404}:
            log.error(  # noqa: TRY400 - a wrong setting, no defect
                "CHATWOOT_API_KEY gives no access to the account: no note can be posted",
                account=rules.account_id, answer=error.status, reason=str(error), remedy=_NEEDED,
            )  # fmt: skip
        else:
            log.warning("The Chatwoot token was not checked", reason=str(as_no_note(error)))


async def _check_inboxes(conversations: Conversations, rules: Rules, log: FilteringBoundLogger) -> None:
    try:
        seen = await conversations.inboxes()
    except ChatwootError as error:
        log.warning("The inboxes of the token's user were not checked", reason=str(as_no_note(error)))
        return
    missing = sorted(rules.inboxes - seen)
    if missing or not seen:
        log.warning("The token's user is no member of these inboxes: they get no drafts", inboxes=missing or "any")
