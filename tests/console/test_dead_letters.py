"""The dead-letter queue in the console: find, mark, open, replay by the rules, discard; every write is a plan."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.console.conftest import ALL, LIMITED, OVERLOADED, REFUSED
from tests.servers import locked, until
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.console.screens import Watched
    from tests.servers import AgentStandIn, Rows, RunningRelay

    Console = Callable[..., object]

MORE = 400
"""So many that a replay of all lasts until it is stopped."""


def plans(rows: Rows) -> list[tuple[str, int, int]]:
    return rows("SELECT requested_by, total, delivered FROM relay.replay_plans ORDER BY id")


def dead(rows: Rows) -> int:
    return rows.one("SELECT count(*) FROM relay.deliveries WHERE state = 'dead'")


async def in_queue(seen: Watched, *more: str) -> None:
    """Go to the dead letters and wait for the rows."""
    await seen.shows("Failure groups")
    await seen.press("2")
    await seen.shows(f"all {ALL}", *more)


async def test_they_are_listed_newest_first_with_what_matters(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await in_queue(seen, "ID", "DIED", "EVENT", "CONV", "TRY", "STATUS", "CAUSE")
        shown = re.findall(r"^\W*(\d{8})\b.*message_created", seen.text, flags=re.MULTILINE)
        newest = rows(
            "SELECT left(delivery_id, 8) FROM relay.deliveries WHERE state = 'dead' ORDER BY finished_at DESC, id DESC"
        )
        assert shown[0] == newest[0]
        assert shown == newest[: len(shown)]


async def test_the_list_is_filtered_as_it_is_typed(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("slash")
        await seen.type("status:429")
        await seen.shows(f"{LIMITED} match", f"{ALL - LIMITED} hidden")
        await seen.press("enter", "escape")
        await seen.shows(f"all {ALL}")


GRAMMAR = [
    ("error:rate", LIMITED), ("event:message_created", ALL), ("conv:47", 1), ('payload.content:"message 3"', 1),
     ("age:<1h", ALL), ("age:>1h", 0), ('"message 12"', 1), ("!429 !422", None), ("status:4xx", LIMITED + REFUSED),
     ("test:yes", 0),
]  # fmt: skip


async def test_every_key_of_the_grammar_filters(incident: RunningRelay, console: Console) -> None:
    async with console(size=(140, 30)) as seen:
        await in_queue(seen)
        await seen.press("slash")
        for text, matching in GRAMMAR:
            seen.app.screen.query_one("#filter").value = text
            await seen.shows("FILTERED", f"{text}   " if matching is None else f"{text}   {matching} match")


async def test_a_filter_that_does_not_parse_is_explained_and_changes_nothing(
    incident: RunningRelay, console: Console
) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("slash")
        await seen.type("age")
        await seen.shows("FILTERED age")
        await seen.type(":soon")
        await seen.shows("age:soon: say age:<1h", "00000047")
        before = seen.app.context.snapshot
        await until(lambda: seen.app.context.snapshot is not before)  # the error stays
        await seen.shows("age:soon: say age:<1h")
        await seen.press("enter", "escape")
        await seen.shows(f"all {ALL}")
        await seen.hides("say age:<1h")


async def test_a_filter_applies_after_a_pause_in_typing(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("slash")
        box, asked = seen.app.screen.query_one("#filter"), set()
        for end in range(1, len("conv:7") + 1):
            box.value = "conv:7"[:end]
            asked.add(seen.app.view.list.filter)
        assert asked == {""}
        await seen.shows("FILTERED conv:7", "1 match")


def held_up(rows: Rows) -> AbstractAsyncContextManager[None]:
    """While the block lasts, no replay can be worked out: it waits for which relays are alive."""
    return locked(rows.dsn, "relay.instances", "ACCESS EXCLUSIVE")


async def test_keys_that_come_while_a_replay_is_worked_out_belong_to_it(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await in_queue(seen)
        async with held_up(rows):
            await seen.press("R")
            await seen.shows("Freezing what would be sent")
            await seen.press("4", "7")
        await seen.shows(f"type {ALL} and enter", "> 47")
        assert plans(rows) == []
        await seen.press("enter")
        await seen.shows(f"all {ALL} delivered")


async def test_a_replay_that_was_thought_better_of_does_not_come_back_for_another(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("j", "j")
        first = seen.app.view.list.row.delivery_id
        async with held_up(rows):
            await seen.press("r")
            await seen.shows("Freezing what would be sent")
            await seen.press("escape")
            await seen.hides("REPLAY")
            await seen.press("j", "r")
            await seen.shows("Freezing what would be sent")
            second = seen.app.view.list.row.delivery_id
        await seen.shows("1 delivery", f"  {second}  message_created", "y does it")
        assert first != second
        await seen.press("y")
        await seen.shows("all 1 delivered")
    assert rows("SELECT delivery_id FROM relay.deliveries WHERE plan_id IS NOT NULL") == [second]


async def test_an_empty_list_says_why(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("slash")
        await seen.type("nothing-like-it")
        await seen.shows("Nothing matches the filter", "0 match")


async def test_the_payload_and_the_attempts_are_beside_the_row(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("slash")
        await seen.type("conv:7")
        await seen.press("enter")
        await seen.shows("1 match", '"message 7"', "conv 7  message_created", "│ Agent SDK answered 503")
        assert len(re.findall(r"│ +\d \d\d:\d\d:\d\d\.\d{3} .*503 ", seen.text)) == 3


async def test_enter_opens_one_close_up_and_back_keeps_the_place(incident: RunningRelay, console: Console) -> None:
    async with console(size=(120, 60)) as seen:
        await in_queue(seen)
        await seen.press("j", "j", "enter")
        shown = await seen.shows("DEAD", "Attempts", "run 1", "Payload", "Headers", "never replayed", "answered:")
        delivery = next(line.split()[-1] for line in shown.splitlines() if "delivery id" in line)
        await seen.press("q")
        await seen.shows(f"all {ALL}")
        await seen.press("y")
        await seen.shows(f"Copied {delivery}")


async def test_one_is_replayed_by_y(incident: RunningRelay, console: Console, rows: Rows, agent: AgentStandIn) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("r")
        await seen.shows("REPLAY", "1 delivery", agent.url, "as maria", "This cannot be undone")
        await seen.press("y")
        await seen.shows("all 1 delivered")
    assert plans(rows) == [("maria", 1, 1)]
    assert dead(rows) == ALL - 1


async def test_no_other_key_sends_or_cancels_anything(incident: RunningRelay, console: Console, rows: Rows) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("r")
        await seen.shows("y does it")
        await seen.press("enter", "r", "q", "x", "space", "left", "c", "plus", "4")
        await seen.shows("y does it", "1 delivery")
        await seen.press("question_mark")
        await seen.shows("Show what would be sent", "any key goes back")
        await seen.press("y")
        await seen.shows("y does it")
        await seen.press("n")
        await seen.shows("1 delivery would be sent", "nothing was sent")
        await seen.press("n", "escape")
        await seen.hides("y does it")
        assert plans(rows) == []


async def test_marked_ones_are_listed_and_replayed_together(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("space", "space", "space")
        await seen.shows("3 marked", "■")
        await seen.press("r")
        await seen.shows("3 deliveries", "conv ", "y does it")
        await seen.press("y")
        await seen.shows("all 3 delivered")
        await seen.press("escape")
        await seen.hides("marked")  # they have served: the next r is about the row under the cursor
        await seen.press("r")
        await seen.shows("1 delivery")
    assert plans(rows) == [("maria", 3, 3)]


async def test_v_begins_a_range_and_continues_from_its_end(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("v", "j", "j", "v")
        await seen.shows("3 marked")
        await seen.press("j", "j", "v")
        await seen.shows("5 marked")
        await seen.press("g", "space", "u", "j", "j", "v")  # what was unmarked begins no range
        await seen.shows("1 marked")


async def test_a_mark_ends_with_its_row_under_a_filter_too(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("slash")
        await seen.type("status:422")
        await seen.press("enter")
        await seen.shows(f"{REFUSED} match")
        await seen.press("space", "space")
        await seen.shows("2 marked")
        rows("UPDATE relay.deliveries SET state = 'delivered' WHERE id = %s", (seen.app.view.list.row.id,))
        await seen.shows("1 match", "1 marked")


async def test_a_range_is_marked_by_v(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("space", "j", "j", "v")
        await seen.shows("4 marked")
        await seen.press("u")
        await seen.hides("marked")


async def test_all_that_match_need_their_count_typed(incident: RunningRelay, console: Console, rows: Rows) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("asterisk")
        await seen.shows("all marked")
        await seen.press("r")
        await seen.shows(f"{ALL} deliveries", f"type {ALL} and enter")
        await seen.press("enter")
        await seen.shows(f"type {ALL} first")
        await seen.type("46")
        await seen.press("enter")
        await seen.shows(f"that is not {ALL}")
        assert plans(rows) == []
        await seen.type(str(ALL))
        await seen.press("enter")
        await seen.shows(f"all {ALL} delivered")
    assert plans(rows) == [("maria", ALL, ALL)]
    assert dead(rows) == 0


async def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("R")
        await seen.shows(f"type {ALL} and enter")
        await seen.press("n")
        await seen.shows(
            f"{ALL} deliveries would be sent", "nothing was sent", f"{OVERLOADED}  503  Agent SDK answered 503",
            f"message_created {ALL}",
        )  # fmt: skip
    assert plans(rows) == []


async def test_what_is_asked_for_is_frozen(
    incident: RunningRelay, console: Console, rows: Rows, agent: AgentStandIn
) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("R")
        await seen.shows(f"type {ALL} and enter", "frozen")
        rows("UPDATE relay.deliveries SET state = 'discarded' WHERE conversation_id = '1'")
        await seen.type(str(ALL))
        await seen.press("enter")
        await seen.shows(f"{ALL - 1} delivered", "1 handled elsewhere")


async def test_a_replay_that_fails_again_stops_and_says_so(
    incident: RunningRelay, console: Console, rows: Rows, agent: AgentStandIn
) -> None:
    from relay.demo.agent import Behaviour  # noqa: PLC0415

    agent.behave(Behaviour(status=503))
    async with console() as seen:
        await in_queue(seen)
        await seen.press("R")
        await seen.shows("and enter")
        await seen.type(str(ALL))
        await seen.press("enter")
        await seen.shows("Stopped", "1 dead again", f"{ALL - 1} deliveries not sent")
    assert dead(rows) == ALL


async def test_a_running_replay_is_paused_resumed_and_stopped(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    plant = Plant(rows)
    for _ in range(MORE):
        plant.delivery("dead")
    waiting = ALL + MORE
    async with console() as seen:
        await seen.shows("Failure groups")
        await seen.press("2")
        await seen.shows(f"all {waiting}")
        await seen.press("R")
        await seen.shows("and enter")
        await seen.type(str(waiting))
        await seen.press("enter")
        await seen.shows("p pauses, x stops")
        await until(lambda: dead(rows) < waiting)
        await seen.press("p")
        await seen.shows("paused", "p resumes")
        await seen.press("p")
        await seen.shows("running")
        await seen.press("x")
        await seen.shows("Stopped: stopped by maria (login: postgres)")
        assert 0 < dead(rows) < waiting
    actions = rows("SELECT action FROM relay.operator_actions WHERE operator = 'maria' ORDER BY id")
    assert actions == ["replay", "replay.pause", "replay.resume", "replay.stop"]


async def test_a_replay_whose_relay_is_gone_says_so(incident: RunningRelay, console: Console, rows: Rows) -> None:
    async with console((80, 24)) as seen:
        await in_queue(seen)
        await seen.press("r")
        await seen.shows("y does it")
        await incident.stop()
        await seen.press("y")
        await seen.shows("queued  1 left; no relay is running", "`relay serve`")


async def test_without_a_relay_it_says_so_at_once(incident: RunningRelay, console: Console, rows: Rows) -> None:
    await incident.stop()
    async with console() as seen:
        await seen.press("2")
        await seen.shows(f"all {ALL}")
        await seen.press("r")
        await seen.shows("No relay is running", "relay serve")
    assert plans(rows) == []


async def test_rows_leave_the_screen_as_the_relay_delivers_them(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await in_queue(seen)
        await seen.press("slash")
        await seen.type("status:429")
        await seen.press("enter")
        await seen.shows(f"{LIMITED} match")
        await seen.press("R")
        await seen.shows(f"type {LIMITED} and enter")
        await seen.press(str(LIMITED), "enter")
        await seen.shows(f"all {LIMITED} delivered", "Nothing matches the filter", "0 match")
