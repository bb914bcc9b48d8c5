"""Fixtures of the console's tests: an incident that really happened, and consoles opened on it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from psycopg.conninfo import conninfo_to_dict

from console.app import ConsoleApp
from console.data import poller
from console.screens import prebuild
from console.widgets import type_ahead
from tests.console.screens import Terminal, Watched, opened
from tests.servers import AgentStandIn, Behaviour, Rows, RunningRelay, database_like, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

OVERLOADED, LIMITED, REFUSED = 40, 5, 2
"""How many dead letters of each cause `incident` leaves."""

ALL = OVERLOADED + LIMITED + REFUSED
_PATIENT_S = 30


def webhook(number: int, **more: Any) -> dict[str, Any]:
    """A customer's message in a conversation of the same number."""
    return {
        "event": "message_created",
        "id": number,
        "content": f"message {number}",
        "message_type": "incoming",
        "conversation": {"id": number},
    } | more


def later(rows: Rows, seconds: float) -> None:
    """Let so much time have passed since whatever failed, and since all that was recorded."""
    given = {"seconds": seconds}
    rows("UPDATE relay.deliveries SET finished_at = finished_at - make_interval(secs => %(seconds)s)"
         " WHERE state = 'dead'", given)  # fmt: skip
    rows("UPDATE dashboard_facts SET recorded_at = recorded_at - make_interval(secs => %(seconds)s)"
         " WHERE fact_type LIKE 'support.webhook.%%'", given)  # fmt: skip


async def open_dead_letters(seen: Watched) -> None:
    """Go to the dead letters that `incident` leaves."""
    await seen.press("2")
    await seen.shows(f"all {ALL}")


async def open_one(seen: Watched) -> None:
    """Open the first of them."""
    await open_dead_letters(seen)
    await seen.press("enter")
    await seen.shows("Attempts")


async def ask_for_the_group(seen: Watched) -> None:
    """Have the replay of the largest group asked for, on the overview."""
    await seen.shows("Failure groups", "answered 503")
    await seen.press("r")
    await seen.shows(f"type {OVERLOADED}")
    await seen.type(str(OVERLOADED))


async def _fail_for_three_reasons(dsn: str) -> None:
    """Leaves the dead letters of `incident` in the database, cause by cause. The last `REFUSED` ones were refused."""
    agent = AgentStandIn()
    await agent.start()
    agent.behave(
        Behaviour(status=503, conversations=frozenset(range(1, OVERLOADED + 1))),
        Behaviour(status=429, conversations=frozenset(range(OVERLOADED + 1, OVERLOADED + LIMITED + 1))),
        Behaviour(status=422, conversations=frozenset(range(OVERLOADED + LIMITED + 1, ALL + 1))),
    )
    relay = await RunningRelay(relay_settings(agent), dsn).ready()
    tens = range(1, OVERLOADED + 1, 10)
    for first, count in (*((first, 10) for first in tens), (OVERLOADED + 1, LIMITED), (ALL - REFUSED + 1, REFUSED)):
        numbers = range(first, first + count)
        await asyncio.gather(*(relay.post(webhook(n), x_chatwoot_delivery=f"{n:08d}-delivery") for n in numbers))
    await relay.stop()
    await agent.stop()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what runs in a real terminal."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and "terminal" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _a_slow_machine_has_time_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives Postgres and the screen longer than the console does, unless a test is about these limits."""
    monkeypatch.setattr(poller, "_STATEMENT_TIMEOUT_MS", _PATIENT_S * 1_000)
    monkeypatch.setattr(type_ahead, "_SETTLES_WITHIN_S", float(_PATIENT_S))


