"""`relay agent serve` at its start: it checks its Chatwoot token and says what the token lacks."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pytest

from relay.agent.conversations import Conversations
from relay.agent.rules import rules_of
from relay.agent.token import check_token
from relay.demo.chatwoot import Oddity
from relay.errors import ConfigurationError
from relay.settings import load_settings
from relay.telemetry.log_sink import LogSink
from tests.agent.conftest import of_chatwoot

if TYPE_CHECKING:
    from relay.demo.chatwoot import ChatwootStandIn
    from tests.conftest import CommandLine


async def said_of(chatwoot: ChatwootStandIn, key: str, **more: Any) -> str:
    """What the agent logs about the token `key` at its start."""
    settings = load_settings(_env_file=None, **(of_chatwoot(chatwoot) | {"chatwoot_api_key": key} | more))
    stream = io.StringIO()
    sink = LogSink(stream=stream)
    try:
        async with Conversations(settings) as conversations:
            await check_token(conversations, rules_of(settings), sink.logger("agent"))
    finally:
        sink.close()
    return stream.getvalue()


async def test_the_token_of_a_user_of_the_inboxes_is_all_that_is_needed(chatwoot: ChatwootStandIn) -> None:
    for key in (chatwoot.api_key, chatwoot.agent_key):
        assert await said_of(chatwoot, key, agent_inboxes="1") == ""


async def test_what_a_token_lacks_is_logged(chatwoot: ChatwootStandIn) -> None:
    assert "access token is needed" in await said_of(chatwoot, "wrong")
    assert "does not know this key" in await said_of(chatwoot, "wrong")
    assert "gives no access to the account" in await said_of(chatwoot, chatwoot.stranger_key)
    assert "no member of these inboxes" in await said_of(chatwoot, chatwoot.api_key, agent_inboxes="1,9")
    chatwoot.oddities.add(Oddity.SUSPENDED)
    assert "the account is suspended" in await said_of(chatwoot, chatwoot.api_key)


async def test_a_chatwoot_that_is_away_is_no_reason_not_to_start(chatwoot: ChatwootStandIn) -> None:
    chatwoot.healthy = False
    assert "not checked" in await said_of(chatwoot, chatwoot.api_key)


async def test_an_agent_bots_token_ends_the_start_with_one_line(
    chatwoot: ChatwootStandIn, relay_command: CommandLine
) -> None:
    with pytest.raises(ConfigurationError, match="agent bot's token; a user's access token is needed"):
        await said_of(chatwoot, chatwoot.bot_key)
    env = {name.upper(): str(value) for name, value in of_chatwoot(chatwoot).items()}
    env |= {"CHATWOOT_API_KEY": chatwoot.bot_key, "AGENT_BIND": "127.0.0.1:0"}
    ended = await asyncio.wait_for(relay_command.run("agent", "serve", **env), 120)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("relay: CHATWOOT_API_KEY: it is an agent bot's token")
