"""The poller: reads at once on request, never more often than it must, and spends nothing on waiting."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from console.data import snapshot
from console.data.poller import Poller
from relay.store import log
from relay.store.log import LogLine
from relay.store.sessions import open_session
from tests.servers import free_port, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from console.data.snapshot import Reading, Snapshot
    from relay.store.database import Connection
    from tests.servers import Rows

_TELL = f"SELECT pg_notify('{log.CHANNEL}', '1')"


class Slow:
    """A reading that takes `seconds` in Postgres."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.times = 0

    async def read(self, connection: Connection) -> int:
        self.times += 1
        await connection.execute("SELECT pg_sleep(%s)", (self.seconds,))
        return self.times


class Watcher:
    """Records what was read."""

    def __init__(self, reading: Reading | None = None) -> None:
        self.wanted = reading
        self.shown: list[Snapshot] = []
        self.troubles: list[str] = []
        self.watched_plan: int | None = None

    zone = UTC

    def reading(self) -> tuple[Reading | None, timedelta]:
        return self.wanted, timedelta(hours=1)

    def show(self, snapshot: Snapshot) -> None:
        self.shown.append(snapshot)

    def disconnected(self, reason: str, *, is_away: bool, headline: str | None = None) -> None:
        del is_away
        self.troubles.append(headline or reason)


@asynccontextmanager
async def polling(dsn: str, watcher: Watcher) -> AsyncIterator[Poller]:
    async def outage() -> str:
        return "Postgres is away since 14:02:11"

    poller = Poller(dsn, watcher, read_only=True, outage=outage)
    task = asyncio.create_task(poller.run())
    try:
        yield poller
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_took_long_rests_while_all_else_stays_fresh(dsn: str) -> None:
    slow = Slow(0.6)
    watcher = Watcher(slow)
    async with polling(dsn, watcher) as poller:
        await until(lambda: watcher.shown)
        for number in range(2, 6):
            poller.wake()
            await until(lambda number=number: len(watcher.shown) >= number)
        assert slow.times == 1
        assert {shown.view for shown in watcher.shown} == {1}
        assert watcher.shown[-1].read_at > watcher.shown[0].read_at
        assert watcher.shown[-1].view_age_s > 0
        poller.wake(afresh=True)
        await until(lambda: watcher.shown[-1].view == 2)


async def test_another_reading_does_not_wait_for_the_rest_of_the_last_one(dsn: str) -> None:
    first, second = Slow(0.3), Slow(0)
    watcher = Watcher(first)
    async with polling(dsn, watcher) as poller:
        await until(lambda: watcher.shown)
        watcher.wanted = second
        poller.wake()
        await until(lambda: watcher.shown[-1].reading is second)


async def test_a_notice_arrives_once_however_late_it_is_read(
    dsn: str, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, loop = 0, asyncio.get_running_loop()
    add_reader = loop.add_reader

    def counted(fd: int, callback: object, *arguments: object) -> None:
        def call() -> None:
            nonlocal calls
            calls += 1
            callback(*arguments)

        add_reader(fd, call)

    watcher = Watcher()
    async with polling(dsn, watcher):
        await until(lambda: watcher.shown)
        monkeypatch.setattr(loop, "add_reader", counted)
        for number in range(2, 6):
            rows(_TELL)
            await until(lambda number=number: len(watcher.shown) >= number)
        monkeypatch.undo()
    assert calls < 5_000  # a notice that wakes the loop until it is read: tens of thousands of times


async def test_tables_of_another_version_are_said_to_be_so(empty_dsn: str) -> None:
    watcher = Watcher()
    async with polling(empty_dsn, watcher):
        await until(lambda: watcher.troubles)
    assert "relay migrate" in watcher.troubles[0]
    assert watcher.shown == []


async def test_an_outage_is_reported_as_what_it_means(dsn: str, rows: Rows) -> None:
    """The driver's words come first, once, and only until it is known what the outage means."""
    watcher = Watcher()
    async with polling(f"postgresql://127.0.0.1:{free_port()}/none", watcher):
        await until(lambda: len(watcher.troubles) >= 3)
    assert "cannot be used now" in watcher.troubles[0]
    assert set(watcher.troubles[1:]) == {"Postgres is away since 14:02:11"}


async def test_what_is_read_is_one_moment(dsn: str, rows: Rows) -> None:
    async with await open_session(dsn, read_only=True, application="tests", timeout_ms=60_000) as connection:
        seen = await snapshot.read(connection, None, minutes_of=timedelta(hours=1))
    assert seen.view is None
    assert seen.overview.open_dead_letters == sum(group.count for group in seen.groups) == 0


def test_a_line_of_the_log_is_found_by_what_it_shows() -> None:
    from datetime import UTC, datetime  # noqa: PLC0415

    from console.data.log_entry import entry_of  # noqa: PLC0415
    from console.render.log_lines import draw  # noqa: PLC0415

    at = datetime(2026, 11, 25, 9, 23, 45, 123_000, tzinfo=UTC)
    fields = {"attempt": 2, "status": "503", "agentEndpoint": "http://agent", "deliveryId": "0192f0a1-b2c3"}
    entry = entry_of(7, LogLine(at, "warning", "support.webhook", "Webhook attempt failed", fields, "0192F0A1-b2c3"))
    assert draw(entry).plain == "09:23:45.123 ! 0192F0A1  Webhook attempt failed  attempt: 2, status: 503"
    assert entry.is_failure
    for wanted in ("0192f0a1", "attempt failed", "status: 503", "09:23:45.1"):
        assert entry.mentions(wanted)
    for wanted in ("http", "b2c3", "09:24:", "504"):
        assert not entry.mentions(wanted)