@pytest.fixture(autouse=True)
def _views_are_built_when_they_are_wanted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the views that a test does not open, which are most. `prebuilt_views` builds all of them."""
    if "prebuilt_views" not in request.fixturenames:
        monkeypatch.setattr(prebuild, "_BUILD_AFTER_S", 24 * 3600.0)


@pytest.fixture
def prebuilt_views() -> None:
    """Lets consoles build the other views while the first one is read, as they do outside of tests."""


@pytest.fixture(scope="session")
def failed(postgres: str) -> Iterator[str]:
    """The name of a database with the dead letters of `incident`, to be copied."""
    with database_like("migrated", postgres) as dsn:
        asyncio.run(_fail_for_three_reasons(dsn))
        assert Rows(dsn).one("SELECT count(*) FROM relay.deliveries WHERE state = 'dead'") == ALL
        yield conninfo_to_dict(dsn)["dbname"]


@pytest.fixture
def dsn(request: pytest.FixtureRequest, postgres: str) -> Iterator[str]:
    """The DSN of a fresh database with the relay's schema, and with what failed for a test of `incident`."""
    template = request.getfixturevalue("failed") if "incident" in request.fixturenames else "migrated"
    with database_like(template, postgres) as dsn:
        yield dsn


_MOVE_TO_NOW = """
DO $$
DECLARE
    age interval := now() - (SELECT max(finished_at) FROM relay.deliveries);
    moved record;
BEGIN
    DELETE FROM relay.instances;
    FOR moved IN
        SELECT attrelid::regclass AS name, string_agg(format('%1$I = %1$I + $1', attname), ', ') AS columns
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE atttypid = 'timestamptz'::regtype AND attnum > 0 AND relkind = 'r'
          AND (relname = 'dashboard_facts' OR relnamespace = 'relay'::regnamespace)
          AND relname NOT IN ('minutes', 'hours', 'operator_actions')
        GROUP BY 1
    LOOP
        EXECUTE format('UPDATE %s SET %s', moved.name, moved.columns) USING age;
    END LOOP;
END $$
"""
"""Lets what failed have failed just now. Triggers keep the roll-ups."""


@pytest_asyncio.fixture
async def incident(
    start_relay: Callable[..., Awaitable[RunningRelay]], agent: AgentStandIn, rows: Rows
) -> RunningRelay:
    """A relay whose agent failed for three reasons and is well again; what failed waits among the dead letters."""
    rows(_MOVE_TO_NOW)
    relay = await start_relay(relay_probe_seconds=1)
    await relay.post(webhook(500))
    return relay


@pytest.fixture
def console(dsn: str, agent: AgentStandIn) -> Callable[..., AbstractAsyncContextManager[Watched]]:
    """Opens consoles on the test's database, without a terminal; `size` is `(columns, lines)`."""

    def open_one(
        size: tuple[int, int] = (120, 36),
        *,
        relay: RunningRelay | None = None,
        read_only: bool = False,
        ascii_only: bool = False,
        **given: Any,
    ) -> AbstractAsyncContextManager[Watched]:
        settings = relay_settings(
            agent,
            **{"console_operator": "maria", "relay_url": relay.url if relay else "http://127.0.0.1:9"} | given,
        )
        return opened(ConsoleApp(settings, dsn, read_only=read_only, ascii_only=ascii_only), size)

    return open_one


@pytest.fixture
def kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's zone is 5 h 45 min ahead of UTC, all year."""
    with monkeypatch.context() as zone:
        zone.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def terminal(tmp_path: Path, dsn: str) -> Iterator[Callable[..., Terminal]]:
    """Opens the whole program in a real terminal: tmux, with a server of its own."""
    terminals: list[Terminal] = []

    def open_one(size: tuple[int, int] = (120, 36), *arguments: str, **env: str) -> Terminal:
        given = {"DATABASE_URL": dsn, "HOME": str(tmp_path), "CONSOLE_OPERATOR": "maria"} | env
        terminals.append(Terminal(tmp_path, size, ("-m", "console", *arguments), given))
        return terminals[-1]

    yield open_one
    for one in terminals:
        one.close()


@pytest_asyncio.fixture
async def seen(agent: AgentStandIn) -> AsyncIterator[Callable[[], list[dict[str, Any]]]]:
    """The payloads that the agent has taken, oldest first."""
    yield lambda: [json.loads(request.body) for request in agent.seen if request.status == 200]
