"""The overview's panels, keys and sentences, on a real incident."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from console.actions import VIEWS
from relay.store import gate
from relay.store.database import connect
from relay.store.demo_history import mark_as_demo
from relay.store.sessions import connected
from tests.console.conftest import ALL, LIMITED, OVERLOADED, REFUSED, later, webhook
from tests.servers import Behaviour, until
from tests.store.plant import Plant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.servers import HeldAgent, Rows, RunningRelay

    Console = Callable[..., object]


@pytest.mark.parametrize(
    "size", [(60, 16), *(pytest.param(size, marks=pytest.mark.slow) for size in ((80, 24), (120, 36)))]
)
async def test_a_demos_database_is_named_as_such_at_any_width(
    incident: RunningRelay, console: Console, dsn: str, size: tuple[int, int]
) -> None:
    async with console(size) as seen:
        shown = await seen.shows("LIVE")
        assert "DEMO" not in shown
        async with await connect(dsn, "tests") as connection:
            await mark_as_demo(connection)
        await seen.shows(" DEMO ")
        assert seen.text.splitlines()[0].startswith(" DEMO ")
        for key in "23456":
            await seen.press(key)
            await seen.shows(" DEMO ")


async def test_the_first_sentence_is_the_cause(incident: RunningRelay, agent: HeldAgent, console: Console) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        agent.behave(Behaviour(status=503))
        await incident.post(webhook(501))
        share = f"{OVERLOADED + 1} of {ALL + 1} open dead letters share"
        shown = await seen.shows("Agent SDK answered 503 since", share)
        assert shown.splitlines()[1].strip().startswith("Agent SDK answered 503 since")


async def test_the_first_sentence_says_when_it_is_over(incident: RunningRelay, console: Console, rows: Rows) -> None:
    later(rows, 45)
    async with console(size=(160, 36)) as seen:
        await seen.shows("Agent SDK answers again since ", "(Agent SDK answered 503 from ", f"{ALL} dead letters wait.")
    async with console(size=(80, 24)) as seen:
        await seen.shows("Agent SDK answers again since ", f"{ALL} dead letters wait.  r replays {OVERLOADED}")
        await seen.press("2")
        await seen.shows(f"{ALL} dead letters wait.  R replays all")


async def test_at_80x24_alerts_and_groups_come_first_and_each_light_has_latency_and_age(
    start_relay: Callable[..., Awaitable[RunningRelay]],
    chatwoot: ChatwootStandIn,
    agent: HeldAgent,
    console: Console,
) -> None:
    relay = await start_relay(
        chatwoot_base_url=chatwoot.url, chatwoot_api_key=chatwoot.api_key, chatwoot_account_id=chatwoot.account_id
    )
    agent.behave(Behaviour(status=422))
    for number in range(6):
        await relay.post(webhook(number))
    async with console(size=(80, 24)) as seen:
        shown = await seen.shows("✓ Agent SDK 200", "firing", "refused the payload (422)", "✓ API 200")
        panes = [shown.index(f"─{pane}") for pane in ("Alerts", "Failure groups", "Success", "Health")]
        assert panes == sorted(panes)
        light = r"✓ {} 200 [\d.,]+ m?s \d+[sm]"  # its latency and its age
        lights = "  ".join(map(light.format, ("Agent SDK", "Chatwoot", "API")))
        assert re.search(lights, shown)


async def test_a_sentence_of_two_rows_leaves_the_figures_their_room_at_80x24(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with connected(rows.dsn) as connection:
        await gate.hold(connection, "maria", "deploying the agent", None)
    async with console(size=(80, 24)) as seen:
        await seen.shows(
            "Forwarding is held by maria", "H releases", "5 firing", "─Success", "─Health", "refused the payload"
        )


async def test_a_groups_rate_is_what_came_in_the_last_minute(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    later(rows, -600)  # so that a slow machine does not find it over
    async with console() as seen:
        await seen.shows(f"+{ALL}/min", f"+{OVERLOADED}  ")
        later(rows, 610)
        await seen.hides("/min ")


async def test_back_once_too_often_stays_and_q_quits(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        await seen.press("2")
        await seen.shows(f"all {ALL}")
        await seen.press("escape", "escape", "left", "escape")
        await seen.shows("Failure groups")
        assert "q quits" not in seen.text
        await seen.press("3")
        await seen.shows("STATE")
        await seen.press("q")
        await seen.shows("Failure groups")
        await seen.press("q")
        await until(lambda: not seen.app.is_running)


@pytest.mark.usefixtures("prebuilt_views")
async def test_the_other_views_are_there_before_they_are_asked_for(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        await until(lambda: set(seen.app._screen_stacks) >= set(VIEWS), what="every view is built")
        await seen.press("4")
        await seen.shows("FOLLOWING")


async def test_it_shows_everything_at_a_glance(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows(
            "LIVE", f"dead letters {ALL} open", "maria · RW",  # the status line
            "2.1 % 1 h", "2.1 % 15 min", "2.1 % now",  # one of forty-eight was delivered
            "avg attempts", "p95", "in flight", f"{ALL} in 1 h", f"{ALL} in 24 h", f"{ALL} open",
            "1 ok", "45 dead", "2 dead", "503 × 40", "429 × 5", "422 × 2",
            "◈Critical", "success rate < 80 % over 15 min", "‼escalate", "more than 20 dead letters in 1 h",
            "✓ Agent SDK /health", "200", "1 relay worker", "v0.1.0", "beat", "unsigned accepted",
        )  # fmt: skip


async def test_groups_are_counted_by_cause(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        shown = await seen.shows("Agent SDK is rate limiting (429)", "Agent SDK refused the payload (422)")
        groups = [
            line.replace("▸", " ").split()
            for line in shown.splitlines()
            if "Agent SDK" in line and "message_created" in line
        ]
        assert [(int(group[0]), group[4]) for group in groups] == [
            (OVERLOADED, "503"), (LIMITED, "429"), (REFUSED, "422")
        ]  # fmt: skip


async def test_enter_opens_the_group_as_a_filtered_list(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        await seen.press("j", "enter")
        await seen.shows("FILTERED", f"{LIMITED} match", f"{ALL - LIMITED} hidden")


async def test_w_switches_the_window(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        for window in ("6 h", "24 h", "15 min", "1 h"):
            await seen.press("w")
            await seen.shows(f"Success, last {window}", f"Deliveries by attempts, last {window}")


async def test_o_sorts_the_groups(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        for order in ("count", "last", "rate"):
            await seen.press("o")
            await seen.shows(f"Failure groups by {order}")


async def test_z_gives_the_groups_all_of_the_room(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("Success, last")
        await seen.press("z")
        await seen.hides("Success, last")
        await seen.press("z")
        await seen.shows("Success, last")


async def test_the_cursor_stays_on_its_group_when_the_order_changes(
    incident: RunningRelay, console: Console, agent: HeldAgent, rows: Rows
) -> None:
    async with console() as seen:
        await seen.shows("Agent SDK refused the payload (422)")
        await seen.press("G")
        rows("UPDATE relay.deliveries SET final_status = '422', last_error = 'Agent SDK refused the payload (422)'"
             " WHERE state = 'dead' AND final_status = '503' AND conversation_id <> '1'")  # fmt: skip
        await until(lambda: f"{OVERLOADED + REFUSED - 1} " in seen.text)
        await seen.press("enter")
        await seen.shows("status:422", f"{OVERLOADED + REFUSED - 1} match")


async def test_when_all_is_well_it_says_so(relay: RunningRelay, console: Console) -> None:
    await relay.post(webhook(1))
    async with console() as seen:
        await seen.shows("Nothing is failing. No dead letter waits.", "✓ no alerts", "no active alerts", "100.0 %")


async def test_before_the_first_webhook_it_says_why_it_is_empty(relay: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("no delivery in this window", "No webhook received yet", "no webhook yet")


async def test_without_a_relay_it_says_so_first(console: Console) -> None:
    async with console() as seen:
        await seen.shows("No relay is running: no heartbeat was ever recorded", "relay serve", "✗ no relay is alive")


async def test_a_relay_that_has_fallen_silent_is_the_worst_of_all(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    await incident.stop()
    rows("UPDATE relay.instances SET heartbeat_at = now() - interval '11 minutes'")
    async with console() as seen:
        await seen.shows("No relay is running: the last heartbeat was 11m ago", "no relay heartbeat for 60 s")


async def test_a_signed_relay_is_shown_as_one(start_relay: Callable[..., object], console: Console) -> None:
    await start_relay(chatwoot_webhook_secret="s3cret")
    async with console() as seen:
        await seen.shows("signed only")
        await seen.hides("unsigned")


async def test_p_pauses_painting_and_says_how_old_the_numbers_are(relay: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("no webhook yet")
        await seen.press("p")
        await seen.shows("PAUSED")
        await relay.post(webhook(1))
        await until(lambda: re.search(r"PAUSED \d*[2-9]s", seen.text))
        assert "no webhook yet" in seen.text
        await seen.press("p")
        await seen.shows("LIVE", "Webhook forwarded successfully")


async def test_new_deliveries_appear_by_themselves(relay: RunningRelay, console: Console, agent: HeldAgent) -> None:
    async with console() as seen:
        await seen.shows("no webhook yet")
        await relay.post(webhook(1))
        await seen.shows("100.0 % 1 h", "Webhook forwarded successfully")


async def test_an_alert_says_for_how_long_it_has_fired(incident: RunningRelay, console: Console, rows: Rows) -> None:
    await until(lambda: rows("SELECT 1 FROM relay.alerts"))
    rows("UPDATE relay.alerts SET since = since - interval '19 minutes'")
    async with console() as seen:
        await seen.shows("for 19m")


@pytest.mark.parametrize("size", [(80, 24), pytest.param((120, 36), marks=pytest.mark.slow)])
async def test_alerts_are_aligned_in_columns(
    incident: RunningRelay, console: Console, rows: Rows, size: tuple[int, int]
) -> None:
    await until(lambda: rows.one("SELECT count(*) FROM relay.alerts") >= 5)
    rows("UPDATE dashboard_facts SET recorded_at = now() - interval '550 s' WHERE fact_type = 'support.webhook.retry'")
    rows("UPDATE relay.alerts SET since = now() - interval '3 hours 10 minutes' WHERE rule = 'success-rate-critical'")
    async with console(size) as seen:
        shown = await seen.shows("success rate < 50 % for 10 min", "success rate < 80 % over 15 min", "3h1")
        rates = [line for line in shown.splitlines() if "success rate <" in line]
        assert len({line.index("2.1 %") for line in rates}) == 1, shown


async def test_an_alert_whose_condition_holds_no_more_is_said_to_end(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    await until(lambda: rows("SELECT 1 FROM relay.alerts WHERE rule = 'attempts-info'"))
    async with console() as seen:
        await seen.shows("for ")
        await seen.hides("ending")
        later(rows, 2 * 3600)
        rows("UPDATE relay.alerts SET held_at = now() + interval '1 hour'")  # as long as this test needs
        await seen.shows("ending")
        await seen.press("5")
        await until(lambda: re.search(r"ending +average attempts", seen.text))


@pytest.mark.parametrize("size", [(80, 24), pytest.param((120, 36), marks=pytest.mark.slow)])
async def test_the_relays_stay_in_sight_when_nothing_else_answers(
    relay: RunningRelay, console: Console, rows: Rows, size: tuple[int, int]
) -> None:
    plant = Plant(rows)
    for target in ("chatwoot", "chatwoot_api"):
        found = {"target": target, "ok": False, "status": None, "latencyMs": 3, "error": "connection_refused"}
        plant.facts("support.health", found, age_s=0)
    async with console(size) as seen:
        await seen.shows("Agent SDK", "1 relay worker", "unsigned accepted", "in flight")
        await until(lambda: seen.text.count(" refused ") == 2)


async def test_what_hangs_at_the_agent_has_come_in(relay: RunningRelay, console: Console, agent: HeldAgent) -> None:
    agent.hold()
    coming = [asyncio.create_task(relay.post(webhook(number))) for number in range(24)]
    async with console() as seen:
        await seen.shows("24 in flight")
        assert re.search(r"in 0\.[2-4]/s", seen.text), seen.text
    agent.release()
    await asyncio.gather(*coming)


async def test_that_no_relay_is_running_ends_with_the_remedy_at_80x24(console: Console, rows: Rows) -> None:
    Plant(rows).relay(heartbeat_age_s=700, lease_s=-600)
    async with console((80, 24)) as seen:
        await seen.shows("No relay is running! Webhooks are being lost. Start one with `relay serve`.")


async def test_the_palette_knows_every_action(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        await seen.press("colon")
        await seen.type("switch the window")
        await seen.shows("Switch the window: 15 min, 1 h, 6 h, 24 h")
        await seen.press("enter")
        await seen.shows("Success, last 6 h")


async def test_the_palette_and_the_footer_begin_with_what_one_does_here(
    incident: RunningRelay, console: Console
) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        await seen.press("4")
        await seen.shows("FOLLOWING")
        footer = seen.text.splitlines()[-1]
        assert footer.index("f follow") < footer.index("l level") < footer.index("? help"), footer
        titles = [command.title for command in seen.app.get_system_commands(seen.app.screen)]
        assert titles.index("Follow the log's end") < titles.index("Go to overview")
        assert titles.index("Find in the text") < titles.index("Escalate: gather the evidence and file it")


async def test_the_theme_can_be_switched(relay: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        before = seen.app.theme
        await seen.press("T")
        assert seen.app.theme != before
        await seen.shows("Failure groups")
