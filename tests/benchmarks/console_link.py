"""What the console costs on a slow link: time from far-away Postgres, and bytes on the terminal's wire (CONSOLE, 6, 7).

`python -m tests.benchmarks.console --rtt 160` reads through a proxy that delays each direction by half of that;
`--bytes` counts what the console writes to a pseudo-terminal of 80x24 while it is idle and while webhooks come.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import threading
import time
from itertools import zip_longest
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.console.screens import RawTerminal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    _Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_CHUNK = 65_536
_IDLE_S, _BUSY_S = 20.0, 15.0
_TIMES = 5
_REST_S, _OFF_BEAT_S = 3.0, 0.23
"""Between two measurements, so that they meet the ticks at any moment."""
_DRILL = 200

_PLANT_CAUSE = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, event, conversation_id, customer, finished_at,
           attempts, duration_ms, final_status, last_error, headers, body)
    SELECT gen_random_uuid(), 'dead', gen_random_uuid(), false, 'message_created', (1000000 + n)::text, true, now(), 3,
           700, '500', 'Agent SDK answered 500', '[["content-type", "application/json"]]', '{"id": 1}'
      FROM generate_series(1, %(number)s) AS n
"""


class _Proxy:
    """Forwards what comes to its port to what `connect` opens, and delays every byte by `delay_s` each way.

    To open a connection takes a round trip too, as with TCP. `trips` has the round trips of each connection so far,
    that one included: requests that follow an answer.
    """

    def __init__(self, connect: Callable[[], Awaitable[_Streams]], delay_s: float) -> None:
        self._connect = connect
        self._delay_s = delay_s
        self.port = 0
        self.trips: list[int] = []

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await self._connect()
        number, was_answer = len(self.trips), True
        self.trips.append(1)
        await asyncio.sleep(2 * self._delay_s)

        def asked() -> None:
            nonlocal was_answer
            self.trips[number] += was_answer
            was_answer = False

        def answered() -> None:
            nonlocal was_answer
            was_answer = True

        with contextlib.suppress(OSError, asyncio.CancelledError):  # the second one ends the proxy
            await asyncio.gather(
                self._pass(reader, there_writer, before=asked), self._pass(there_reader, writer, after=answered)
            )

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(due - time.monotonic())
                if not data:
                    writer.close()
                    return
                writer.write(data)
                after()

        delivering = asyncio.create_task(deliver())
        try:
            data = b"-"
            while data:
                data = await reader.read(_CHUNK)
                before()
                queue.put_nowait((time.monotonic() + self._delay_s, data))
            await delivering
        finally:
            delivering.cancel()


async def _end(server: asyncio.Server) -> None:
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def far_away(dsn: str, rtt_ms: float) -> Iterator[tuple[str, list[int]]]:
    """Yield a DSN that leads to the database through the proxy, and the round trips of its connections."""
    given = conninfo_to_dict(dsn)
    host, port = str(given.get("host") or "127.0.0.1"), int(given.get("port") or 5432)

    async def connect() -> _Streams:
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    loop, proxy = asyncio.new_event_loop(), _Proxy(connect, rtt_ms / 2000)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(proxy.serve(), loop).result(10)
    try:
        yield make_conninfo(dsn, host="127.0.0.1", port=proxy.port), proxy.trips
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


class _Link:
    """A console in a terminal, and the round trips of its connections."""

    def __init__(self, terminal: RawTerminal, trips: list[int], shown: Callable[[str, str, str], None]) -> None:
        self.terminal = terminal
        self._trips = trips
        self._shown = shown

    def measure(
        self, what: str, keys: bytes, wanted: bytes, goal: str = "", *, again: bytes = b"", rest_s: float = _REST_S
    ) -> None:
        """Print how long it takes from `keys` to `wanted`, the middle of `_TIMES` times, and its round trips.

        Those that a tick has are among them. `again` are the keys that lead back.
        """
        took, trips = [], []
        for number in range(_TIMES if again else 1):
            if number:
                self.terminal.press(again)
            self.terminal.rest(rest_s + number * _OFF_BEAT_S)
            before = list(self._trips)
            took.append(self.terminal.answers(keys, wanted=wanted))
            trips.append(max(now - was for now, was in zip_longest(self._trips, before, fillvalue=0)))
        self._print(what, took, trips, goal)

    def _print(self, what: str, took: list[float], trips: list[int], goal: str) -> None:
        worst = f" to {1000 * max(took):.0f}" if len(took) > 1 else ""
        figure = f"{1000 * statistics.median(took):.0f}{worst} ms, {statistics.median_high(trips)} trips"
        self._shown(what, figure, goal)


