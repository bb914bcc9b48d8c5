"""What carries requests to the Agent SDK: httpx-aiohttp, without what it works out anew for each request."""

from __future__ import annotations

from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import map_aiohttp_exceptions

from relay import http_client

ANSWER = "answer"
"""The extension of a response that holds the first `ANSWER_BYTES` of the answer's body, as they came."""

ANSWER_BYTES = 64 * 1024
"""So much of an answer is read. Where there is more, its connection is closed."""

_KEEP_ALIVE_S = 4  # shorter than any server keeps an idle connection, so that none is cut under a request
_NO_TIMEOUT = aiohttp.ClientTimeout()
NO_STREAM = httpx.ByteStream(b"")
"""Takes the place of a response's stream.

httpx's stream and its response refer to each other. Otherwise both, and the body that was sent, would stay in memory
until the garbage collector finds them.
"""


def session() -> aiohttp.ClientSession:
    """As many connections as there are deliveries in flight, and no cookies."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S, ssl=http_client.certificates())
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


class AgentTransport(AiohttpTransport):
    """Sends requests that are complete as they are, by `proxy` if there is one, without a limit of time.

    The beginning of an answer is read before it is returned, and is found in its extension `ANSWER`.
    """

    def __init__(self, proxy: httpx.Proxy | None) -> None:
        super().__init__(client=session, verify=http_client.certificates(), proxy=proxy)
        self._by_proxy: dict[str, Any] = {}
        if proxy is not None:
            auth = None if proxy.auth is None else aiohttp.BasicAuth(*proxy.auth)
            self._by_proxy = {"proxy": str(proxy.url), "proxy_auth": auth, "proxy_headers": proxy.headers}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`, whose body has been read."""
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        with map_aiohttp_exceptions():
            response = await self.client.request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=request.content or None,
                allow_redirects=False,
                auto_decompress=False,
                timeout=_NO_TIMEOUT,
                **self._by_proxy,
            )
            try:
                answer = await _beginning(response.content)
            finally:
                await response.__aexit__(None, None, None)
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=NO_STREAM, extensions={ANSWER: answer}
        )


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    parts: list[bytes] = []
    left = ANSWER_BYTES
    while left > 0 and (part := await content.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
