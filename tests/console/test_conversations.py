"""The conversation as a timeline, neighbours, words in the lists, the agent's whole answer; holds and the backlog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from console.flows.hold import reason_and_time
from relay.demo.agent import Behaviour
from tests.console.conftest import ALL, open_dead_letters, webhook
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import HeldAgent, Rows, RunningRelay

    Console = Callable[..., Any]


async def test_c_shows_what_came_of_the_conversation_and_what_became_of_it(
    relay: RunningRelay, console: Console, agent: HeldAgent, rows: Rows
) -> None:
    await relay.post(webhook(7, content="first [/b] \x1b]52;c;aGk=\x07", sender={"name": "Ana"}))
    agent.behave(Behaviour(status=422))
    await relay.post(webhook(7, id=8, content="second", sender={"name": "Ana"}))
    await relay.post(webhook(9, content="of another one"))
    rows("INSERT INTO relay.notes (key, conversation_id, draft, posted_at)"
         " SELECT delivery_id, 7, 'A draft.', now() FROM relay.deliveries ORDER BY id LIMIT 1")  # fmt: skip
    async with console((100, 30)) as seen:
        await seen.press("3")
        await seen.shows("all 3")
        await seen.press("G", "c")
        await seen.shows(
            "Conversation 7 ─ 2 deliveries", "Ana: first [/b] ␛]52;c;aGk=␇", "Ana: second", "dead", "422", "A draft.",
        )  # fmt: skip
        assert "of another one" not in seen.text
        await seen.press("g", "enter")
        await seen.shows("DELIVERED", "Attempts")
        await seen.press("c")
        await seen.shows("Conversation 7")
        await seen.press("q", "q", "q")
        await seen.shows("all 3")


async def test_a_conversations_id_is_no_markup(relay: RunningRelay, console: Console, rows: Rows) -> None:
    await relay.post(webhook(7, content="hello"))
    rows("UPDATE relay.deliveries SET conversation_id = '[/b][@click=app.quit]x[/]'")
    async with console((100, 30)) as seen:
        await seen.press("3")
        await seen.shows("all 1")
        await seen.press("c")
        await seen.shows("Conversation [/b][@click=app.quit]x[/] ─ 1 delivery", "hello")


async def test_j_and_k_step_through_the_list_from_inside_a_delivery(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await open_dead_letters(seen)
        ids = [row.delivery_id for row in seen.app.view.list.window.rows]
        await seen.press("enter")
        await seen.shows(ids[0], "Attempts")
        await seen.press("J", "J")
        await seen.shows(ids[2])
        await seen.press("K")
        await seen.shows(ids[1])
        await seen.press("K", "K")
        await seen.shows("No further delivery", ids[0])


async def test_a_wide_list_has_the_sender_and_the_first_words(incident: RunningRelay, console: Console) -> None:
    async with console((200, 60)) as seen:
        await seen.press("2")
        await seen.shows(f"all {ALL}", "SENDER AND MESSAGE", "message 47")
        await seen.press("3")
        await seen.shows("SENDER AND MESSAGE", "message 47", "answered 503")
    async with console((80, 24)) as seen:
        await open_dead_letters(seen)
        assert "SENDER AND MESSAGE" not in seen.text


async def test_the_agents_answer_is_shown_whole_on_a_key(
    relay: RunningRelay, console: Console, agent: HeldAgent, rows: Rows
) -> None:
    fields = ", ".join(f'"field {number}": "is wrong"' for number in range(30))
    agent.behave(Behaviour(status=422))
    await relay.post(webhook(1))
    rows("UPDATE relay.attempts SET answer = %s", ("{" + fields + "}",))
    async with console((100, 50)) as seen:
        await seen.press("2")
        await seen.shows("all 1", "answered:")
        await seen.press("enter")
        await seen.shows('"field 1": "is wrong"', "A shows all of it")
        assert '"field 20"' not in seen.text
        await seen.press("A")
        await seen.shows('"field 20": "is wrong"', '"field 29": "is wrong"')


async def test_h_holds_forwarding_with_a_reason_and_releases_it(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console((120, 60)) as seen:
        await seen.shows("Failure groups")
        await seen.press("H")
        await seen.shows("Hold forwarding on all relays")
        await seen.type("deploying the agent for 30m")
        await seen.press("enter")
        await seen.shows("held by maria", "deploying the agent")
        assert rows.one("SELECT until IS NOT NULL AND reason = 'deploying the agent' FROM relay.holds")
        await until(lambda: rows.one("SELECT held FROM relay.gate"), what="it is held")
        await relay.post(webhook(1))
        await seen.press("5")
        await seen.shows("Backlog", "1 wait", "hold 1")
        await seen.press("3")
        await seen.shows("waits: hold")
        await seen.press("H")
        await seen.shows("rate no limit", "y does it")
        await seen.press("minus", "minus")
        await seen.shows("rate 50/s")
        await seen.press("y")
        await seen.shows("delivered")
    assert rows("SELECT released_at IS NOT NULL, rate FROM relay.holds") == [(True, 50)]


def test_a_hold_may_end_by_itself() -> None:
    for text, expected in (
        ("deploying", ("deploying", None)),
        ("deploying for 1h30m", ("deploying", 5400)),
        ("waiting for maria", ("waiting for maria", None)),
    ):
        assert reason_and_time(text) == expected
