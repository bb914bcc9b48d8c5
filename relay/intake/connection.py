"""A sender's connection: HTTP/1.1 and nothing else, let go of when its sender hangs up, stalls or talks nonsense.

What Hypercorn would do besides is left out: HTTP/2 and WebSockets, which nobody who sends webhooks speaks, and
waiting without end for a sender who does not read his answers. Knows nothing of routes or webhooks.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import h11
import hypercorn.asyncio.run
import hypercorn.protocol
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Closed, RawData
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol

if TYPE_CHECKING:
    from hypercorn.events import Event
    from hypercorn.protocol.events import Event as StreamEvent

FIRST_REQUEST_S = 20
"""How long a new connection may take until the head of its first request is there."""

READ_WITHIN_S = 20
"""How long a sender may take to read an answer that does not fit into the socket's buffers."""


_UNREAD_BYTES = 64 * 1024


class Connection(TCPServer):
    """Hypercorn's connection, but it ends with its client, and soon if nobody asks for anything or reads the answer.

    Otherwise it outlives its client by the keep-alive time-out, socket and all; and whoever sends a request's
    head byte by byte keeps it for as long.
    """

    idle: ClassVar[set[Connection]] = set()
    """Those that wait for a request."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.clock = _IdleClock(self)
        self.idle_task = self.clock  # type: ignore[assignment] # all that is asked of it is here

    async def protocol_send(self, event: Event) -> None:
        """Write an answer, or hang up on who does not take it in time."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        try:
            self.writer.write(event.data)
            if self.writer.transport.get_write_buffer_size() > _UNREAD_BYTES:
                async with self.send_lock, asyncio.timeout(READ_WITHIN_S):
                    await self.writer.drain()
        except TimeoutError:
            self.writer.transport.abort()
            await self.protocol.handle(Closed())
        except (ConnectionError, RuntimeError):
            await self.protocol.handle(Closed())

    async def end(self) -> None:
        """Close it; whoever does not let go is cut off."""
        await self._initiate_server_close()
        self.loop.call_later(READ_WITHIN_S, self.writer.transport.abort)

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()

    async def _close(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_WITHIN_S):
                await super()._close()
        self.writer.transport.abort()


class _IdleClock:
    """What ends a connection on which nobody asks for anything.

    Hypercorn makes a task for it and cancels it again, for every request; a timer costs a tenth.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._patience_s: float = FIRST_REQUEST_S
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    async def restart(self, _group: object, _action: object) -> None:
        """A request was answered, or the connection is new."""
        await self.stop()
        connection = self._connection
        patience_s, self._patience_s = self._patience_s, connection.config.keep_alive_timeout
        if connection.reader.at_eof() or connection.context.terminated.is_set():
            patience_s = 0  # the client has said that it asks for nothing more, or the server is ending
        connection.idle.add(connection)
        self._timer = connection.loop.call_later(patience_s, self.ring)

    async def stop(self) -> None:
        """A request has come, or the connection has ended."""
        self._connection.idle.discard(self._connection)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def ring(self) -> None:
        """End the connection."""
        self._ending = self._connection.loop.create_task(self._connection.end())


def end_the_idle(app: object) -> None:
    """End every connection to `app` that only waits for a request: it is to stop."""
    for connection in list(Connection.idle):
        if connection.app.app is app:  # type: ignore[attr-defined] # of the wrapper that serves ASGI
            connection.clock.ring()


class _Requests(h11.Connection):
    """Reads requests for a path in HTTP/1.x; an upgrade to anything else is not heard (RFC 9110, 7.8).

    `is_ambiguous` is True after a request with both `Transfer-Encoding` and `Content-Length`, which may be an attempt
    to smuggle another one past a proxy: it is answered, and the connection closed (RFC 9112, 6.1).
    """

    is_ambiguous = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        """What came next.

        Raises:
            RemoteProtocolError: it cannot be served; the sender is answered 400.
        """
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        names = {name for name, _ in event.headers}
        if b"transfer-encoding" in names:
            if event.http_version < b"1.1":
                raise h11.RemoteProtocolError("HTTP/1.0 has no Transfer-Encoding")
            self.is_ambiguous = b"content-length" in names
        return _plain(event, _IGNORED | {b"content-length"} if self.is_ambiguous else _IGNORED)


_IGNORED = frozenset({b"upgrade"})


def _plain(request: h11.Request, ignored: frozenset[bytes]) -> h11.Request:
    """`request` with its target as a path, and without the headers that are `ignored`."""
    if not request.http_version.startswith(b"1."):
        raise h11.RemoteProtocolError("the version is not HTTP/1.1")
    target = request.target
    if not target.startswith(b"/"):
        target = _path_of(target)
    headers = [header for header in request.headers if header[0] not in ignored]
    if target is request.target and len(headers) == len(request.headers):
        return request
    return h11.Request(method=request.method, target=target, headers=headers, http_version=request.http_version)


def _path_of(target: bytes) -> bytes:
    """The path and query of `http://host/path?query`, which a server must take too (RFC 9112, 3.2.2)."""
    try:
        parts = urlsplit(target)
    except ValueError:
        parts = urlsplit(b"")
    if not parts.path.startswith(b"/"):
        raise h11.RemoteProtocolError("the target is not a path")
    return parts.path + (b"?" + parts.query if parts.query else b"")


class _Protocol(H11Protocol):
    """Writes the head of an answer together with the part that follows it: one packet for most answers."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._requests = _Requests(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)
        self.connection = self._requests
        self._pass_on, self.send = self.send, self._gather
        self._head = b""
        self._is_head = False

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of an answer; one to an ambiguous request is the last on its connection."""
        self._is_head = isinstance(event, Response)
        if isinstance(event, Response) and self._requests.is_ambiguous:
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    async def _gather(self, event: Event) -> None:
        if isinstance(event, RawData):
            data = self._head + event.data
            self._head = data if self._is_head else b""
            if self._is_head or not data:
                return
            event = RawData(data)
        await self._pass_on(event)


def install() -> None:
    """Make Hypercorn use this instead of its own."""
    hypercorn.asyncio.run.TCPServer = Connection  # type: ignore[assignment,attr-defined]
    hypercorn.protocol.H11Protocol = _Protocol  # type: ignore[assignment,attr-defined]
