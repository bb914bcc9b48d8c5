"""A load generator on loopback: so many connections, each posting the next webhook when it has its answer.

Bytes are made beforehand and answers read by their status line and length only, so that most of the machine is
left to what is measured. Bounded by a count; ends by itself. Run as a program, it prints one JSON line:
`python -m tests.benchmarks.load PORT PATH CONNECTIONS REQUESTS [PREFIX]`; delivery ids begin with PREFIX.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import cast

import uvloop

_PLACEHOLDER = 987_654
PAYLOAD = Path(__file__).parents[2] / "relay" / "chatwoot" / "payloads" / "message_created.json"


def webhook_body(conversation: int = 100_000) -> bytes:
    """Chatwoot's documented `message_created` of a conversation, compact as Rails sends it."""
    payload = json.loads(PAYLOAD.read_text())
    payload["conversation"]["id"] = conversation
    return json.dumps(payload, separators=(",", ":")).encode()


class _Sender(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop has a class of its own
        self._send()

    def _send(self) -> None:
        request = self._load.next_request()
        if request is None:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end].lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self._received) < end + 4 + length:
            return
        self._received = self._received[end + 4 + length :]
        self._load.answered(int(head[9:12]), time.perf_counter() - self._sent_at)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.closed(self._sent_at and exc)


class Load:
    """`requests` webhooks over `connections` connections to `port`."""

    def __init__(self, port: int, path: str, connections: int, requests: int, prefix: str = "") -> None:
        self._port = port
        self._connections = connections
        self._left = requests
        self._open = connections
        self._done = asyncio.Event()
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []
        body = webhook_body(_PLACEHOLDER)
        self._conversation = random.randrange(100_000, 900_000)
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"accept: application/json\r\ncontent-length: {len(body)}\r\nx-chatwoot-delivery: {prefix}"
        ).encode()
        self._before, self._after = (b"\r\n\r\n" + body).split(b"%d" % _PLACEHOLDER)

    def next_request(self) -> bytes | None:
        """The bytes of the next webhook, with a delivery id and a conversation of its own; None when all are sent."""
        if not self._left:
            return None
        self._left -= 1
        number = b"%d" % (100_000 + (self._conversation + self._left) % 900_000)
        return self._head + str(uuid.uuid4()).encode() + self._before + number + self._after

    def answered(self, status: int, seconds: float) -> None:
        """One webhook was answered."""
        self.statuses[status] += 1
        self.seconds.append(seconds)

    def closed(self, error: object) -> None:
        """One connection ended."""
        if error:
            self.statuses[0] += 1
        self._open -= 1
        if not self._open:
            self._done.set()

    async def run(self) -> float:
        """Send everything; returns the seconds it took."""
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        await asyncio.gather(
            *(loop.create_connection(lambda: _Sender(self), "127.0.0.1", self._port) for _ in range(self._connections))
        )
        await self._done.wait()
        return time.perf_counter() - began


def percentile(seconds: list[float], share: float) -> float:
    """The value that `share` of `seconds` stay within."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def main(port: int, path: str, connections: int, requests: int, prefix: str = "") -> None:
    """Run one load and print what came of it."""
    load = Load(port, path, connections, requests, prefix)
    seconds = await load.run()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "statuses": {str(status): count for status, count in load.statuses.items()},
                "p50_ms": 1000 * percentile(load.seconds, 0.5),
                "p99_ms": 1000 * percentile(load.seconds, 0.99),
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:]))
