"""What the console costs on a slow link: time from far-away Postgres, and bytes on the terminal's wire (CONSOLE, 6, 7).

`python -m tests.benchmarks.console --rtt 160` reads through a proxy that delays each direction by half of that;
`--bytes` counts what the console writes to a pseudo-terminal of 80x24 while it is idle and while webhooks come.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.console.screens import RawTerminal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    _Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_CHUNK = 65_536
_IDLE_S, _BUSY_S = 20.0, 15.0


class _Proxy:
    """Forwards what comes to its port to what `connect` opens, and delays every byte by `delay_s` each way."""

    def __init__(self, connect: Callable[[], Awaitable[_Streams]], delay_s: float) -> None:
        self._connect = connect
        self._delay_s = delay_s
        self.port = 0

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await self._connect()
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pass(reader, there_writer), self._pass(there_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(due - time.monotonic())
                if not data:
                    writer.close()
                    return
                writer.write(data)

        delivering = asyncio.create_task(deliver())
        data = b"-"
        while data:
            data = await reader.read(_CHUNK)
            queue.put_nowait((time.monotonic() + self._delay_s, data))
        await delivering


async def _end(server: asyncio.Server) -> None:
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def far_away(dsn: str, rtt_ms: float) -> Iterator[str]:
    """Yield a DSN that leads to the database through the proxy."""
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
        yield make_conninfo(dsn, host="127.0.0.1", port=proxy.port)
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def _until(terminal: RawTerminal, keys: bytes, wanted: bytes) -> str:
    return f"{1000 * terminal.answers(keys, wanted=wanted):.0f} ms"


def measure_link(folder: Path, dsn: str, rtt_ms: float, shown: Callable[[str, str, str], None]) -> None:
    """Print how long the first figures, a delivery and a filter take with such a round trip."""
    goals = rtt_ms <= 160  # those that CONSOLE.md names are for 80 ms each way
    with far_away(dsn, rtt_ms) as far:
        began = time.perf_counter()
        terminal = RawTerminal(folder, far)
        try:
            terminal.read_until(b"LIVE", 120)
            took = f"{1000 * (time.perf_counter() - began):.0f} ms"
            shown("first figures, the program's start included", took, "goal 1200" if goals else "works")
            terminal.rest(5)
            shown("dead letters, view switch with rows", _until(terminal, b"2", b"CAUSE"), "")
            terminal.rest(5)
            shown("a delivery opened", _until(terminal, b"\r", b"content-type"), "goal 500" if goals else "works")
            terminal.press(b"q")
            terminal.rest(5)
            terminal.press(b"/")
            terminal.press(b"status:429")
            terminal.rest(0.05)
            shown(
                "from enter to what a filter matches", _until(terminal, b"\r", b" match"), "goal 600" if goals else ""
            )
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
