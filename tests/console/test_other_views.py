"""Deliveries, log, health, activity, test webhooks, copying, read-only: key by key, on a real relay."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from textual import events

from console.data.context import place_of
from relay.demo.agent import Behaviour
from relay.settings import load_settings
from tests.console.conftest import OVERLOADED, webhook
from tests.servers import locked, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.console.screens import Terminal, Watched
    from tests.servers import HeldAgent, Rows, RunningRelay

    Console = Callable[..., object]
    Start = Callable[..., Awaitable[RunningRelay]]


# Deliveries


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


# Log


async def test_the_log_follows_its_end(relay: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "the log is empty")
        await relay.post(webhook(1), x_chatwoot_delivery="abcdefgh-1")
        await seen.shows("abcdefgh  Forwarding Chatwoot webhook  attempt: 1", "Webhook forwarded successfully")


async def test_a_line_that_is_committed_after_a_later_one_takes_its_place_before_it(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    append = (
        "INSERT INTO relay.log (at, level, scope, message, fields, instance)"
        " VALUES (now(), 'info', 'support.webhook', %s, '{}', gen_random_uuid())"
    )
    async with console() as seen:
        await seen.press("4")
        rows(append, ("the first",))
        await seen.shows("the first", "1 line")
        with psycopg.connect(rows.dsn) as slower:
            slower.execute(append, ("the second",))
            rows(append, ("the third",))
            await seen.shows("the third", "2 lines")
        shown = await seen.shows("the second", "3 lines")
        assert shown.index("the first") < shown.index("the second") < shown.index("the third")


async def test_the_log_is_held_and_followed_again(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "Webhook forwarded successfully")
        await seen.press("k")
        await seen.shows("held; f follows")
        await seen.press("f")
        await seen.shows("FOLLOWING")


async def test_the_log_is_searched_both_ways(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "Webhook forwarded successfully")
        await seen.press("slash")
        await seen.type("00000003")
        await seen.press("enter")
        await seen.shows("search 00000003", "held")
        lines = seen.app.screen.query_one("#log-lines")
        last = lines.cursor
        await seen.press("N")
        await until(lambda: lines.cursor < last)
        await seen.press("n")
        await until(lambda: lines.cursor == last)
        await seen.press("n")
        await seen.shows("match 1 of", "wrapped to the top, no match further down")
        assert lines.cursor < last
        await seen.press("N")
        await seen.shows("wrapped to the bottom, no match further up")
        assert lines.cursor == last


async def test_a_search_from_an_older_line_wraps_around_to_a_match_below(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    rows(_LOGGED, {"lines": 300, "failures": 0})
    async with console((80, 24)) as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "line 300")
        await seen.press("g")
        await seen.shows("the log begins here")
        await seen.press("slash")
        await seen.type("LINE 29")
        await seen.press("enter")
        await seen.shows("match 11 of 11", "wrapped to the bottom, no match further up")
        assert under_cursor(seen) == "line 299"
        await seen.press("n")
        await seen.shows("match 1 of 11", "wrapped to the top, no match further down")
        assert under_cursor(seen) == "line 29"


async def test_the_log_shows_the_lines_that_match_alone(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "00000047")
        await seen.press("slash")
        await seen.type("00000047")
        await seen.press("enter", "o")
        await seen.shows("only lines with 00000047")
        lines = [line for line in seen.text.splitlines() if re.match(r" ?\d\d:\d\d:\d\d\.", line)]
        assert lines
        assert all("00000047" in line for line in lines)
        await seen.press("escape")
        await seen.hides("only lines with")
        assert any("00000047" not in line for line in seen.text.splitlines() if "webhook" in line)


async def test_without_a_search_the_log_says_how_to_begin_one(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING")
        for key in ("N", "n", "o"):
            await seen.press("left_square_bracket")
            await seen.hides("search for something")
            await seen.press(key)
            await seen.shows("search for something with / first")
        assert not seen.app._notifications


async def test_the_log_jumps_from_failure_to_failure(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("Webhook forwarded successfully")
        await seen.press("left_square_bracket")
        lines = seen.app.screen.query_one("#log-lines")
        await until(lambda: lines.cursor < len(lines.keys) - 1)
        first = lines.cursor
        await seen.press("left_square_bracket")
        await until(lambda: lines.cursor < first)
        await seen.press("right_square_bracket")
        await until(lambda: lines.cursor == first)


async def test_a_line_too_long_for_the_screen_is_read_to_its_end_below(
    incident: RunningRelay, console: Console
) -> None:
    async with console((80, 24)) as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING")
        assert "finalStatus" not in seen.text
        await seen.press("left_square_bracket")
        await seen.shows("held; f follows", "finalStatus: 4")
        await seen.press("f")
        await seen.hides("finalStatus")


async def test_the_log_shows_a_level_and_worse(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("Forwarding Chatwoot webhook")
        await seen.press("l")
        await seen.shows("level warning and worse")
        await seen.hides("Forwarding Chatwoot webhook")
        await seen.press("l")
        await seen.shows("level error and worse", "dead-lettered")


async def test_a_log_line_leads_to_its_delivery(relay: RunningRelay, console: Console) -> None:
    await relay.post(webhook(1), x_chatwoot_delivery="the-one-and-only")
    async with console() as seen:
        await seen.press("4")
        await seen.shows("Webhook forwarded successfully")
        await seen.press("enter")
        await seen.shows("the-one-and-only", "DELIVERED")


async def test_the_log_goes_back_fifty_thousand_lines(relay: RunningRelay, console: Console, rows: Rows) -> None:
    rows(
        "INSERT INTO relay.log (at, level, scope, message, fields, instance)"
        " SELECT now(), 'info', 'support.webhook', 'line ' || n, '{}', gen_random_uuid()"
        " FROM generate_series(1, 50000) n"
    )
    async with console() as seen:
        await seen.press("4")
        await seen.shows("line 50000")
        await seen.shows("the newest 1,000 lines", "k at the top, or g, loads older")
        await seen.press("g")
        await seen.shows("50,000 lines", "the log begins here")
        await until(lambda: any(line.rstrip().endswith("line 1") for line in seen.text.splitlines()))


async def test_the_log_says_that_it_catches_up(relay: RunningRelay, console: Console, rows: Rows) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("No webhook yet")
        await relay.post(webhook(1))
        await seen.shows("FOLLOWING", "Webhook forwarded successfully")
        view, said = seen.app.view, []
        update = view._update

        def recorded(log: Any) -> None:
            update(log)
            said.append(view.query_one("#filter-line").content.plain.split("  ")[0])

        view._update = recorded  # it may be over before a test reads the screen
        await seen.press("1")
        rows(_LOGGED, {"failures": 0, "lines": 20_000})
        await seen.press("4")
        await seen.shows("FOLLOWING", "line 20000")
    assert "CATCHING UP" in said
    assert said[-1] == "FOLLOWING"


_LOGGED = """
    INSERT INTO relay.log (at, level, scope, message, fields, instance)
    SELECT now(), CASE WHEN n <= %(failures)s THEN 'error' ELSE 'info' END, 'support.webhook', 'line ' || n, '{}',
           gen_random_uuid()
      FROM generate_series(1, %(lines)s) n
