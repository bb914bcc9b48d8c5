"""ASGI middleware for every application: checks requests, and lets answers come before the end of a body."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope


class Framing:
    """Passes requests on to an application, with a path for a target and no `Content-Length` beside chunks.

    A request whose length is given in two ways may be an attempt to smuggle another one past a proxy: it is answered,
    and its connection closed (RFC 9112, 6.1). Answers 400 and closes the connection when the target has no path, or
    when the request has a `Transfer-Encoding`, though HTTP/1.0 has none.
    """

    def __init__(self, app: ASGIFramework) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve one request."""
        request: Any = scope
        names = {name for name, _ in request["headers"]}
        if b"transfer-encoding" in names:
            if request["http_version"] < "1.1":
                await _refuse(send)
                return
            if b"content-length" in names:
                headers = [header for header in request["headers"] if header[0] != b"content-length"]
                request, send = {**request, "headers": headers}, _closing(send)
        if not request["path"].startswith("/"):
            path = _path_of(request["raw_path"].decode("ascii"))
            if path is None:
                await _refuse(send)
                return
            request = {**request, "path": unquote(path), "raw_path": path.encode("ascii")}
        await self._app(request, receive, send)


def _path_of(target: str) -> str | None:
    """The path of `http://host/path`, which a server must accept too (RFC 9112, 3.2.2); None if it has none."""
    try:
        path = urlsplit(target).path
    except ValueError:
        return None
    return path if path.startswith("/") else None


def _closing(send: ASGISendCallable) -> ASGISendCallable:
    """`send` for the last answer of a connection."""

    async def send_last(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_last


async def _refuse(send: ASGISendCallable) -> None:
    head: Any = {
        "type": "http.response.start",
        "status": 400,
        "headers": [(b"content-length", b"0"), (b"connection", b"close")],
    }
    body: Any = {"type": "http.response.body", "body": b"", "more_body": False}
    await send(head)
    await send(body)


class EarlyAnswers:
    """Drops what is left of a body when its answer has been sent.

    Hypercorn 0.18 keeps up to `max_app_queue_size` parts of a body for the application. Once that queue is full, its
    connection waits for room, and so does the end of an answer. If the application has answered before it has read the
    body, as with 413, neither wait would end, and the client's connection would be kept for ever. A queue without a
    limit is no remedy: a body in chunks of one byte would keep the event loop from everything else.
    """

    def __init__(self, app: ASGIFramework) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve one request."""
        is_read = asyncio.Event()

        async def receive_part() -> Any:
            message: Any = await receive()
            if not message.get("more_body", False):  # the last part, or the connection has ended
                is_read.set()
            return message

        async def drop_parts() -> None:
            while not is_read.is_set():
                await receive_part()

        async def send_part(message: Any) -> None:
            if is_read.is_set() or message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            dropping = asyncio.get_running_loop().create_task(drop_parts())
            try:
                await send(message)
                await is_read.wait()
            finally:
                dropping.cancel()

        await self._app(scope, receive_part, send_part)
