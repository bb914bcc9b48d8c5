"""What the console costs: start, keys, views, memory, idle CPU, and the database's share of a tick (CONSOLE, 6).

The real program in a real terminal, on a million deliveries of which a hundred thousand are dead letters, beside a
relay that is idle. Goals are printed beside the figures; nothing here fails on a clock.
`python -m tests.benchmarks.console [--deliveries N] [--rtt MS] [--bytes]`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import threading
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import psycopg

from console.data import snapshot
from console.data.readings import RowsReading
from relay.domain.delivery import State
from relay.store.embedded import EmbeddedPostgres
from relay.store.migrate import migrate
from relay.store.sessions import open_session
from tests.benchmarks import rig
from tests.benchmarks.console_link import measure_bytes, measure_link
from tests.console.screens import RawTerminal

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = 200
TICKS = 20
SEARCHES = {"one cause": "status:503", "one conversation": "conv:70", "a word": "zebra"}
STARTS = 5
IDLE_S = 20
BUSY_S, BUSY_A_SECOND = 15, 10
UNREACHABLE = "postgresql://none@127.0.0.1:9/nothing?connect_timeout=1"

_PLANT = """
    INSERT INTO relay.deliveries (delivery_id, state, claim, test, event, conversation_id, customer, received_at,
           finished_at, attempts, duration_ms, final_status, last_error, headers, body)
    SELECT gen_random_uuid(), CASE WHEN n %% 10 = 0 THEN 'dead' ELSE 'delivered' END, gen_random_uuid(), false,
           (ARRAY['message_created', 'message_updated', 'conversation_status_changed'])[1 + n %% 3], (n %% 5000)::text,
           true, at, at, 3, 700,
           CASE WHEN n %% 10 = 0 THEN (ARRAY['503', '429', 'timeout'])[1 + n / 10 %% 3] ELSE '200' END,
           CASE WHEN n %% 10 = 0 THEN (ARRAY['Agent SDK answered 503', 'Agent SDK is rate limiting (429)',
                'Agent SDK did not answer within 30 s'])[1 + n / 10 %% 3] END, '[["content-type", "application/json"]]',
           convert_to('{"event": "message_created", "content": "' || repeat('x', 600) || '", "id": ' || n || '}',
                      'UTF8')
      FROM generate_series(1, %(number)s) AS n,
           LATERAL (SELECT now() - (%(number)s - n) * interval '80 ms' AS at) AS times
"""
_PLANT_FACTS = """
    INSERT INTO dashboard_facts (fact_type, scope, value, metadata, recorded_at)
    SELECT 'support.webhook.retry', 'support',
           jsonb_build_object('attempts', coalesce(attempts, 1), 'success', state = 'delivered',
                              'durationMs', duration_ms, 'finalStatus', final_status), '{}', finished_at
      FROM relay.deliveries
"""

VIEWS = ((b"3", b"STATE"), (b"4", b"FOLLOWING"), (b"5", b"Alert rules"), (b"1", b"Failure groups"), (b"2", b"CAUSE"))


def plant(dsn: str, number: int) -> None:
    """`number` deliveries with their facts, the last of them now."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_PLANT, {"number": number})
        connection.execute(_PLANT_FACTS)
        connection.execute("VACUUM ANALYZE")


def start_s(folder: Path, dsn: str, wanted: bytes) -> float:
    """From starting the program to `wanted` on the screen."""
    began = time.perf_counter()
    terminal = RawTerminal(folder, dsn)
    try:
        while wanted not in terminal.output:
            terminal.rest(0.005)
        return time.perf_counter() - began
    finally:
        terminal.close()


def bare_start_s() -> float:
    """What Python and Textual's import cost alone, here and now."""
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import textual.app, textual.widgets"], check=True)
    return time.perf_counter() - began


def shown(name: str, value: str, goal: str = "") -> None:
    """One line of the table."""
    print(f"{name:46} {value:>26}   {goal}", flush=True)


def spread(seconds: list[float]) -> str:
    """Median and p95 in ms."""
    cuts = statistics.quantiles(seconds, n=20)
    return f"p50 {statistics.median(seconds) * 1000:.1f}  p95 {cuts[-1] * 1000:.1f} ms"


def filtered(terminal: RawTerminal, text: bytes) -> float:
    """Type a filter and enter; the seconds until what matches is shown, by a second try if the first took too long."""
    terminal.press(b"/")
    terminal.press(text)
    try:
        return terminal.answers(b"\r", wanted=b" match")
    except AssertionError:
        return terminal.answers(b"\x12", wanted=b" match")  # ctrl+r: what had to come from the disk is in memory now