"""
"""So many lines, the oldest of which are failures."""


def unreadable(rows: Rows) -> AbstractAsyncContextManager[None]:
    """The log, for as long as the block lasts."""
    return locked(rows.dsn, "relay.log", "ACCESS EXCLUSIVE")


def under_cursor(seen: Watched) -> str:
    return seen.app.screen._log.current.message


async def test_the_log_searches_further_back_for_a_failure_than_it_has_read(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    rows(_LOGGED, {"lines": 9_000, "failures": 3})
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "the newest 1,000 lines")
        async with unreadable(rows):
            await seen.press("left_square_bracket")
            await seen.shows("reading older lines …")
        await until(lambda: under_cursor(seen) == "line 3")
        await seen.press("left_square_bracket", "left_square_bracket")
        assert under_cursor(seen) == "line 1"
        await seen.press("left_square_bracket")
        await seen.shows("No more failures above; the log begins here")
        assert not seen.app._notifications


async def test_a_search_of_the_log_reads_further_back_and_says_where_it_ended(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    rows(_LOGGED, {"lines": 5_000, "failures": 0})
    async with console() as seen:
        await seen.press("4", "slash")
        await seen.shows("the newest 1,000 lines")
        await seen.type("line 12")
        await seen.press("enter")
        await until(lambda: under_cursor(seen) == "line 1299")
        await seen.press("slash")
        seen.app.screen.query_one("#filter").value = "nowhere"
        await seen.press("enter")
        await seen.shows("search nowhere", "no match in all 5,000 lines")
        await seen.press("N", "N", "n")
        assert "no match in all 5,000 lines" in seen.text
        assert not seen.app._notifications


async def test_a_search_ends_with_the_lines_that_are_held(relay: RunningRelay, console: Console, rows: Rows) -> None:
    rows(_LOGGED, {"lines": 52_000, "failures": 1})
    async with console() as seen:
        await seen.press("4")
        await seen.shows("the newest 1,000 lines")
        await seen.press("left_square_bracket")
        await seen.shows("the newest 50,000 lines", "No more failures above; no more than 50,000 lines are kept")


async def test_a_level_fills_the_screen_from_older_lines_and_says_of_how_many(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    rows(_LOGGED, {"lines": 6_000, "failures": 2_500})
    async with console() as seen:
        await seen.press("4")
        await seen.shows("the newest 1,000 lines")
        await seen.press("l", "l")
        await seen.shows("1,500 of the newest 5,000 lines", "level error and worse", "line 2500")
        await seen.press("g")
        await seen.shows("2,500 of all 6,000 lines", "the log begins here")
        assert under_cursor(seen) == "line 1"


async def test_esc_stops_reading_further_back(relay: RunningRelay, console: Console, rows: Rows) -> None:
    rows(_LOGGED, {"lines": 40_000, "failures": 0})
    async with console() as seen:
        await seen.press("4")
        await seen.shows("the newest 1,000 lines")
        async with unreadable(rows):
            await seen.press("l", "l")
            await seen.shows("reading older lines …", "None of these lines is shown")
            await seen.press("escape")
            await seen.hides("reading older lines …")
        read_at = seen.app.context.snapshot.read_at
        await until(lambda: seen.app.context.snapshot.read_at > read_at + 1)
        assert "0 of the newest 1,000 lines" in seen.text


async def test_the_line_above_the_first_one_is_read_and_gone_to(
    relay: RunningRelay, console: Console, rows: Rows
) -> None:
    rows(_LOGGED, {"lines": 2_000, "failures": 0})
    async with console() as seen:
        await seen.press("4")
        await seen.shows("the newest 1,000 lines")
        seen.app.screen.query_one("#log-lines").move_to(0)
        await until(lambda: under_cursor(seen) == "line 1001")
        await seen.press("k")
        await until(lambda: under_cursor(seen) == "line 1000")
        assert "line 1001" in seen.text


# Health, health check, test webhook


async def test_a_test_webhook_that_fails_is_seen_to_its_end_at_80x24(
    relay: RunningRelay, console: Console, agent: HeldAgent
) -> None:
    agent.behave(Behaviour(status=503))
    async with console((80, 24), relay=relay) as seen:
        await seen.press("t")
        await seen.shows("test webhook to")
        await seen.press("1")
        await seen.shows("posting message_created", "the relay answered 500", "any key closes this")
        await seen.shows("attempt 1: 503 in", "attempt 3 after a wait of", "dead: Agent SDK answered 503")
        assert seen.text.index("the relay answered 500") < seen.text.index("dead: Agent SDK")


async def test_health_lists_probes_relays_and_every_rule(incident: RunningRelay, console: Console) -> None:
    async with console((120, 60)) as seen:
        await seen.press("5")
        shown = await seen.shows("Agent SDK /health", "worker 0", "unsigned accepted", "FIRING", "quiet")
        for rule in ("success-rate-p0", "escalate-dlq", "relay-down", "no-webhooks-info"):
            assert rule in shown
        (longest,) = (line for line in shown.splitlines() if "escalate-replies-stalled" in line)
        assert "a customer's message undelivered for more than 30 min" in longest


async def test_h_runs_the_runbooks_health_check(
    start_relay: Start, console: Console, chatwoot: ChatwootStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    rows: Rows,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    await start_relay()
    async with console(
        chatwoot_base_url=chatwoot.url, chatwoot_api_key=chatwoot.api_key, chatwoot_account_id=chatwoot.account_id
    ) as seen:
        await seen.shows("Failure groups")
        await seen.press("h")
        await seen.shows(
            "Chatwoot health check OK → artifacts/ops/chatwoot_health_", "  /health: OK (200)",
            "  authenticated API: OK (200)", "Agent SDK /health: OK (200)",
        )  # fmt: skip
        await until(lambda: rows("SELECT operator FROM relay.operator_actions") == ["maria"])
    (artifact,) = (tmp_path / "artifacts" / "ops").iterdir()
    assert json.loads(artifact.read_text())["all_ok"] is True


async def test_h_says_what_is_missing(relay: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        await seen.press("h")
        await seen.shows("could not be run", "CHATWOOT_BASE_URL")


@pytest.mark.parametrize("secret", [None, "s3cret"])
async def test_t_posts_a_test_webhook_and_follows_it(
    start_relay: Start, console: Console, agent: HeldAgent, rows: Rows, secret: str | None
) -> None:
    relay = await start_relay(chatwoot_webhook_secret=secret)
    agent.behave(Behaviour(status=503, times=1))
    async with console(relay=relay, chatwoot_webhook_secret=secret) as seen:
        await seen.shows("Failure groups")
        await seen.press("t")
        signed = "unsigned" if secret is None else ", signed as Chatwoot signs"
        await seen.shows("TEST WEBHOOK", relay.url, "as maria", "1  message_created", "3  conversation_status_changed")
        assert signed in seen.text
        await seen.press("3")
        await seen.shows(
            "the relay answered 200", "attempt 1: 503 in", "attempt 2 after a wait of", "delivered", "any key closes",
        )  # fmt: skip
        await seen.press("escape")
        await seen.hides("TEST WEBHOOK")
        await seen.shows("– 1 h")  # outside the success rate
    ((_, metadata),) = rows.facts("support.webhook.retry")
    assert metadata["test"] is True


async def test_a_test_webhook_that_is_watched_no_more_stays_closed(
    relay: RunningRelay, console: Console, agent: HeldAgent, rows: Rows
) -> None:
    agent.hold()
    async with console(relay=relay) as seen:
        await seen.shows("Failure groups")
        await seen.press("t", "1")
        await seen.shows("posting message_created")
        await seen.press("escape")
        await seen.hides("TEST WEBHOOK")
        agent.release()
        await until(lambda: rows("SELECT 1 FROM relay.operator_actions WHERE action = 'test-webhook'"))
        assert "TEST WEBHOOK" not in seen.text


async def test_pasted_text_is_cleaned(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        await seen.press("2", "slash")
        seen.app.post_message(events.Paste("conv:\x1b]52;c;UFdORUQ=\x07\u202e7"))
        await seen.shows("conv:␛]52;c;UFdORUQ=␇<U+202E>7")


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        ("postgresql://maria:s3cret@db.example:5433/hotdash?sslmode=require", "hotdash@db.example"),
        ("postgresql://a,b/hotdash?target_session_attrs=read-write", "hotdash@a,b"),
        ("host=/run/postgresql user=maria", "maria@localhost"),
        (None, "embedded, local"),
    ],
)
def test_which_database_it_is_is_said_without_credentials(dsn: str | None, place: str) -> None:
    assert place_of(load_settings(database_url=dsn), dsn or "") == place


async def test_t_says_that_no_relay_answers(relay: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        await seen.press("t")
        await seen.shows("TEST WEBHOOK")
        await seen.press("1")
        await seen.shows("No relay answers at http://127.0.0.1:9", "RELAY_URL")


# Activity


async def test_activity_shows_who_did_what(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await seen.shows("Failure groups")
        await seen.press("r")
        await seen.shows("and enter")
        await seen.type(str(OVERLOADED))
        await seen.press("enter")
        await seen.shows(f"all {OVERLOADED} delivered")
        await seen.press("escape", "6")
        await seen.shows(
            "#1 done",
            f"{OVERLOADED} delivered",
            f"of {OVERLOADED}",
            "maria (login: postgres)",
            "replay",
            "plan #1",
            "Agent SDK answered 503",
        )
        await seen.press("tab", "enter")
        await seen.shows("WHO DID WHAT", "maria (login: postgres)")


@pytest.mark.parametrize("size", [(80, 24), pytest.param((120, 40), marks=pytest.mark.slow)], ids=str)
async def test_activity_shows_the_login_beside_a_name_that_differs(
    incident: RunningRelay, console: Console, rows: Rows, size: tuple[int, int]
) -> None:
    rows("INSERT INTO relay.operator_actions (operator, action) VALUES ('postgres', 'note')")
    rows("INSERT INTO relay.operator_actions (operator, action) VALUES ('maria (CEO)', 'escalate')")
    rows("INSERT INTO relay.replay_plans (request_id, requested_by, state) VALUES (gen_random_uuid(), 'jonas', 'done')")
    async with console(size) as seen:
        await seen.press("6")
        shown = await seen.shows("maria (CEO) (login: postgres)", "jonas (login: postgres)", "escalate")
        assert "postgres (login" not in shown


async def test_another_console_watches_and_stops_a_replay(
    incident: RunningRelay, console: Console, rows: Rows, agent: HeldAgent
) -> None:
    agent.hold()
    async with console() as first:
        await first.shows("Failure groups")
        await first.press("r")
        await first.shows("and enter")
        await first.type(str(OVERLOADED))
        await first.press("enter")
        await first.shows("p pauses")
        await first.press("p")
        await first.shows("paused")
        async with console(console_operator="jonas") as second:
            await second.press("6")
            await second.shows("#1 paused", "maria")
            await second.press("enter")
            await second.shows("p resumes, x stops")
            await second.press("x")
            await second.shows("Stopped")
    assert rows("SELECT operator FROM relay.operator_actions WHERE action = 'replay.stop'") == ["jonas"]


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


# Read-only


async def test_read_only_hides_and_refuses_every_write(incident: RunningRelay, console: Console, rows: Rows) -> None:
    async with console(read_only=True) as seen:
        shown = await seen.shows("maria · RO", "Failure groups")
        assert "r replay" not in shown.splitlines()[-1]
        await seen.press("2")
        await seen.shows("CAUSE")
        for key in ("r", "R", "e", "d", "t"):
            await seen.press(key)
            await seen.shows("The console is read-only")
            assert not seen.app.view.question.is_open
        await seen.press("question_mark")
        shown = await seen.shows("Keys: Dead letters")
        assert "Replay" not in shown
    assert rows("SELECT 1 FROM relay.operator_actions") == []


async def test_read_only_connects_as_a_role_that_cannot_write(relay: RunningRelay, console: Console) -> None:
    async with console(read_only=True) as seen:
        await seen.shows("Failure groups")
        async with seen.app.context.session._session() as connection:
            cursor = await connection.execute("SELECT current_user, current_setting('transaction_read_only')")
            assert await cursor.fetchone() == ("console_reader", "on")
