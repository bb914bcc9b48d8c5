"""Requests of the usual form: a POST with a short head and a `Content-Length`, received whole. No I/O.

They are read by httptools instead of h11, and answered without Hypercorn's stream, which take longer than the relay
itself needs for a webhook. What is read here is read by h11 in the same way; what could be read in two ways is left to
h11.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from wsgiref.handlers import format_date_time

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BYTES = 64 * 1024
"""Larger requests are left to h11."""

_MOST_HEAD_BYTES = 8 * 1024
_HEAD_END = b"\r\n\r\n"
_PATH = re.compile(rb"/[A-Za-z0-9/_.~-]*")
_LENGTH = re.compile(rb"[0-9]{1,8}")
_UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
_KEEP_ALIVE = b"keep-alive"


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """The head of a request. `headers` have lower-case names; `start` is where the body begins, `end` where it ends."""

    path: bytes
    headers: list[tuple[bytes, bytes]]
    start: int
    end: int

    def scope(self, client: tuple[str, int] | None, server: tuple[str, int] | None) -> dict[str, Any]:
        """The request as ASGI names its parts."""
        return {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": self.path.decode("ascii"),
            "raw_path": self.path,
            "query_string": b"",
            "root_path": "",
            "headers": self.headers,
            "client": client,
            "server": server,
            "state": {},
            "extensions": {},
        }


def read(data: bytes) -> PlainRequest | None:
    """The request that `data` begins with; None if its head is not complete, or not of the usual form."""
    start = data.find(_HEAD_END, 0, _MOST_HEAD_BYTES) + len(_HEAD_END)
    if start < len(_HEAD_END):
        return None
    head = _Head()
    try:
        HttpRequestParser(head).feed_data(data[:start])
    except (HttpParserError, HttpParserUpgrade):
        return None
    headers = dict(head.headers)
    length = headers.get(b"content-length", b"")
    if (
        not data.startswith(b"POST %b HTTP/1.1\r\n" % head.target)
        or not _PATH.fullmatch(head.target)
        or len(headers) < len(head.headers)
        or b"host" not in headers
        or not _LENGTH.fullmatch(length)
        or not _UNUSUAL.isdisjoint(headers)
        or headers.get(b"connection", _KEEP_ALIVE).lower() != _KEEP_ALIVE
    ):
        return None
    end = start + int(length)
    return PlainRequest(head.target, head.headers, start, end) if end <= MOST_BYTES else None


class _Head:
    """Collects what httptools reads of a head."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))


class PlainAnswer:
    """Collects what an application sends, as ASGI's `send`."""

    def __init__(self) -> None:
        self._head: Mapping[str, Any] | None = None
        self._body: list[bytes] = []
        self.is_complete = False

    async def send(self, message: Any) -> None:
        """Take a part of the answer."""
        if message["type"] == "http.response.start":
            self._head = message
        elif message["type"] == "http.response.body":
            self._body.append(message.get("body", b""))
            self.is_complete = self._head is not None and not message.get("more_body", False)

    def text(self) -> bytes:
        """The whole answer as it goes to the client; a 500 if the application has not completed one."""
        if self._head is None or not self.is_complete:
            return b"HTTP/1.1 500 \r\ncontent-length: 0\r\nconnection: close\r\n" + _date(int(time.time())) + b"\r\n"
        body = b"".join(self._body)
        headers = list(self._head.get("headers", ()))
        if not any(name.lower() == b"content-length" for name, _ in headers):
            headers.append((b"content-length", b"%d" % len(body)))
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        return b"HTTP/1.1 %d \r\n%b%b\r\n%b" % (self._head["status"], lines, _date(int(time.time())), body)


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return f"date: {format_date_time(second)}\r\n".encode("ascii")
