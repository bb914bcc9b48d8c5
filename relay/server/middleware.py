"""ASGI middleware for every application: checks requests."""

from __future__ import annotations

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
