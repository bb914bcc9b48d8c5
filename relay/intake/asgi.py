"""Between Quart and the server: one task a request, a body that is read when it is asked for, an answer in one piece.

Quart's own makes two tasks more for each request, one to fill the body beforehand and one to end the other when
the sender hangs up; here nothing needs to be ended, for a delivery is no longer its sender's. Knows no route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from quart.asgi import ASGIHTTPConnection
from quart.utils import encode_headers
from quart.wrappers import Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
    from quart.wrappers import Response


class SenderGone(ConnectionError):
    """The sender hung up before the end of his body."""


class HttpConnection(ASGIHTTPConnection):
    """One request, as `Quart.asgi_http_class` wants it."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer it."""
        request = cast("IncomingRequest", self._create_request_from_scope(send))
        request.receive = receive
        response = cast("Response", await self.app.handle_request(request))
        head: Any = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": encode_headers(response.headers),
        }
        body: Any = {"type": "http.response.body", "body": await response.get_data(as_text=False), "more_body": False}
        await send(head)
        await send(body)


class IncomingRequest(Request):
    """A request that is still coming in, as `Quart.request_class` wants it."""

    receive: ASGIReceiveCallable

    async def parts(self) -> AsyncIterator[bytes]:
        """The parts of its body as they come.

        Raises:
            SenderGone: no more of it will come.
        """
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                raise SenderGone
            yield message["body"]
            if not message["more_body"]:
                return
