"""Whatever Postgres or a relay answers, the console says it and lives on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from textual import events

from console.actions import ACTIVITY, HEALTH, OVERVIEW
from console.app import ConsoleApp
from relay.store.sessions import trouble
from tests.console.conftest import OVERLOADED, open_dead_letters, open_one
from tests.console.screens import opened
from tests.servers import PATIENCE_S, ROOT, Rows, relay_settings, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from textual.app import AwaitMount

    from tests.servers import AgentStandIn, RunningRelay

    Console = Callable[..., Any]


def app_on(dsn: str, agent: AgentStandIn) -> ConsoleApp:
    return ConsoleApp(relay_settings(agent, console_operator="maria", relay_url="http://127.0.0.1:9"), dsn)


@pytest.mark.parametrize("size", [(80, 24), pytest.param((120, 36), marks=pytest.mark.slow)])
async def test_a_database_without_tables_is_no_end(
    empty_dsn: str, agent: AgentStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened(app_on(empty_dsn, agent), size) as seen:
        await seen.shows("run `relay migrate`")
        for keys in (["t", "1"], ["D"], ["escape", "x"], ["escape", "h"], ["2", "R"], ["3", "slash", "x", "enter"]):
            await seen.press(*keys)
        await seen.press("4")
        await seen.shows("run `relay migrate`")


async def test_a_database_that_is_read_only_by_now_is_no_end(
    incident: RunningRelay, rows: Rows, agent: AgentStandIn
) -> None:
    frozen = psycopg.conninfo.make_conninfo(rows.dsn, options="-c default_transaction_read_only=on")
    async with opened(app_on(frozen, agent), (120, 36)) as seen:
        await open_dead_letters(seen)
        await seen.press("r")
        await seen.shows("y does it")
        await seen.press("y")
        await seen.shows("read-only transaction")
        await seen.hides("y does it", "Handing")


async def test_a_role_that_may_not_write_gets_a_message(
    incident: RunningRelay, rows: Rows, agent: AgentStandIn
) -> None:
    rows("DROP ROLE IF EXISTS only_reads")
    rows("CREATE ROLE only_reads LOGIN IN ROLE console_reader")
    try:
        async with opened(
            app_on(psycopg.conninfo.make_conninfo(rows.dsn, user="only_reads"), agent), (120, 36)
        ) as seen:
            await open_dead_letters(seen)
            await seen.press("r")
            await seen.shows("y does it")
            await seen.press("y")
            await seen.shows("This role of Postgres may not do that")
    finally:
        rows("DROP ROLE only_reads")


async def test_an_answer_that_is_not_even_text_is_no_end(relay: RunningRelay, console: Console) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n\xff\xfa\x80\x81")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with console(relay_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as seen:
        await seen.shows("Failure groups")
        await seen.press("t")
        await seen.shows("test webhook to")
        await seen.press("1")
        await seen.shows("the relay answered 200")
    server.close()


async def test_a_test_webhook_whose_event_is_ignored_is_settled_by_that(
    start_relay: Callable[..., Awaitable[RunningRelay]], console: Console, rows: Rows
) -> None:
    relay = await start_relay(relay_forward_events="message_created")
    async with console(relay=relay) as seen:
        await seen.shows("Failure groups")
        await seen.press("t")
        await seen.shows("test webhook to")
        await seen.press("3")
        await seen.shows("the relay answered 200", "ignored")
        await until(lambda: rows("SELECT action FROM relay.operator_actions") == ["test-webhook"])


async def test_what_is_pasted_where_it_means_nothing_goes_round_once(relay: RunningRelay, console: Console) -> None:
    class Counting(ConsoleApp):
        CSS_PATH = str(ROOT / "console/console.tcss")
        pasted = 0

        async def on_event(self, event: events.Event) -> None:
            self.pasted += isinstance(event, events.Paste)
            await super().on_event(event)

    settings = relay_settings("http://127.0.0.1:9", console_operator="maria")
    app = Counting(settings, relay.dsn)
    async with opened(app, (120, 36)) as seen:
        await seen.shows("Failure groups")
        app.post_message(events.Paste("hello"))
        await seen.press("2")
        await seen.shows("No open dead letters")
        assert app.pasted <= 3


@pytest.mark.parametrize("opened_by", ["D", "x"])
async def test_a_view_that_is_gone_to_is_the_one_in_front(
    incident: RunningRelay, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened_by: str
) -> None:
    monkeypatch.chdir(tmp_path)
    async with console() as seen:
        await seen.shows("Failure groups", "answered 503")
        await seen.press(opened_by, "h")
        await seen.shows("Health check")
        await seen.press("1")
        await seen.shows("Failure groups")
        await open_one(seen)
        await seen.press("h")
        await seen.shows("Health check")
        await seen.press("1")
        await seen.shows("Failure groups")
        await seen.press("enter")
        await seen.shows("FILTERED", f"{OVERLOADED} match")


async def test_a_health_check_continues_when_its_view_is_left(
    incident: RunningRelay, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    may_answer = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_answer.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with console(chatwoot_base_url=url, chatwoot_api_key="k", chatwoot_account_id=1) as seen:
        await open_one(seen)
        await seen.press("h")
        await seen.shows("is running")
        await open_dead_letters(seen)
        may_answer.set()
        await seen.press("5")
        await seen.shows("Chatwoot health check FAILED")
    server.close()


async def test_a_delivery_asked_for_in_the_log_does_not_open_elsewhere(
    incident: RunningRelay, console: Console, rows: Rows
) -> None:
    async with console() as seen:
        await seen.press("4")
        await seen.shows("FOLLOWING", "attempt")
        async with await psycopg.AsyncConnection.connect(rows.dsn) as blocker:
            await blocker.execute("LOCK TABLE relay.deliveries IN ACCESS EXCLUSIVE MODE")
            for key in ("enter", "enter", "1"):
                seen.app.post_message(events.Key(key, None))
            await until(lambda: seen.app.current_mode == "overview")
        await until(lambda: not [worker for worker in seen.app.workers if worker.group == "reading"])
        await seen.press("4")
        await seen.shows("FOLLOWING")
        assert [len(stack) for stack in seen.app._screen_stacks.values() if stack] == [1] * sum(
            map(bool, seen.app._screen_stacks.values())
        )


async def test_what_is_said_of_an_error_is_text(relay: RunningRelay, console: Console) -> None:
    error = psycopg.DataError('invalid value: "\x1b]52;c;aGk=\x07[bold]\u202e"')
    async with console() as seen:
        await seen.shows("Failure groups")
        seen.app.say("\x1b]52;c;aGk=\x07 [@click=app.quit]said\u202e")
        shown = await seen.shows("␛]52;c;aGk=␇ [@click=app.quit]said<U+202E>")
        assert not any(character < " " for character in shown.replace("\n", ""))
    assert str(trouble(error)).isprintable()


@pytest.mark.usefixtures("prebuilt_views")
@pytest.mark.parametrize("steps", [1, *(pytest.param(count, marks=pytest.mark.slow) for count in (0, 2))])
@pytest.mark.parametrize("view", [OVERVIEW, HEALTH, ACTIVITY])
async def test_a_console_quit_while_a_view_is_put_together_ends_without_a_word(
    relay: RunningRelay, agent: AgentStandIn, dsn: str, view: str, steps: int
) -> None:
    """`steps` are rounds of the event loop after it was begun; what fails is raised by the console's end."""

    app = app_on(dsn, agent)
    build = app._init_mode

    quitting: list[asyncio.Task[None]] = []

    async def quit_soon() -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        app.exit()

    def quit_meanwhile(mode: str) -> AwaitMount:
        if mode == view:
            quitting.append(asyncio.create_task(quit_soon()))
        return build(mode)

    app._init_mode = quit_meanwhile  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE_S), opened(app, (120, 36)):
        await until(lambda: not app.is_running)
