"""Serves an ASGI application over HTTP/1.1: Hypercorn's protocol on connections of our own.

The relay's requests are read, and its answers written, by Hypercorn. Its public `serve` is not used, because no setting
and no ASGI middleware reaches what is below the application (Hypercorn 0.18):

- HTTP/2 and WebSockets cannot be turned off (https://github.com/pgjones/hypercorn/issues/38). A proxy that lets
  `Upgrade: h2c` through would let its sender past the proxy's rules, and a WebSocket handshake that is not ASCII ends
  in a traceback.
- A connection and its socket outlive their client by `keep_alive_timeout`: Hypercorn waits for the task that watches an
  idle connection. Chatwoot makes a connection for each webhook. `keep_alive_timeout` must be longer than the 60 s for
  which nginx and cloud load balancers keep a connection, or they send webhooks into connections that are being closed.
  `read_timeout` is no help: it also ends connections that wait for their answer.
- A client that does not read its answers is waited for without end. The pull request for a `write_timeout` was closed
  unmerged (https://github.com/pgjones/hypercorn/pull/262).

So `_Connection` takes the place of Hypercorn's `TCPServer`. It uses Hypercorn's `H11Protocol`, its events and its task
group, which are not documented, by their names without an underscore; nothing of Hypercorn is subclassed or replaced.
What an ASGI middleware can do about requests is in `middleware`.

Requests of the usual form, which are nearly all, do without h11 and Hypercorn's stream (`plain`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import h11
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import ConnectionState

from relay.intake.asgi import WholeBody
from relay.server import plain
from relay.server.listener import ACCEPT_QUEUE
from relay.server.middleware import EarlyAnswers, Framing

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hypercorn.events import Event
    from hypercorn.typing import ASGIFramework

FIRST_REQUEST_S = 20
"""How long a new connection may take until the head of its first request is complete."""

KEEP_ALIVE_S = 65
"""How long a connection may take from an answer until the head of the next request is complete."""

READ_WITHIN_S = 20
"""How long a client may take to read what does not fit into the socket's buffers."""

DROP_FOR_S = 10
"""How long a client that was answered before its body had ended may go on to send it."""

_TOGETHER_S = 0.2
"""How long the rest of a short body is waited for before h11 reads what has come. Some clients send the head first."""

_READ_BYTES = 64 * 1024
_UNREAD_BYTES = 64 * 1024

_log = logging.getLogger(__name__)


async def serve_http(
    app: ASGIFramework,
    bound: socket.socket,
    stop: asyncio.Event,
    *,
    answer_s: float,
    on_listening: Callable[[], object] = lambda: None,
) -> None:
    """Serve `app` on `bound` until `stop` is set, then close `bound`. Requests in progress have `answer_s` from there.

    `on_listening` is called once connections are accepted. Sends `app` no lifespan events.
    """
    server = _Server(app)
    listener = await asyncio.start_server(server.accept, sock=bound, backlog=ACCEPT_QUEUE)
    on_listening()
    try:
        await stop.wait()
    finally:
        listener.close()
        await server.drain(answer_s)


def _config() -> Config:
    """Hypercorn's settings. Those of sockets and times have no effect here."""
    config = Config()
    config.keep_alive_max_requests = 1_000_000
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.loglevel = "WARNING"
    return config


