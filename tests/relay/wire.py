"""HTTP by hand, for what no HTTP client does: bodies without end, senders that hang up, agents that talk nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from relay.settings import WEBHOOK_PATH
from tests.servers import PATIENCE_S

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from tests.servers import RunningRelay


@dataclass(slots=True)
class Wire:
    """A connection to a relay, on which a test writes its requests itself."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Write `data`, waiting for room in the socket's buffer."""
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            await self.writer.drain()

    async def begin(self, *headers: str, path: str = WEBHOOK_PATH) -> None:
        """Write the head of a POST."""
        lines = (f"POST {path} HTTP/1.1", "Host: relay", "Content-Type: application/json", *headers, "", "")
        await self.send("\r\n".join(lines).encode())

    async def answer(self) -> tuple[int, Any]:
        """Status and JSON body of the relay's answer."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            return int(head.split()[1]), json.loads(await self.reader.readexactly(_content_length(head)))

    def hang_up(self) -> None:
        """Close the connection, as a client does that has had enough."""
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def wire_to(relay: RunningRelay) -> AsyncIterator[Wire]:
    """A connection to `relay` for the length of the block."""
    wire = Wire(*await asyncio.open_connection("127.0.0.1", relay.port))
    try:
        yield wire
    finally:
        wire.hang_up()


@dataclass(slots=True)
class BluntAgent:
    """An agent that sends the same bytes in answer to every request, HTTP or not, and closes the connection.

    `heads` are the requests it was sent, without their bodies. When `held`, it answers once
    `may_answer` is set.
    """

    answer: bytes
    tls: ssl.SSLContext | None = None
    held: bool = False
    heads: list[bytes] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    _server: asyncio.Server | None = field(default=None, repr=False)

    @property
    def asked(self) -> int:
        """How many webhooks it was sent. Probes of its health do not count."""
        return sum(head.startswith(b"POST ") for head in self.heads)

    async def __aenter__(self) -> Self:
        if not self.held:
            self.may_answer.set()
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0, ssl=self.tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_content_length(head))
            self.heads.append(head)
            await self.may_answer.wait()
            writer.write(self.answer)
            await writer.drain()
        writer.close()


def _content_length(head: bytes) -> int:
    lines = head.decode("latin-1").lower().split("\r\n")
    return next((int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")), 0)
