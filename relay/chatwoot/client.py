"""Chatwoot's API, as much of it as is needed: the one client for it (chatwoot/CONTRACT, "API used").

Typed, at most ten requests a second, retried where that can help: rate limits, its own failures, the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from relay import http_client
from relay.chatwoot.faults import Fault, explanation_of
from relay.domain.retry import RETRIED_4XX, failure_of
from relay.errors import ConfigurationError, RelayError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from relay.settings import Settings

TOKEN_HEADER = "Api-Access-Token"  # noqa: S105 - the header's name
"""Rails reads this and `api_access_token` as one header; nginx drops the latter by default (CONTRACT, 2)."""

REQUESTS_A_SECOND = 10
MOST_BYTES = 64 * 2**20
"""A longer answer is refused. 25 conversations have some 100 KiB; each of 20 mails can have several MiB."""

NOT_CONFIGURED = "CHATWOOT_BASE_URL, CHATWOOT_API_KEY and CHATWOOT_ACCOUNT_ID must be set to ask Chatwoot"
TIMEOUT_S = 10
AT_ONCE = 5
"""How many requests a caller with many has under way."""

ATTEMPTS = 3
_FIRST_PAUSE_S = 0.5


class ChatwootError(RelayError):
    """Chatwoot did not do what it was asked.

    `status` is its answer's, None if there was none. `fault` is what is wrong with the answer, and `said` its own
    reason, as its JSON gives it. `in_doubt`: it may have done it all the same, or may do it still.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        *,
        fault: Fault | None = None,
        said: str = "",
        in_doubt: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.fault = fault
        self.said = said
        self.in_doubt = in_doubt


class _Passing(ChatwootError):
    """Trying again may help."""


class Source(StrEnum):
    """What sends webhooks in Chatwoot."""

    ACCOUNT = "webhook"
    AGENT_BOT = "agent bot"
    API_INBOX = "API inbox"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One sender of webhooks: where it points, which events it sends, and what it signs with.

    `subscriptions` is None for an agent bot and an API inbox, whose events cannot be chosen. `secret` is None where
    Chatwoot does not show one: before 4.11.2, and of agent bots and API inboxes before 4.13.
    """

    url: str
    subscriptions: tuple[str, ...] | None
    source: Source = Source.ACCOUNT
    name: str = ""
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Server:
    """What `GET /api` says of the installation."""

    version: str
    queue_ok: bool
    data_ok: bool

    def is_at_least(self, *version: int) -> bool | None:
        """True if it is that version or a newer one, None if the version is not in figures."""
        parts = self.version.split("-")[0].split(".")
        return tuple(map(int, parts)) >= version if all(part.isascii() and part.isdigit() for part in parts) else None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: `raw` is the message as Chatwoot answered it, `created_at` unix seconds."""

    id: int
    content: str
    incoming: bool
    private: bool
    created_at: int = 0
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of the account's list. `last_activity_at` is in unix seconds."""

    id: int
    last_activity_at: int
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


async def _read(streamed: httpx.Response) -> httpx.Response:
    """The whole answer.

    Raises:
        ChatwootError: it is longer than `MOST_BYTES`.
    """
    content = bytearray()
    async for part in streamed.aiter_bytes():
        content += part
        if len(content) > MOST_BYTES:
            raise ChatwootError(f"Chatwoot's answer is longer than {MOST_BYTES // 2**20} MiB")
    headers = [item for item in streamed.headers.items() if item[0] not in {"content-encoding", "content-length"}]
    return httpx.Response(streamed.status_code, headers=headers, content=bytes(content), request=streamed.request)