class _Server:
    """The connections of one application."""

    def __init__(self, app: ASGIFramework) -> None:
        self.plain_app: Any = app
        self.app = ASGIWrapper(EarlyAnswers(Framing(app)))
        self.config = _config()
        self.context = WorkerContext(None)
        self.idle: set[_Connection] = set()
        self._open: dict[asyncio.Task[None], _Connection] = {}

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a new connection."""
        connection = _Connection(self, reader, writer)
        task = asyncio.get_running_loop().create_task(connection.run())
        self._open[task] = connection
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._open[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("A connection failed by a defect", exc_info=error)

    async def drain(self, answer_s: float) -> None:
        """Close the idle connections, the others after their answer, and abort what is left after `answer_s`."""
        await self.context.terminated.set()
        for connection in list(self.idle):
            connection.close()
        if self._open:
            await asyncio.wait(list(self._open), timeout=answer_s)
        left = dict(self._open)
        for task, connection in left.items():
            connection.abort()
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class _Connection:
    """One client's connection. It ends with its client, and when the client sends no request or reads no answer."""

    def __init__(self, server: _Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._requests = _Requests(h11.SERVER, max_incomplete_event_size=server.config.h11_max_incomplete_size)
        self._timer: asyncio.TimerHandle | None = None
        self._sent = asyncio.Event()
        self._is_dropping = False
        self._client = _address(writer.get_extra_info("peername"))
        self._own = _address(writer.get_extra_info("sockname"))

    async def run(self) -> None:
        """Read requests and write their answers until the connection has ended."""
        try:
            async with TaskGroup(self._loop) as tasks:
                protocol = H11Protocol(
                    self._server.app,
                    self._server.config,
                    self._server.context,
                    tasks,
                    ConnectionState({}),
                    False,
                    self._client,
                    self._own,
                    self._send,
                )
                protocol.connection = self._requests
                self._wait_for_request(FIRST_REQUEST_S)
                await self._read(protocol)
        finally:
            self._stop_waiting()
            self._writer.close()
            with contextlib.suppress(OSError):  # the client's end of it failed, or the time is over
                async with asyncio.timeout(READ_WITHIN_S):
                    await self._writer.wait_closed()
            self.abort()

    async def _read(self, protocol: H11Protocol) -> None:
        data = b"x"
        while data:
            try:
                data = await self._reader.read(_READ_BYTES)
            except OSError:
                break
            if self._is_dropping:
                continue
            if not data:
                await self._until_answered()
            elif self._requests.is_idle and (request := plain.read(data)) is not None:
                data += await self._rest(request.end - len(data))
                if len(data) == request.end and not self._requests.are_over:
                    await self._answer(request, data)
                    continue
            await protocol.handle(RawData(data))
        await protocol.handle(Closed())

    async def _rest(self, missing: int) -> bytes:
        """What comes of the `missing` bytes of a body within `_TOGETHER_S`."""
        rest = b""
        with contextlib.suppress(OSError):  # a TimeoutError is one
            async with asyncio.timeout(_TOGETHER_S):
                while len(rest) < missing and (part := await self._reader.read(missing - len(rest))):
                    rest += part
        return rest

    async def _answer(self, request: plain.PlainRequest, data: bytes) -> None:
        """Answer a request of the usual form. Its client's hang-up is noticed afterwards."""
        self._stop_waiting()
        answer = plain.PlainAnswer()
        try:
            body = WholeBody(data[request.start :])
            await self._server.plain_app(request.scope(self._client, self._own), body, answer.send)
        except Exception as error:  # noqa: BLE001 - a defect costs one answer
            _log.error("A request failed by a defect", exc_info=error)
            answer = plain.PlainAnswer()
        await self._write(answer.text())
        if answer.is_complete:
            self._wait_for_request(KEEP_ALIVE_S)
        else:
            self.close()

    async def _until_answered(self) -> None:
        """Let the answer to a request that came whole go out: its client may have closed its own side only."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KEEP_ALIVE_S):
                while self._requests.owes_an_answer and not self._writer.transport.is_closing():
                    self._sent.clear()
                    await self._sent.wait()

    async def _send(self, event: Event) -> None:
        """Do what the protocol asks for."""
        try:
            await self._send_one(event)
        finally:
            self._sent.set()

    async def _send_one(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            self.close()
        elif isinstance(event, Updated) and event.idle:
            self._wait_for_request(KEEP_ALIVE_S)
        else:
            self._stop_waiting()

    async def _write(self, data: bytes) -> None:
        transport = self._writer.transport
        if transport.is_closing() or self._is_dropping:
            return
        self._writer.write(data)
        if transport.get_write_buffer_size() > _UNREAD_BYTES:
            try:
                async with asyncio.timeout(READ_WITHIN_S):
                    await self._writer.drain()
            except OSError:  # a TimeoutError is one
                self.abort()

    def _wait_for_request(self, patience_s: float) -> None:
        """Close the connection unless a request comes within `patience_s`. A timer is cheaper than a task a request."""
        self._stop_waiting()
        if self._server.context.terminated.is_set():
            self.close()
            return
        self._server.idle.add(self)
        self._timer = self._loop.call_later(patience_s, self.close)

    def _stop_waiting(self) -> None:
        self._server.idle.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Close the connection once the client has read what was written, or `READ_WITHIN_S` from now.

        A client that still sends gets only the end of the answers, and what it sends is dropped until it closes its
        side, for `DROP_FOR_S` at most. A closed socket would answer with a reset, and the client might lose the answer
        (RFC 9112, 9.6): nginx makes 502 of a 413.
        """
        self._stop_waiting()
        if self._requests.are_coming and not self._writer.transport.is_closing():
            self._is_dropping = True
            self._writer.write_eof()
            self._timer = self._loop.call_later(DROP_FOR_S, self.abort)
        elif not self._is_dropping:
            self._writer.close()
            self._timer = self._loop.call_later(READ_WITHIN_S, self.abort)
        self._requests.are_over = True

    def abort(self) -> None:
        """Close the connection at once."""
        self._requests.are_over = True
        self._writer.transport.abort()


class _Requests(h11.Connection):
    """Parses HTTP/1.x. Drops `Upgrade`, which a server may ignore (RFC 9110, 7.8), so that Hypercorn does not obey it.

    Methods are case-sensitive (RFC 9110, 9.1), but Hypercorn capitalizes them. Therefore `post` becomes `X-POST`,
    a method that no route has.

    Once `are_over` is set, the requests that were received but not begun are dropped.
    """

    are_over = False

    @property
    def are_coming(self) -> bool:
        """True while the client sends a body, or what is no HTTP."""
        return not self.are_over and self.their_state in {h11.SEND_BODY, h11.ERROR}

    @property
    def is_idle(self) -> bool:
        """True if no request has begun."""
        return self.their_state is h11.IDLE and self.our_state is h11.IDLE and not self.trailing_data[0]

    @property
    def owes_an_answer(self) -> bool:
        """True if a request was received whole, and its answer is not complete."""
        return self.their_state in {h11.DONE, h11.MUST_CLOSE} and self.our_state in {h11.SEND_RESPONSE, h11.SEND_BODY}

    def next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        """Return the next event.

        Raises:
            RemoteProtocolError: the request is malformed, or not in HTTP/1.x; Hypercorn answers 400.
        """
        if self.are_over:
            return h11.NEED_DATA
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        if not event.http_version.startswith(b"1."):
            raise h11.RemoteProtocolError("the version is not HTTP/1.x")
        headers = [header for header in event.headers if header[0] != b"upgrade"]
        method = event.method if event.method.isupper() else b"x-" + event.method
        if len(headers) == len(event.headers) and method is event.method:
            return event
        return h11.Request(method=method, target=event.target, headers=headers, http_version=event.http_version)


def _address(name: tuple[str, int] | None) -> tuple[str, int] | None:
    """Host and port of a socket's name, which has four parts for IPv6; None if the client has gone."""
    return (name[0], name[1]) if name else None
