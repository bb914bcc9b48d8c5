"""Posts webhooks as Chatwoot does: serialised once as Rails does, signed over timestamp and body, five seconds.

Sources: lib/webhooks/trigger.rb, app/jobs/webhook_job.rb, app/jobs/agent_bots/webhook_job.rb, lib/safe_fetch.rb;
#15920 for the retries that are not there.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import httpx

from relay.chatwoot.signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

TIMEOUT_S = 5
BOT_ATTEMPTS = 3
BOT_PAUSE_S = 3.0
_RETRIED_BY_BOTS = frozenset({429, 500})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10


@dataclass(frozen=True, slots=True)
class Sent:
    """One webhook that was posted. `status` is the answer's, None for a failure or none in time.

    `filtered` is true for a webhook that never left Chatwoot because its address is private.
    """

    delivery_id: str
    status: int | None
    body: bytes
    answer: dict[str, Any] | None
    filtered: bool = False


@dataclass(frozen=True, slots=True)
class Post:
    """A webhook to post. Without a `secret` it has neither signature nor delivery id."""

    url: str
    body: bytes
    secret: bytes | None
    delivery_id: str
    reencoded: bool = False


class WebhookSender:
    """Posts webhooks. `log` is what Sidekiq's log would show."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.bot_pause_s = BOT_PAUSE_S
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        """Open the client."""
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S)

    async def stop(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.aclose()

    async def post(self, post: Post, *, public_only: bool, follow: bool) -> Sent:
        """Post once. `public_only`: not to private addresses; `follow`: redirects, with the same verb and body."""
        if public_only and not await _has_public_address(post.url):
            host = urlsplit(post.url).hostname
            self.log.append(f"Exception: Invalid webhook URL {post.url} : Hostname '{host}' has no public ip addresses")
            return Sent(post.delivery_id, None, post.body, None, filtered=True)
        try:
            response = await self._send(post, follow=follow)
        except httpx.HTTPError as error:
            self.log.append(f"Exception: Invalid webhook URL {post.url} : {error!r}")
            return Sent(post.delivery_id, None, post.body, None)
        try:
            return Sent(post.delivery_id, response.status_code, post.body, response.json())
        except ValueError:
            return Sent(post.delivery_id, response.status_code, post.body, None)

    async def post_as_bot(self, post: Post, *, public_only: bool, follow: bool) -> list[Sent]:
        """Post as an agent bot does: up to three times, three seconds apart, while the answer is 429 or 500."""
        sent: list[Sent] = []
        while len(sent) < BOT_ATTEMPTS:
            if sent:
                await asyncio.sleep(self.bot_pause_s)
            sent.append(await self.post(post, public_only=public_only, follow=follow))
            if sent[-1].status not in _RETRIED_BY_BOTS:
                break
        return sent

    async def _send(self, post: Post, *, follow: bool) -> httpx.Response:
        assert self._client is not None
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if post.secret is not None:
            timestamp = str(int(time.time()))
            headers |= {
                DELIVERY_HEADER: post.delivery_id,
                TIMESTAMP_HEADER: timestamp,
                SIGNATURE_HEADER: sign(post.secret, timestamp, post.body),
            }
        body = json.dumps(json.loads(post.body)).encode() if post.reencoded else post.body
        url = post.url
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._client.post(url, content=body, headers=headers)
            if response.status_code not in _REDIRECTS or not follow:
                return response
            url = urljoin(url, response.headers.get("location", ""))
        return response


async def _has_public_address(url: str) -> bool:
    """True if the URL's host has an address that Chatwoot sends to (lib/safe_fetch.rb, with the gem ssrf_filter)."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(ipaddress.ip_address(address[4][0]).is_global for address in found)


def new_id() -> str:
    """A delivery id, made when the job is enqueued."""
    return str(uuid4())
