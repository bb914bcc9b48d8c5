"""What a plain ASGI application needs to read a request's body and to answer in JSON. Knows no route."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable


class SenderGone(ConnectionError):
    """The sender hung up before the end of the body."""


class WholeBody:
    """ASGI's `receive` for a request whose body has been received whole: `body`."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._is_taken = False

    async def __call__(self) -> Any:
        """Return the body; after that, wait until cancelled."""
        if self._is_taken:
            await asyncio.get_running_loop().create_future()
        self._is_taken = True
        return {"type": "http.request", "body": self.body, "more_body": False}


async def body_parts(receive: ASGIReceiveCallable) -> AsyncIterator[bytes]:
    """Yield the parts of a request's body as they arrive.

    Raises:
        SenderGone: no more of it will come.
    """
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise SenderGone
        yield message["body"]
        if not message["more_body"]:
            return


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer in JSON."""

    status: int
    content: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(self, send: ASGISendCallable) -> None:
        """Send it, its JSON text in one piece."""
        text = json.dumps(self.content).encode()
        headers = {"content-type": "application/json", "content-length": str(len(text)), **self.headers}
        head: Any = {
            "type": "http.response.start",
            "status": self.status,
            "headers": [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.items()],
        }
        body: Any = {"type": "http.response.body", "body": text, "more_body": False}
        await send(head)
        await send(body)