def measure_link(folder: Path, dsn: str, rtt_ms: float, shown: Callable[[str, str, str], None]) -> None:
    """Print how long the first figures, a delivery and a filter take with such a round trip."""
    goals = rtt_ms <= 160  # those that CONSOLE.md names are for 80 ms each way
    with far_away(dsn, rtt_ms) as (far, trips):
        took, first_trips = [], []
        for _ in range(_TIMES):
            known = len(trips)  # those of consoles that end now
            began = time.perf_counter()
            terminal = RawTerminal(folder, far)
            terminal.read_until(b"LIVE", 120)
            took.append(time.perf_counter() - began)
            first_trips.append(trips[known] - 1)  # LISTEN follows the first figures
            terminal.close()
        figure = f"{1000 * statistics.median(took):.0f} to {1000 * max(took):.0f} ms, {max(first_trips)} trips"
        shown("first figures, the program's start included", figure, "goal 1200" if goals else "works")
        terminal = RawTerminal(folder, far)
        link = _Link(terminal, trips, shown)
        try:
            terminal.read_until(b"LIVE", 120)
            link.measure("dead letters, view switch with rows", b"2", b"CAUSE", again=b"1")
            terminal.press(b"2")
            goal = "goal 500" if goals else "works"
            link.measure("a delivery opened", b"\r", b"content-type", goal, again=b"qj")
            terminal.press(b"q")
            terminal.rest(_REST_S)
            terminal.press(b"/status:429", rest_s=0.05)
            goal = "goal 600" if goals else "works"
            for number, text in enumerate((b"status:429", b"status:503", b"status:timeout")):
                if number:
                    terminal.press(b"\x1b")  # at once with the next key it would be that key with Alt
                    terminal.rest(1)
                terminal.press(b"/" + text, rest_s=0.05)
                link.measure(f"from enter to what {text.decode()} matches", b"\r", " match ·".encode(), goal, rest_s=0)
                terminal.rest(_REST_S)
            link.measure("from r to the question about a replay", b"r", b" does it", again=b"\x1b")
        finally:
            terminal.close()
    near_s = _drill_s(folder, dsn)
    with far_away(dsn, rtt_ms) as (far, _):
        far_s = _drill_s(folder, far)
    shown("the drill, near; far", f"{near_s:.1f}; {far_s:.1f} s ({far_s / near_s:.2f} x)", "goal 1.5 x")


def _drill_s(folder: Path, dsn: str) -> float:
    """Plant dead letters of one cause; the seconds from opening the console until all of them are delivered."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_PLANT_CAUSE, {"number": _DRILL})
    began = time.perf_counter()
    terminal = RawTerminal(folder, dsn)
    try:
        terminal.read_until(b"LIVE", 120)
        for keys, wanted in (
            (b"2", b"CAUSE"),
            (b"/status:500\r", f"{_DRILL} match".encode()),
            (b"R", f"type {_DRILL}".encode()),
            (f"{_DRILL}\r".encode(), f"all {_DRILL} delivered".encode()),
        ):
            terminal.answers(keys, wanted=wanted)
        return time.perf_counter() - began
    finally:
        terminal.close()


def measure_bytes(
    folder: Path,
    dsn: str,
    traffic: Callable[[], contextlib.AbstractContextManager[None]],
    shown: Callable[[str, str, str], None],
) -> None:
    """Print the bytes a second at 80x24 on each view, idle and while webhooks come."""
    terminal = RawTerminal(folder, dsn, size=(80, 24))
    views = ((b"1", "overview"), (b"2", "dead letters"), (b"3", "deliveries"), (b"4", "log"))
    try:
        terminal.read_until(b"LIVE", 60)
        for key, name in views:
            terminal.press(key)
            terminal.rest(4)
            shown(f"bytes a second, idle, {name}", _rate(terminal, _IDLE_S), "goal 1.0 kB/s")
        for key, name in views:
            terminal.press(key)
            with traffic():
                terminal.rest(3)
                shown(f"bytes a second, 5 webhooks a second, {name}", _rate(terminal, _BUSY_S), "goal 15 kB/s")
    finally:
        terminal.close()


def _rate(terminal: RawTerminal, seconds: float) -> str:
    before = len(terminal.output)
    terminal.rest(seconds)
    return f"{(len(terminal.output) - before) / seconds / 1000:.2f} kB/s"