class Chatwoot:
    """The account that `settings` name. Use it as an async context manager.

    `clock_ahead_s` is by how many seconds Chatwoot's clock was ahead of this machine's at its last answer
    (its `Date` header, to a second; RFC 9110 section 6.6.1), None before one.

    Raises:
        ConfigurationError: `CHATWOOT_BASE_URL`, `CHATWOOT_API_KEY` or `CHATWOOT_ACCOUNT_ID` is not set.
    """

    requests_a_second = REQUESTS_A_SECOND

    def __init__(self, settings: Settings) -> None:
        base, key, account = settings.chatwoot_base_url, settings.chatwoot_api_key, settings.chatwoot_account_id
        if base is None or key is None or account is None:
            raise ConfigurationError(NOT_CONFIGURED)
        self._base = base
        self._client = http_client.client(
            base_url=f"{base}/api/v1/accounts/{account}",
            headers={TOKEN_HEADER: key.get_secret_value(), "accept-encoding": "identity"},
            timeout=TIMEOUT_S,
        )
        self._turn = asyncio.Lock()
        self._next_at = 0.0
        self.clock_ahead_s: float | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def server(self) -> Server:
        """Version and health of the installation.

        Raises:
            ChatwootError: it does not answer, or answers something else.
        """
        answer = await self._ask("GET", f"{self._base}/api")
        try:
            ok = {name: str(answer.get(name, "ok")) == "ok" for name in ("queue_services", "data_services")}
            return Server(str(answer["version"])[:40], ok["queue_services"], ok["data_services"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ChatwootError("GET /api does not answer as Chatwoot does; check CHATWOOT_BASE_URL") from error

    async def webhooks(self) -> list[Webhook]:
        """The account's webhooks. Chatwoot lists them for administrators only.

        Raises:
            ChatwootError: it does not answer, refuses, or answers something else.
        """
        answer = await self._ask("GET", "/webhooks", wanted="list webhooks")
        with _documented("list of webhooks"):
            return [
                Webhook(
                    str(one["url"]), tuple(str(name) for name in one["subscriptions"]), Source.ACCOUNT,
                    str(one.get("name") or f"webhook {one.get('id')}"), _secret(one),
                )
                for one in answer["payload"]["webhooks"]
            ]  # fmt: skip

    async def agent_bots(self) -> list[Webhook]:
        """The account's agent bots that have a URL.

        Raises:
            ChatwootError: as for `webhooks`.
        """
        answer = await self._ask("GET", "/agent_bots", wanted="list agent bots")
        with _documented("list of agent bots"):
            return [
                Webhook(str(one["outgoing_url"]), None, Source.AGENT_BOT, str(one.get("name") or ""), _secret(one))
                for one in answer
                if one.get("outgoing_url")
            ]

    async def api_inboxes(self) -> list[Webhook]:
        """The account's API inboxes that have a URL.

        Raises:
            ChatwootError: as for `webhooks`.
        """
        answer = await self._ask("GET", "/inboxes", wanted="list inboxes")
        with _documented("list of inboxes"):
            return [
                Webhook(str(one["webhook_url"]), None, Source.API_INBOX, str(one.get("name") or ""), _secret(one))
                for one in answer["payload"]
                if one.get("webhook_url")
            ]

    async def conversations(self, page: int) -> list[Conversation]:
        """One page of the account's conversations (25), of any status, the last active first. Pages count from 1.

        Raises:
            ChatwootError: as for `webhooks`.
        """
        answer = await self._ask("GET", f"/conversations?status=all&page={page}", wanted="list conversations")
        with _documented("list of conversations"):
            return [
                Conversation(int(one["id"]), int(one.get("last_activity_at") or one["timestamp"]), one)
                for one in answer["data"]["payload"]
            ]

    async def messages(
        self, conversation_id: int, *, after: int | None = None, before: int | None = None
    ) -> list[Message]:
        """A conversation's last twenty messages, oldest first.

        `after` (a message id): up to 100 that follow it. `before`: the last twenty before it.

        Raises:
            ChatwootError: as for `webhooks`.
        """
        query = f"?after={after}" if after is not None else f"?before={before}" if before is not None else ""
        answer = await self._ask(
            "GET", f"/conversations/{conversation_id}/messages{query}", wanted="read conversations"
        )
        with _documented("list of messages"):
            return [_message(one) for one in answer["payload"]]

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None, *, wanted: str = "") -> Any:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Passing),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=_FIRST_PAUSE_S),
            reraise=True,
        )
        return await retrying(self._once, method, path, body, wanted)

    async def _once(self, method: str, path: str, body: dict[str, Any] | None, wanted: str) -> Any:
        await self._wait_for_turn()
        try:
            async with self._client.stream(method, path, json=body) as streamed:
                answer = await _read(streamed)
        except httpx.HTTPError as error:
            nothing_was_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            sentence = f"Chatwoot does not answer ({failure_of(error)})"
            if method == "GET" or nothing_was_sent:
                raise _Passing(sentence) from error
            raise ChatwootError(sentence, in_doubt=True) from error
        self._note_clock(answer)
        explained = explanation_of(answer, self._base, wanted=wanted)
        if explained is None:
            return answer.json()
        status = answer.status_code
        if status in RETRIED_4XX or (status >= 500 and method == "GET"):
            raise _Passing(explained.text, status, fault=explained.fault, said=explained.said)
        in_doubt = method != "GET" and (status >= 500 or answer.is_success)
        raise ChatwootError(explained.text, status, fault=explained.fault, said=explained.said, in_doubt=in_doubt)

    async def _wait_for_turn(self) -> None:
        async with self._turn:
            now = time.monotonic()
            if now < self._next_at:
                await asyncio.sleep(self._next_at - now)
            self._next_at = max(now, self._next_at) + 1 / self.requests_a_second

    def _note_clock(self, answer: httpx.Response) -> None:
        with contextlib.suppress(KeyError, ValueError, TypeError):
            theirs = parsedate_to_datetime(answer.headers["date"])
            self.clock_ahead_s = (theirs - datetime.now(UTC)).total_seconds() + 0.5


def _message(one: dict[str, Any]) -> Message:
    return Message(
        id=int(one["id"]),
        content=str(one.get("content") or ""),
        incoming=one.get("message_type") in {0, "incoming"},
        private=one.get("private") is True,
        created_at=int(one.get("created_at") or 0),
        raw=one,
    )


def _secret(one: dict[str, Any]) -> str | None:
    found = one.get("secret")
    return found if isinstance(found, str) and found else None


@contextlib.contextmanager
def _documented(what: str) -> Iterator[None]:
    """Turns the errors of reading an answer of another form into a `ChatwootError`."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ChatwootError(f"Chatwoot's {what} has not the form that is documented") from error
