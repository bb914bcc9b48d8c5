"""Chatwoot's API, as much of it as is needed: the one client for it (chatwoot/CONTRACT, "API used").

Typed, at most ten requests a second, retried where that can help: rate limits, its own failures, the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from relay.domain.retry import RETRIED_4XX, failure_of
from relay.errors import ConfigurationError, RelayError

if TYPE_CHECKING:
    from types import TracebackType

    from relay.settings import Settings

TOKEN_HEADER = "Api-Access-Token"  # noqa: S105 - the header's name
"""Rails reads this and `api_access_token` as one header; nginx drops the latter by default (CONTRACT, 2)."""

REQUESTS_A_SECOND = 10
TIMEOUT_S = 10
ATTEMPTS = 3
_FIRST_PAUSE_S = 0.5


class ChatwootError(RelayError):
    """Chatwoot did not do what it was asked. `status` is its answer's, None if there was none.

    `said` is its own reason, as its JSON gives it. `in_doubt`: it may have done it all the same, or may do it still.
    """

    def __init__(self, message: str, status: int | None = None, *, said: str = "", in_doubt: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.said = said
        self.in_doubt = in_doubt


class _Passing(ChatwootError):
    """Trying again may help."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """One of the account's webhooks: where it points and which events it sends."""

    url: str
    subscriptions: tuple[str, ...]


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
            raise ConfigurationError(
                "CHATWOOT_BASE_URL, CHATWOOT_API_KEY and CHATWOOT_ACCOUNT_ID must be set to ask Chatwoot"
            )
        self._client = httpx.AsyncClient(
            base_url=f"{base}/api/v1/accounts/{account}",
            headers={TOKEN_HEADER: key.get_secret_value()},
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

    async def webhooks(self) -> list[Webhook]:
        """The account's webhooks.

        Raises:
            ChatwootError: it does not answer, refuses, or answers something else.
        """
        answer = await self._ask("GET", "/webhooks")
        try:
            found = answer["payload"]["webhooks"]
            return [Webhook(str(one["url"]), tuple(str(name) for name in one["subscriptions"])) for one in found]
        except (KeyError, TypeError) as error:
            raise ChatwootError("Chatwoot's list of webhooks has not the form that is documented") from error

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Passing),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=_FIRST_PAUSE_S),
            reraise=True,
        )
        return await retrying(self._once, method, path, body)

    async def _once(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        await self._wait_for_turn()
        try:
            answer = await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            nothing_was_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            sentence = f"Chatwoot does not answer ({failure_of(error)})"
            if method == "GET" or nothing_was_sent:
                raise _Passing(sentence) from error
            raise ChatwootError(sentence, in_doubt=True) from error
        self._note_clock(answer)
        if answer.is_success:
            try:
                return answer.json()
            except ValueError as error:
                sentence = "Chatwoot's answer is not JSON; is CHATWOOT_BASE_URL right?"
                raise ChatwootError(sentence, in_doubt=method != "GET") from error
        status = answer.status_code
        if status in RETRIED_4XX or (status >= 500 and method == "GET"):
            raise _Passing(f"Chatwoot answered {status}", status)
        remedy = {401: "; check CHATWOOT_API_KEY", 404: "; check CHATWOOT_ACCOUNT_ID"}.get(status, "")
        raise ChatwootError(f"Chatwoot answered {status}{remedy}", status, said=_said(answer), in_doubt=status >= 500)

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


def _said(answer: httpx.Response) -> str:
    """The sentence in a refusal's JSON: `error`, or `message` of a record that is not valid."""
    try:
        document = answer.json()
    except ValueError:
        return ""
    sentence = (document.get("error") or document.get("message")) if isinstance(document, dict) else None
    return sentence[:200] if isinstance(sentence, str) else ""
