"""Health, test webhooks, activity, read-only: key by key, on a real relay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from textual import events

from console.data.context import place_of
from relay.demo.agent import Behaviour
from relay.settings import load_settings
from tests.console.conftest import OVERLOADED
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from relay.demo.chatwoot import ChatwootStandIn
    from tests.servers import HeldAgent, Rows, RunningRelay

    Console = Callable[..., object]
    Start = Callable[..., Awaitable[RunningRelay]]


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
        await first.shows("paused by maria")
        async with console(read_only=True) as watcher:
            await watcher.shows("Failure groups")
            await watcher.press("6", "enter")
            shown = await watcher.shows("paused by maria", "esc leaves it running")
            assert "resumes" not in shown
            assert "stop" not in shown.splitlines()[-1]
            await watcher.press("x")
            await watcher.shows("The console is read-only")
            await watcher.press("escape", "5")
            shown = await watcher.shows("Backlog")
            assert "holds and releases" not in shown
        async with console(console_operator="jonas") as second:
            await second.shows("Failure groups")
            await second.press("6", "enter")  # the list is not there yet
            await second.shows("#1 paused", "paused by maria", "p resumes, x stops")
            await second.press("x")
            await second.shows("Stopped")
    assert rows("SELECT operator FROM relay.operator_actions WHERE action = 'replay.stop'") == ["jonas"]


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
