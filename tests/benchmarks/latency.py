"""What the relay adds to an answer: its own time to answer minus the agent's, at a steady rate.

Webhooks are sent on a timetable, whether or not the last one has been answered, and timed from when they were
due. The agent alone is measured the same way in the same run; its median is what is taken off. The first two seconds,
in which workers and their sessions are cold, are not counted.
`python -m tests.benchmarks.latency [--seconds N]`
"""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from typing import TYPE_CHECKING

import uvloop

from tests.benchmarks import rig
from tests.benchmarks.load import percentile, webhook_body

if TYPE_CHECKING:
    from collections.abc import Sequence

RATES = (50, 200)
WORKERS = 2
_WARM_UP_S = 2
_FIRST_CONVERSATION = 2_000_000
"""No conversation that `load` sends: a webhook behind one of those would wait for it."""


class Client:
    """Posts webhooks to `path`, each of a conversation of its own; every answer must have one of `statuses`.

    Keeps connections that are not in use; opens another when all are."""

    def __init__(self, port: int, path: str, statuses: Sequence[bytes]) -> None:
        self._port = port
        self._statuses = statuses
        self._conversation = _FIRST_CONVERSATION
        body = webhook_body(self._conversation)
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-chatwoot-delivery: "
        ).encode()
        self._body = b"\r\n\r\n" + body
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, due: float) -> float:
        """Post one; seconds from `due` to the end of its answer."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        self._conversation += 1
        body = self._body.replace(b'"id":%d' % _FIRST_CONVERSATION, b'"id":%d' % self._conversation)
        writer.write(self._head + str(uuid.uuid4()).encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.split()[1] in self._statuses, head
        length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        took = time.perf_counter() - due
        self._idle.append((reader, writer))
        return took

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()


async def timetable(
    port: int, path: str, rate: int, seconds: float, *, statuses: Sequence[bytes] = (b"200",), warm_up_s: int = 0
) -> list[float]:
    """What each of `rate` posts a second took, for `seconds` after a warm-up. Each must get one of `statuses`."""
    client, tasks = Client(port, path, statuses), []
    for warm_up in range(50):
        await client.post(time.perf_counter() if warm_up else 0)
    began = time.perf_counter()
    for number in range(int(rate * (warm_up_s + seconds))):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(client.post(due)))
    took = await asyncio.gather(*tasks)
    client.close()
    return took[rate * warm_up_s :]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    seconds = parser.parse_args().seconds
    print("| a second | added p50 | p99 | p99.9 | agent alone p50 |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    with rig.postgres() as dsn, rig.agent() as agent_port, rig.relay(dsn, agent_port, workers=WORKERS) as (port, _):
        for rate in RATES:
            alone = percentile(uvloop.run(timetable(agent_port, "/webhooks/chatwoot", rate, min(seconds, 5))), 0.5)
            took = uvloop.run(timetable(port, rig.WEBHOOKS, rate, seconds, warm_up_s=_WARM_UP_S))
            added = [f"{1000 * (percentile(took, share) - alone):.1f} ms" for share in (0.5, 0.99, 0.999)]
            print(f"| {rate} | {' | '.join(added)} | {1000 * alone:.2f} ms |", flush=True)


if __name__ == "__main__":
    main()
