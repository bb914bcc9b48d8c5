"""Many webhooks of one conversation at once: forwarded one at a time, in the order of arrival, by an instant agent.

`python -m tests.benchmarks.conversation [--rounds N] [--webhooks N]`
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import uvloop

from tests.benchmarks import rig
from tests.benchmarks.load import webhook_body

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKERS = (1, 2)


async def seconds(port: int, number: int, conversation: int) -> float:
    """From the first byte to the last answer: `number` webhooks of one conversation, each on its own connection."""
    body = webhook_body(conversation)
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]

    async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            f"POST {rig.WEBHOOKS} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-chatwoot-delivery: {uuid4()}\r\nconnection: close\r\n\r\n".encode()
            + body
        )
        answer = await reader.read()
        assert b" 200 " in answer[:20], answer[:20]
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(post(*connection) for connection in connections))
    return time.perf_counter() - began


def measure(workers: int, *, rounds: int, webhooks: int) -> Sequence[float]:
    """What each round took."""
    with rig.postgres() as dsn, rig.agent() as agent_port, rig.relay(dsn, agent_port, workers=workers) as (port, _):
        return [uvloop.run(seconds(port, webhooks, 1_000_000 + number)) for number in range(rounds)]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--webhooks", type=int, default=100)
    given = parser.parse_args()
    print("| workers | median | best | worst |\n| ---: | ---: | ---: | ---: |")
    for workers in WORKERS:
        took = measure(workers, rounds=given.rounds, webhooks=given.webhooks)
        figures = [f"{1000 * value:.0f} ms" for value in (statistics.median(took), min(took), max(took))]
        print(f"| {workers} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
