"""What an operator has confirmed is carried out, whatever comes next; and nothing else is taken for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.events import Key

from tests.console.conftest import ALL, OVERLOADED, REFUSED, ask_for_the_group, open_dead_letters, open_one
from tests.servers import locked, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import HeldAgent, Rows, RunningRelay

    Console = Callable[..., Any]

PLANS = "relay.replay_plans"


async def waits_for_a_lock(rows: Rows) -> None:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    await until(lambda: rows(waiting), what="the write waits")


def now(seen: Any, *keys: str) -> None:
    """Press keys without waiting for what they do."""
    for key in keys:
        seen.app.post_message(Key(key, ":" if key == "colon" else key if len(key) == 1 else None))


async def test_a_replay_is_sent_though_the_delivery_is_left(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await open_one(seen)
        await seen.press("r")
        await seen.shows("y does it")
        async with locked(rows.dsn, PLANS):
            now(seen, "y")
            await waits_for_a_lock(rows)
            await seen.shows("Handing 1 delivery to the relay")
            now(seen, "escape", "escape")
            await seen.shows("newest first")
        await seen.shows("Replay #1 is queued")
    assert rows.one("SELECT total FROM relay.replay_plans") == 1


async def test_a_replay_is_sent_though_the_console_is_left(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await ask_for_the_group(seen)
        async with locked(rows.dsn, PLANS):
            now(seen, "enter")
            await waits_for_a_lock(rows)
            now(seen, "escape", "q")
    await until(lambda: rows("SELECT total FROM relay.replay_plans") == [OVERLOADED])


async def test_a_replay_that_is_handed_over_does_not_take_the_place_of_another_question(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await open_dead_letters(seen)
        await seen.press("r")
        await seen.shows("y does it")
        async with locked(rows.dsn, PLANS):
            now(seen, "y")
            await waits_for_a_lock(rows)
            await seen.press("escape", "d")
            await until(
                lambda: rows("SELECT 1 FROM pg_stat_activity WHERE application_name = 'hotdash console session'")
            )
        await seen.shows("Type the reason")
        await seen.shows("Type the reason", "Replay #1 is queued")
        await seen.type("xfix")
        await seen.shows("> xfix")
    assert rows("SELECT action FROM relay.operator_actions WHERE action = 'replay.stop'") == []


async def test_a_discard_names_what_it_is_about(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await open_dead_letters(seen)
        row = seen.app.view.list.row
        await seen.press("d")
        await seen.shows("Discard 1 dead letter", row.delivery_id, f"conv {row.conversation_id}", "It stays on record")


async def test_what_is_typed_ahead_of_the_reason_is_its_beginning(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await open_dead_letters(seen)
        now(seen, *"dno use")
        await seen.shows("> no use")
        await seen.press("enter")
        await until(lambda: rows("SELECT reason FROM relay.operator_actions WHERE action = 'discard'") == ["no use"])


async def test_all_but_one_are_marked_and_replayed(incident: RunningRelay, console: Console, rows: Rows) -> None:
    async with console() as seen:
        await open_dead_letters(seen)
        await seen.press("asterisk")
        await seen.shows("all marked")
        kept = seen.app.view.list.row.delivery_id
        await seen.press("space")
        await seen.shows("all but 1 marked")
        await seen.press("r")
        await seen.shows(f"{ALL - 1} deliveries", f"type {ALL - 1}")
        await seen.type(str(ALL - 1))
        await seen.press("enter")
        await seen.shows(f"all {ALL - 1} delivered")
    assert rows("SELECT delivery_id FROM relay.deliveries WHERE state = 'dead'") == [kept]


async def test_marks_outlast_a_filter_that_hides_them(incident: RunningRelay, console: Console) -> None:
    async with console() as seen:
        await open_dead_letters(seen)
        await seen.press("space", "space", "space")
        await seen.shows("3 marked")
        await seen.press("slash")
        await seen.type("status:503 conv:1")
        await seen.press("enter")
        await seen.shows("1 match", "3 marked")


async def test_esc_in_the_filter_keeps_what_was_typed_and_what_follows_goes_by_it(
    incident: RunningRelay, console: Console
) -> None:
    async with console() as seen:
        await open_dead_letters(seen)
        await seen.press("slash")
        now(seen, *"status", "colon", *"422", "escape", "R")
        await seen.shows(f"{REFUSED} deliveries")


async def test_a_watched_replay_is_followed_however_many_come_after_it(
    incident: RunningRelay, console: Console, rows: Rows, agent: HeldAgent
) -> None:
    agent.hold()
    async with console() as seen:
        await ask_for_the_group(seen)
        await seen.press("enter")
        await seen.shows("p pauses")
        rows(
            "INSERT INTO relay.replay_plans (request_id, requested_by, state, finished_at)"
            " SELECT gen_random_uuid(), 'bob', 'done', now() FROM generate_series(1, 9)"
        )
        agent.release()
        await seen.shows(f"all {OVERLOADED} delivered")


async def test_a_running_replay_is_steered_from_the_list_of_them(
    incident: RunningRelay, console: Console, rows: Rows, agent: HeldAgent
) -> None:
    agent.hold()
    async with console() as seen:
        await ask_for_the_group(seen)
        await seen.press("enter")
        await seen.shows("p pauses")
        await seen.press("escape", "6")
        await seen.shows("Who did what", "running")
        await seen.press("p")
        await seen.shows("paused")
        await until(
            lambda: rows.one("SELECT state FROM relay.replay_plans") == "paused"
        )  # by the relay, not just asked
        agent.release()
        assert not seen.app.context.paused
        await seen.press("escape", "x")
        await seen.shows("Stopped")
    assert rows.one("SELECT state FROM relay.replay_plans") == "stopped"


async def test_a_line_of_the_audit_is_read_to_its_end(incident: RunningRelay, console: Console, rows: Rows) -> None:
    reason = "because " + "of a long story " * 10
    rows("INSERT INTO relay.operator_actions (operator, action, reason) VALUES ('bob', 'discard', %s)", (reason,))
    async with console((80, 24)) as seen:
        await seen.press("6")
        await seen.shows("bob", "discard")
        await seen.press("tab", "enter")
        await seen.shows("WHO DID WHAT", "long story", "any key closes this")
