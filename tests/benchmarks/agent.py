"""The cheapest Agent SDK there is: answers every POST with 200, so that the figures are not its own.

A delivery whose id begins with `hang-` it never answers.

Run as a program: `python -m tests.benchmarks.agent PORT`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

_BODY = b'{"status": "draft_ready"}'
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


class Agent(asyncio.Protocol):
    """HTTP/1.1 as far as a keep-alive client with Content-Length needs it."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop has a class of its own

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._received) < end + 4 + length:
                return
            self._received = self._received[end + 4 + length :]
            if b"x-chatwoot-delivery: hang-" not in head:
                self._transport.write(_ANSWER)


async def main(port: int) -> None:
    """Serve on loopback until stopped."""
    server = await asyncio.get_running_loop().create_server(Agent, "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