async def ticks(dsn: str) -> None:
    """Print what a tick's read transaction takes, by what the view in front wants beside the overview."""
    readings: dict[str, RowsReading | None] = {"overview": None, "dead letters": RowsReading("", (State.DEAD,))}
    readings |= {f"dead letters, {what}": RowsReading(text, (State.DEAD,)) for what, text in SEARCHES.items()}
    async with await open_session(dsn, read_only=True, application="benchmark", timeout_ms=5_000) as connection:
        for what, reading in readings.items():
            took = []
            for _ in range(TICKS):
                seen = await snapshot.read(connection, reading, minutes_of=timedelta(hours=1))
                took.append(seen.took_ms)
            shown(f"a tick: {what}", f"median {statistics.median(took):.1f} ms", "goal 10" if reading is None else "")


def cpu_share(terminal: RawTerminal, process: psutil.Process, seconds: float) -> str:
    """The share of a core that the console takes meanwhile."""
    used, began = sum(process.cpu_times()[:2]), time.perf_counter()
    terminal.rest(seconds)
    return f"{100 * (sum(process.cpu_times()[:2]) - used) / (time.perf_counter() - began):.1f} %"


@contextlib.contextmanager
def traffic(relay_port: int, a_second: int = BUSY_A_SECOND) -> Iterator[None]:
    """Webhooks at a steady pace, for a little longer than they are watched."""

    def post() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{relay_port}") as client:
            for number in range(int(BUSY_S + 10) * a_second):
                if over.is_set():
                    return
                client.post(rig.WEBHOOKS, json={"event": "message_created", "id": number})
                time.sleep(1 / a_second)

    over = threading.Event()
    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def measure(folder: Path, dsn: str, relay_port: int) -> None:
    """Print every figure."""
    bare = statistics.median(bare_start_s() for _ in range(STARTS))
    first_paint = statistics.median(start_s(folder, UNREACHABLE, b"hotdash") for _ in range(STARTS))
    first_data = statistics.median(start_s(folder, dsn, b"LIVE") for _ in range(STARTS))
    shown("import of Textual alone", f"{bare * 1000:.0f} ms")
    for what, taken, goal in (
        ("start to first paint, database down", first_paint, 600),
        ("start to first live figure", first_data, 900),
    ):
        shown(what, f"{taken * 1000:.0f} ms", f"goal {goal}; {taken / bare:.1f} × the import")

    terminal = RawTerminal(folder, dsn)
    process = psutil.Process(terminal.pid)
    try:
        terminal.read_until(b"Failure groups")
        terminal.rest(2)
        terminal.press(b"2")
        terminal.rest(2)
        keys = []
        for index in range(KEYS):
            keys.append(terminal.answers(b"j" if index % 20 < 15 else b"k"))
            terminal.rest(0.03)
        shown("key to first byte, 100,000 dead letters", spread(keys), "goal p95 16")
        views = []
        for _ in range(10):
            for key, title in VIEWS:
                views.append(terminal.answers(key, wanted=title))
                terminal.rest(0.3)
        shown("view switch", spread(views), "goal 80, first visits included")
        terminal.press(b"1")
        terminal.rest(3)
        shown("CPU while idle", cpu_share(terminal, process, IDLE_S), "goal 4")
        with traffic(relay_port):
            terminal.rest(1)
            shown(f"CPU while {BUSY_A_SECOND} webhooks a second come", cpu_share(terminal, process, BUSY_S))
        shown("memory", f"{process.memory_info().rss / 2**20:.0f} MiB", "goal 90")
        terminal.press(b"2")
        terminal.rest(1)
        for what, text in SEARCHES.items():
            shown(f"from enter to what matches {what}", f"{1000 * filtered(terminal, text.encode()):.0f} ms")
            terminal.press(b"\x1b")
            terminal.rest(1)
    finally:
        terminal.close()


def main() -> None:
    """Plant, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=1_000_000)
    parser.add_argument("--rtt", type=float, metavar="MS", help="only from far away: Postgres behind such a round trip")
    parser.add_argument("--bytes", action="store_true", help="only the bytes on the terminal's wire")
    asked = parser.parse_args()
    number = asked.deliveries
    with tempfile.TemporaryDirectory(prefix="console-benchmark-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        server = EmbeddedPostgres(folder / "data")
        try:
            asyncio.run(migrate(server.dsn, roles=True))
            plant(server.dsn, number)
            print(f"{number:,} deliveries, {number // 10:,} of them dead letters; {STARTS} starts, {KEYS} keys")
            with rig.agent() as agent_port, rig.relay(server.dsn, agent_port, workers=1) as (relay_port, _):
                if asked.rtt is not None:
                    measure_link(folder, server.dsn, asked.rtt, shown)
                if asked.bytes:
                    measure_bytes(folder, server.dsn, partial(traffic, relay_port, 5), shown)
                if asked.rtt is None and not asked.bytes:
                    measure(folder, server.dsn, relay_port)
                    asyncio.run(ticks(server.dsn))
        finally:
            server.close()


if __name__ == "__main__":
    main()
