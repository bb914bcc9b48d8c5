"""Deliveries, and one delivery: key by key, on a real relay."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

from relay.demo.agent import Behaviour
from tests.console.conftest import webhook
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.console.screens import Terminal, Watched
    from tests.servers import HeldAgent, Rows, RunningRelay

    Console = Callable[..., object]
    Start = Callable[..., Awaitable[RunningRelay]]


async def test_deliveries_shows_all_of_them_live(relay: RunningRelay, console: Console, agent: HeldAgent) -> None:
    await relay.post(webhook(1))
    async with console() as seen:
        await seen.press("3")
        await seen.shows("delivered", "all 1")
        agent.behave(Behaviour(status=422))
        await relay.post(webhook(2))
        await seen.shows("dead", "all 2")


async def test_a_delivery_leads_to_its_attempts(incident: RunningRelay, console: Console) -> None:
    async with console(size=(120, 50)) as seen:
        await seen.press("3")
        await seen.shows("STATE")
        await seen.press("slash")
        await seen.type("conv:1")
        await seen.press("enter")
        await seen.shows("1 match")
        await seen.press("enter")
        await seen.shows("run 1", " 1 ", "+1 ms", "+2 ms", "503")


async def test_only_a_dead_letter_can_be_replayed(relay: RunningRelay, console: Console, rows: Rows) -> None:
    await relay.post(webhook(1))
    async with console() as seen:
        await seen.press("3")
        await seen.shows("all 1")
        await seen.press("enter")
        await seen.shows("DELIVERED")
        await seen.press("r")
        await seen.shows("Only a dead letter can be replayed")
    assert rows("SELECT 1 FROM relay.replay_plans") == []


async def test_a_delivery_links_to_its_conversation_in_chatwoot(relay: RunningRelay, console: Console) -> None:
    await relay.post(webhook(77))
    async with console(chatwoot_base_url="https://bot:s3cret@chat.example", chatwoot_account_id=3) as seen:
        await seen.press("3")
        await seen.shows("all 1")
        await seen.press("enter")
        await seen.shows("https://chat.example/app/accounts/3/conversations/77")


async def test_a_signature_is_not_shown(relay: RunningRelay, console: Console) -> None:
    await relay.post(webhook(1), x_chatwoot_signature="sha256=feedface", x_chatwoot_timestamp="1")
    async with console(size=(120, 60)) as seen:
        await seen.press("3")
        await seen.shows("all 1")
        await seen.press("enter")
        await seen.shows("x-chatwoot-signature: (not shown)", "x-chatwoot-timestamp: 1")


async def opened_close_up(seen: Watched) -> None:
    """Open the only delivery there is."""
    await seen.press("3")
    await seen.shows("all 1")
    await seen.press("enter")
    await seen.shows("Attempts", "DELIVERED")


async def test_text_is_found_in_a_delivery(relay: RunningRelay, console: Console) -> None:
    await relay.post(webhook(1, notes=[f"note {n}" for n in range(60)], also="[/b] NOTE 70"))
    async with console(size=(80, 24)) as seen:
        await opened_close_up(seen)
        assert "note 50" not in seen.text
        await seen.press("slash")
        await seen.type("note 5")
        await seen.press("enter")
        await seen.shows("search note 5", "match 1 of 11", '"note 5"')
        await seen.press("n", "n")
        await seen.shows("match 3 of 11", '"note 51"')
        await seen.press("N", "N", "N")
        await seen.shows("match 11 of 11", '"note 59"')
        await seen.press("slash")
        seen.app.screen.query_one("#filter").value = "[/B] note"
        await seen.press("enter")
        await seen.shows("match 1 of 1", "[/b] NOTE 70")
        await seen.press("escape")
        await seen.hides("match 1 of 1")
        await seen.shows("[/b] NOTE 70")
        await seen.press("escape")
        await seen.shows("all 1")


async def test_letters_that_are_searched_for_do_nothing_else(relay: RunningRelay, console: Console, rows: Rows) -> None:
    await relay.post(webhook(1))
    async with console() as seen:
        await opened_close_up(seen)
        await seen.press("slash")
        await seen.type("dxetq")
        await seen.press("enter")
        await seen.shows("search dxetq", "no match in what is shown", "DELIVERED")
        assert not seen.app.view.question.is_open
        await seen.press("n", "escape", "slash", "escape")
        await seen.hides("search dxetq")
        await seen.shows("DELIVERED")


async def test_z_shows_the_payload_of_a_delivery_alone(relay: RunningRelay, console: Console) -> None:
    await relay.post(webhook(1))
    async with console(size=(80, 24)) as seen:
        await opened_close_up(seen)
        await seen.press("z")
        await seen.hides("Attempts", "delivery id")
        await seen.shows("Payload", '"message 1"')
        await seen.press("slash")
        await seen.type("DELIVERED")
        await seen.press("enter")
        await seen.shows("no match in what is shown")
        await seen.press("z")
        await seen.shows("match 1 of 1", "Attempts", "delivery id")


# Copying, over OSC 52


async def test_a_payload_is_copied_through_the_terminal(
    relay: RunningRelay, terminal: Callable[..., Terminal], agent: HeldAgent
) -> None:
    agent.behave(Behaviour(status=422))
    await relay.post(webhook(1, content="naïve ␛ text"), x_chatwoot_delivery="delivery-to-copy")
    screen = await asyncio.to_thread(terminal)
    await asyncio.to_thread(screen.shows, "Failure groups")
    await asyncio.to_thread(screen.press, "2")
    await asyncio.to_thread(screen.shows, "all 1")
    await asyncio.to_thread(screen.press, "y")
    await until(lambda: screen.clipboard == "delivery-to-copy")
    await asyncio.to_thread(screen.press, "Enter")
    await asyncio.to_thread(screen.shows, "Attempts")
    await asyncio.to_thread(screen.press, "y")
    await until(lambda: "naïve ␛ text" in screen.clipboard)


async def test_the_curl_command_sends_the_very_same_bytes(
    relay: RunningRelay, terminal: Callable[..., Terminal], agent: HeldAgent
) -> None:
    nasty = 'it\'s "$(touch pwned)" `id` \\n \x7f ümlaut'
    agent.behave(Behaviour(status=422, times=1))
    await relay.post(webhook(1, content=nasty), x_chatwoot_delivery="curl-me")
    screen = await asyncio.to_thread(terminal, AGENT_SDK_URL=agent.url)
    await asyncio.to_thread(screen.shows, "Failure groups")
    await asyncio.to_thread(screen.press, "2")
    await asyncio.to_thread(screen.shows, "all 1")
    await asyncio.to_thread(screen.press, "Y")
    await until(lambda: screen.clipboard.startswith("curl "))
    command = screen.clipboard
    assert command.isprintable()
    await asyncio.to_thread(subprocess.run, ["bash", "-c", command], check=True, capture_output=True)
    first, again = agent.seen
    assert again.body == first.body
    assert again.headers["x-chatwoot-delivery"] == "curl-me"
