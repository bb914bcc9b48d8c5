"""What live traffic feels of a replay while the agent has ten slots of a second each.

Live webhooks come at random moments, as many on average as `--live` says. Each is timed from when it is sent until the
agent has finished it. The replay has no rate of its own and more dead letters than it can send in the time.
`python -m tests.benchmarks.slots [--live N] [--seconds S] [--workers N]`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import psycopg
import uvloop
from aiohttp import web

from relay.store.migrate import migrate
from tests.benchmarks import rig
from tests.benchmarks.load import percentile, webhook_body
from tests.benchmarks.replay import PLANT
from tests.servers import ROOT, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SLOTS = 10
LATENCY_S = 1.0
_LIVE = "live-"


class SlotAgent:
    """An Agent SDK that works on `SLOTS` webhooks at a time, `LATENCY_S` each; others wait in its own queue."""

    def __init__(self) -> None:
        self.finished: dict[str, float] = {}
        self._slots = asyncio.Semaphore(SLOTS)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Its port, for the length of the block."""
        app = web.Application()
        app.router.add_post("/webhooks/chatwoot", self._webhook)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
        await runner.cleanup()

    async def _webhook(self, request: web.Request) -> web.Response:
        await request.read()
        async with self._slots:
            await asyncio.sleep(LATENCY_S)
        self.finished[request.headers["x-chatwoot-delivery"]] = time.perf_counter()
        return web.json_response({"status": "draft_ready"})


async def live(agent: SlotAgent, port: int, name: str, rate: float, seconds: float) -> list[float]:
    """Send live webhooks for so long; the seconds that each took until the agent had finished it."""
    chance, sent, posts = random.Random(1), {}, []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        ends_at = time.perf_counter() + seconds
        while time.perf_counter() < ends_at:
            await asyncio.sleep(chance.expovariate(rate))
            delivery_id = f"{_LIVE}{name}-{len(sent)}"
            sent[delivery_id] = time.perf_counter()
            headers = {"content-type": "application/json", "x-chatwoot-delivery": delivery_id}
            body = webhook_body(200_000 + len(sent))
            posts.append(asyncio.create_task(client.post(rig.WEBHOOKS, content=body, headers=headers)))
        for answer in await asyncio.gather(*posts):
            answer.raise_for_status()
        await until(lambda: sent.keys() <= agent.finished.keys())
    return [agent.finished[delivery_id] - began for delivery_id, began in sent.items()]


async def measure(dsn: str, rate: float, seconds: float, workers: int) -> dict[str, tuple[list[float], float]]:
    """Live times and replayed deliveries a second: without a replay, beside one, and where the relay knows no slots."""
    found: dict[str, tuple[list[float], float]] = {}
    agent = SlotAgent()
    async with agent.serving() as agent_port:
        for name, env in (("RELAY_AGENT_CONCURRENCY=10", {"RELAY_AGENT_CONCURRENCY": str(SLOTS)}), ("unset", {})):
            with contextlib.ExitStack() as stack:
                started = rig.relay(dsn, agent_port, workers=workers, **env)
                port, _ = await asyncio.to_thread(stack.enter_context, started)
                await asyncio.sleep(1)  # its workers have shared the slots
                found[f"{name}, no replay"] = await live(agent, port, f"alone-{name}", rate, seconds), 0.0
                replay = stack.enter_context(_replaying(dsn))
                await until(lambda: any(not key.startswith(_LIVE) for key in agent.finished))
                before, began = len(agent.finished), time.perf_counter()
                took = await live(agent, port, f"beside-{name}", rate, seconds)
                replayed = len(agent.finished) - before - len(took)
                found[f"{name}, replay"] = took, replayed / (time.perf_counter() - began)
                assert replay.poll() is None, "the replay ended too early"
            _stop_plans(dsn)
            agent.finished.clear()
    return found


@contextlib.contextmanager
def _replaying(dsn: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "relay", "replay", "--yes", "--rate", "0", "--canary", "0", "--stop-after", "0"]
    process = subprocess.Popen(command, cwd=ROOT, env=rig.environment(dsn), stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _stop_plans(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE relay.replay_plans SET state = 'stopped', finished_at = now() WHERE state <> 'done'")


def main() -> None:
    """Plant, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", type=float, default=4)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with rig.postgres() as dsn:
        asyncio.run(migrate(dsn))
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(PLANT, {"number": 4_000, "body": webhook_body()})
        found = uvloop.run(measure(dsn, given.live, given.seconds, given.workers))
    print("| | live p50 | p99 | p99 ratio | replayed a second |")
    print("| --- | ---: | ---: | ---: | ---: |")
    alone = 1.0
    for name, (took, replayed) in found.items():
        p99 = percentile(took, 0.99)
        alone = p99 if name.endswith("no replay") else alone
        print(f"| {name} | {percentile(took, 0.5):.2f} s | {p99:.2f} s | {p99 / alone:.2f} | {replayed:.1f} |")


if __name__ == "__main__":
    main()
