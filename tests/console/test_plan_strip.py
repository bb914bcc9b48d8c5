"""The replay plan on the strip: steered before it is sent, never lost, followed by measure, and listed afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from console.data.plan_pace import PlanPace
from relay.replay.requests import DEFAULT, RATES
from relay.store import gate
from relay.store.replays import Plan, PlanState
from relay.store.sessions import connected
from tests.console.conftest import ALL, OVERLOADED, ask_for_the_group, open_dead_letters
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.servers import HeldAgent, Rows, RunningRelay

    Console = Callable[..., Any]


async def test_rate_canary_and_stop_rule_are_chosen_on_the_strip(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console((80, 24), console_environment="prod") as seen:
        await open_dead_letters(seen)
        await seen.press("R")
        await seen.shows("rate 20/s (+/-)", "canary 1 (c)", "stop at 3 (s)", "about 2s at this rate")
        await seen.shows(" PROD ", f"type {ALL} and enter")
        await seen.press("4", "plus", "c", "s", "z")
        await seen.shows("rate 50/s", "canary 5", "stop at 10 (s)", "> 4")
        await seen.press("minus", "minus", "7", "enter")
        await seen.shows(f"all {ALL} delivered")
    assert rows("SELECT rate, canary, stop_after, delivered FROM relay.replay_plans") == [(10, 5, 10, ALL)]


def test_a_pace_is_stepped_through_in_both_directions() -> None:
    pace = DEFAULT
    for _ in range(len(RATES)):
        pace = pace.faster()
    assert pace.rate is None
    assert pace.faster().rate is None
    assert pace.slower().rate == RATES[-1]
    for _ in range(2 * len(RATES)):
        pace = pace.slower()
    assert pace.rate == RATES[0]
    assert {DEFAULT.next_canary(3).canary, DEFAULT.next_canary(3).next_canary(3).canary} == {0, 1}


async def test_another_plan_and_the_agents_last_outcomes_are_named(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    rows("INSERT INTO relay.replay_plans (request_id, requested_by, state, total) VALUES (%s, 'opb', 'paused', 3)",
         (uuid4(),))  # fmt: skip
    rows("INSERT INTO relay.operator_actions (operator, action, plan_id) VALUES ('opb', 'replay.pause', 1)")
    rows("INSERT INTO relay.replay_items (plan_id, position, delivery, run) SELECT 1, row_number() OVER (), id, run"
         " FROM relay.deliveries WHERE state = 'dead' ORDER BY id LIMIT 3")  # fmt: skip
    async with console() as seen:
        await seen.shows("▶ replay #1 0 % paused")
        await open_dead_letters(seen)
        await seen.press("R")
        await seen.shows("opb", "is replaying 3 of these (#1); each is sent once", "1 of the last 24 delivered")


async def test_what_is_answered_by_now_is_left_out_unless_it_is_included(
    incident: RunningRelay, console: Console, rows: Rows, chatwoot: ChatwootStandIn
) -> None:
    rows("UPDATE relay.deliveries SET customer = true WHERE state = 'dead'")
    chatwoot.open_conversations((7,))
    chatwoot.add_message(7, "Done.", message_type=1)
    given = {"chatwoot_base_url": chatwoot.url, "chatwoot_api_key": chatwoot.api_key, "chatwoot_account_id": 1}
    async with console(**given) as seen:
        await open_dead_letters(seen)
        await seen.press("R")
        await seen.shows("1 is answered in Chatwoot by now (left out; i includes)", f"type {ALL - 1} and enter")
        await seen.press("4", "i")
        await seen.shows("included; i leaves them out", f"type {ALL} and enter")
        assert "> 4" not in seen.text
        await seen.press("i")
        await seen.type(str(ALL - 1))
        await seen.press("enter")
        await seen.shows(f"all {ALL - 1} delivered")


async def test_an_edit_is_kept_until_it_is_sent_or_discarded_by_name(
    incident: RunningRelay, console: Console, rows: Rows, seen: Callable[[], list[dict[str, Any]]]
) -> None:
    async with console() as shown:
        await open_dead_letters(shown)
        row_id = shown.app.view.list.row.id

        async def edit(text: str) -> None:
            editor = shown.app.screen.query_one("#editor")
            editor.text = editor.text.replace("message 47", text)
            await shown.shows("esc keeps the edit, ctrl+g discards it")

        await shown.press("e")
        await shown.shows("as it came")
        await edit("mended")
        await shown.press("escape")
        await shown.shows("An edit is kept, not sent")
        await shown.press("e")
        await shown.shows('"mended"', "a JSON object, changed")
        await shown.press("ctrl+s")
        await shown.shows('+  "content": "mended"')
        await shown.press("y")
        await shown.shows("1 delivery with an edited body", "type 1 and enter")
        await shown.press("n")
        await shown.shows("1 delivery would be sent")
        await shown.press("n")
        await shown.shows("type 1 and enter")
        await shown.press("escape", "1", "q")
        await shown.shows("1 edited payload not sent", "y does it")
        await shown.press("escape", "question_mark", "ctrl+q")
        await shown.shows("1 edited payload not sent", "y does it")
        await shown.press("escape")
        assert row_id in shown.app.context.drafts
        await shown.press("2", "e")
        await shown.shows('"mended"')
        await shown.press("ctrl+q")
        await shown.hides("Edit the payload")
        assert row_id in shown.app.context.drafts
        await shown.press("e")
        await shown.shows('"mended"')
        await shown.press("ctrl+g")
        await shown.hides("Edit the payload")
        assert not shown.app.context.drafts
        await shown.press("e")
        await shown.shows("as it came")
        await edit("sent")
        await shown.press("ctrl+s", "y", "1", "enter")
        await shown.shows("all 1 delivered")
        assert not shown.app.context.drafts
    assert seen()[-1]["content"] == "sent"


async def test_an_ended_replay_opens_as_the_list_of_its_deliveries(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await ask_for_the_group(seen)
        await seen.press("enter")
        await seen.shows(f"all {OVERLOADED} delivered", "enter lists them")
        await seen.press("enter")
        await seen.shows("FILTERED replay:1", f"{OVERLOADED} match", "delivered")
        await seen.press("6")
        await seen.shows("lists an ended one", "#1")
        await seen.press("escape", "6", "enter")
        await seen.shows("FILTERED replay:1", f"{OVERLOADED} match")


async def test_a_running_replay_is_in_the_header_of_every_screen(
    incident: RunningRelay, console: Console, rows: Rows, agent: HeldAgent
) -> None:
    agent.hold()
    async with console((80, 24)) as seen:
        await ask_for_the_group(seen)
        await seen.press("enter")
        await seen.shows("p pauses", "left")
        await seen.press("escape")
        for keys in (["1"], ["2"], ["3"], ["4"], ["5"], ["6"], ["2", "enter"], ["D"]):
            await seen.press(*keys)
            await until(lambda: "▶ replay" in seen.text.splitlines()[0], what=f"the header has the replay, {keys}")
        agent.release()
        await seen.hides("▶ replay")


async def test_a_replay_during_a_hold_says_what_it_waits_for(
    incident: RunningRelay, console: Console, rows: Rows, dsn: str
) -> None:
    async with connected(dsn) as connection:
        await gate.hold(connection, "opb", "deploying the agent")
    waits = "orwarding is held by opb", "so a replay waits until H releases it"
    async with console() as seen:
        await seen.shows("Forwarding is held by opb")
        await ask_for_the_group(seen)
        await seen.shows(*waits)
        await seen.press("enter")
        await seen.shows(f"running  {OVERLOADED} left; f", *waits, "▶ replay #1 0 % held")
        await seen.press("H")
        await seen.shows("Release it")
        await seen.press("y", "6")
        await seen.shows(f"{OVERLOADED} delivered")


async def test_the_drill_takes_nine_keys_and_a_single_payload_three(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    drill = ["enter", "R", *str(OVERLOADED), "enter"]
    single = ["enter", "r", "y"]
    assert len(drill) <= 9
    async with console() as seen:
        await seen.shows("Failure groups", "answered 503")
        await seen.press(*single[:-1])
        await seen.shows("1 delivery", "y does it")
        await seen.press(single[-1])
        await seen.shows("all 1 delivered")
        await seen.press("escape", "1")
        await seen.shows("Failure groups")
        await seen.press(*drill[:2])
        await seen.shows(f"type {OVERLOADED - 1} and enter")
        await seen.type(str(OVERLOADED - 1))
        await seen.press("enter")
        await seen.shows(f"all {OVERLOADED - 1} delivered")


async def test_no_relay_no_discard(incident: RunningRelay, console: Console, rows: Rows) -> None:
    async with console() as seen:
        await open_dead_letters(seen)
        await seen.press("d")
        await seen.shows("Discard 1 dead letter")
        await incident.stop()
        await seen.shows("Webhooks are being lost")
        await seen.type("too old")
        await seen.press("enter")
        await seen.shows("No relay is running, so nothing can be discarded")
        await seen.press("d")
        await seen.hides("DISCARD")
    assert rows("SELECT 1 FROM relay.operator_actions WHERE action = 'discard'") == []


def test_the_time_left_is_measured() -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    pace = PlanPace()

    def plan(settled: int, state: PlanState = PlanState.RUNNING) -> Plan:
        return Plan(
            id=1, request_id=uuid4(), state=state, requested_by="maria", reason="", filter="", rate=20, canary=1,
            stop_after=3, edited=False, total=100, delivered=settled, dead=0, skipped=0, stopped_why=None,
            created_at=began, started_at=began, finished_at=None, login=None,
        )  # fmt: skip

    assert pace.left_s(plan(0)) is None
    pace.take([plan(10)], began + timedelta(seconds=5))
    assert pace.left_s(plan(10)) == 45  # since it began: two a second
    for second in range(6, 17):
        pace.take([plan(10 + 4 * (second - 5))], began + timedelta(seconds=second))
    assert pace.left_s(plan(54)) == 11.5  # the last ten seconds: four a second
    pace.take([plan(54, PlanState.PAUSED)], began + timedelta(seconds=17))
    assert pace.left_s(plan(54)) is None
    pace.take([plan(54)], began + timedelta(seconds=18), is_stopped=True)
    assert pace.left_s(plan(54)) is None
