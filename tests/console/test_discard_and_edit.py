"""Dead letters are discarded with a reason, and edited before they are replayed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tests.console.conftest import ALL
from tests.console.test_dead_letters import dead, in_queue
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import AgentStandIn, Rows, RunningRelay

    Console = Callable[..., object]


async def test_a_discard_needs_a_reason_and_is_recorded(incident: RunningRelay, console: Console, rows: Rows) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("d")
        await seen.shows("DISCARD", "1 dead letter", "as maria")
        await seen.press("enter")
        await seen.shows("it needs some text")
        await seen.type("spam from a bot")
        await seen.press("enter")
        await seen.shows(f"all {ALL - 1}")
    (row,) = rows(
        "SELECT a.operator, a.reason, d.result IS NOT NULL "
        "FROM relay.operator_actions a JOIN relay.discards d ON d.action = a.id"
    )
    assert row == ("maria", "spam from a bot", True)
    assert rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'discarded'") == 1


async def test_a_few_are_discarded_by_y_under_their_list(incident: RunningRelay, console: Console, rows: Rows) -> None:
    async with console() as seen:
        await in_queue(seen)
        marked = [row.delivery_id[:8] for row in list(seen.app.view.list._rows.values())[:2]]
        await seen.press("space", "space", "d")
        await seen.shows("2 dead letters")
        await seen.type("duplicates")
        await seen.press("enter")
        await seen.shows("2 dead letters will never be sent: duplicates", *marked, "y does it")
        await seen.press("y")
        await until(lambda: dead(rows) == ALL - 2)


async def test_all_that_match_are_discarded_only_with_their_count_typed(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("asterisk", "d")
        await seen.shows(f"{ALL} dead letters")
        await seen.type("noise")
        await seen.press("enter")
        await seen.shows(f"type {ALL} and enter")
        await seen.type(str(ALL))
        await seen.press("enter")
        await until(lambda: dead(rows) == 0)


async def test_an_edited_payload_is_checked_shown_as_a_difference_and_replayed(
    incident: RunningRelay, console: Console, rows: Rows, agent: AgentStandIn
) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("slash")
        await seen.type("conv:47")
        await seen.press("enter")
        await seen.shows("1 match")
        await seen.press("e")
        await seen.shows("Edit the payload", '"message 47"', "a JSON object, as it came")
        editor = seen.app.screen.query_one("#editor")
        original = editor.text
        editor.text = original.replace('"message 47"', '"message 47')
        await seen.shows("line 4, column")
        await seen.press("ctrl+s")
        await seen.shows("Edit the payload")
        editor.text = original.replace("message 47", "mended")
        await seen.shows("a JSON object, changed")
        await seen.press("ctrl+s")
        await seen.shows('-  "content": "message 47"', '+  "content": "mended"')
        await seen.press("y")
        await seen.shows("1 delivery with an edited body", "type 1 and enter")
        await seen.press("1", "enter")
        await seen.shows("all 1 delivered")
    assert json.loads(agent.seen[-1].body)["content"] == "mended"
    kept = rows.one("SELECT body FROM relay.deliveries WHERE conversation_id = '47'")
    assert json.loads(kept)["content"] == "message 47"


async def test_the_editor_says_all_that_it_has_to_say_in_eighty_columns(
    incident: RunningRelay, console: Console
) -> None:
    async with console(size=(80, 24)) as seen:

        async def says(sentence: str) -> None:
            await until(lambda: sentence in " ".join(re.sub("[│╰─╯]", " ", seen.text).split()), what=sentence)

        await in_queue(seen)
        await seen.press("e")
        await says("a JSON object, as it came. ctrl+s reviews, ctrl+e opens $EDITOR, esc goes back")
        editor = seen.app.screen.query_one("#editor")
        editor.text = '{\n  "content": "not \n closed"}'
        await says("Invalid control character at line 2, column 19")
        editor.text = "{\n  content: 1}"
        await says("Expecting property name enclosed in double quotes at line 2, column 3")
