"""Attempts: posts one delivery to the Agent SDK, by httpx, as often as tenacity and the policy say.

It does not use the store. `domain.retry` says what an answer means, the pipeline what follows from it.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

import aiohttp
import httpx
from aiohttp.http import HttpProcessingError
from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from relay import http_client
from relay.chatwoot.signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from relay.domain.delivery import Attempt, Deferred, Delivery, Outcome, WaitReason
from relay.domain.headers import (
    CONTENT_ENCODING,
    CONTENT_TYPE,
    ORIGIN_HEADER,
    TEST_HEADER,
    first_header,
    is_forwarded,
    test_value,
)
from relay.domain.retry import (
    agent_status,
    answer_excerpt,
    failure_of,
    is_own,
    most_attempts,
    retry_after_ms,
    verdict_of_failure,
    verdict_of_status,
    wait_ms,
    with_agents_error,
)
from relay.domain.trace import TRACEPARENT, attempt_span, receipt_span, trace_of
from relay.forwarding.agent_transport import ANSWER, NO_STREAM, AgentTransport
from relay.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.forwarding.gate import Gate
    from relay.settings import Settings

LONGEST_SLEEP_MS = 2_000
"""A longer wait between attempts is a `waiting` row in Postgres, not a sleeping task (DESIGN, 1.1)."""

_OWN_PAUSE_MS = 1_000
"""The wait after an attempt that the relay itself could not make."""

SENDER = "hotdash-relay"
# what an attempt may fail with: httpx's errors, and those of aiohttp that its transport lets through
_FAILURES = (httpx.HTTPError, httpx.StreamError, aiohttp.ClientError, HttpProcessingError, OSError, ValueError)


class ForwardEvents(Protocol):
    """The events of a delivery's forwarding, for the forwarding log and the metrics."""

    def attempting(self, delivery: Delivery, number: int) -> None:
        """An attempt is about to start."""

    def retrying(self, delivery: Delivery, attempt: Attempt, pause_ms: float) -> None:
        """An attempt failed and another one follows after `pause_ms`."""


class _Client(httpx.AsyncClient):
    """A client that keeps no cookies: no delivery depends on what the answer to another one set."""

    @property  # type: ignore[misc] # it cannot be set, on purpose
    def cookies(self) -> httpx.Cookies:
        """No cookies, ever."""
        return _NO_COOKIES


_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_ID = re.compile(r"[\x21-\x7e]+")


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        """Leave the answer's cookies where they are."""


_NO_COOKIES = _NoCookies()


class Forwarder:
    """Posts deliveries to `{AGENT_SDK_URL}/webhooks/chatwoot` through one shared client.

    The transport is aiohttp's under httpx's interface: about six times the requests a second of
    httpx's own under concurrency (encode/httpx#3215).
    """

    def __init__(
        self,
        settings: Settings,
        events: ForwardEvents,
        gate: Gate,
        *,
        attempted: Callable[[Delivery, Attempt], None] = lambda _delivery, _attempt: None,
        tracing: Tracing | None = None,
    ) -> None:
        endpoint = httpx.URL(settings.agent_endpoint)
        self._endpoint = endpoint.copy_with(userinfo=b"")  # aiohttp refuses credentials in a URL beside httpx's header
        self._host = self._endpoint.netloc.decode()
        self._policy = settings.retry_policy
        self._timeout_ms = settings.agent_sdk_timeout_ms
        self._resign_with = settings.secrets[0] if settings.secrets else None
        self._events = events
        self._gate = gate
        self._attempted = attempted
        self.tracing = tracing or Tracing()
        http_client.certificates()  # read now, so that the first webhook does not wait for it
        self._client = _Client(
            auth=(endpoint.username, endpoint.password) if endpoint.userinfo else None,
            transport=http_client.PolicyTransport(AgentTransport),
            trust_env=False,
            timeout=None,  # see _attempt
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close the connections to the agent."""
        await self._client.aclose()

    async def run(
        self, delivery: Delivery, check_lease: Callable[[], None], *, is_probe: bool = False
    ) -> Outcome | Deferred:
        """One run of the retry loop, or what follows of one: attempts until one succeeds, is final, or must wait.

        A run is deferred if its next attempt is due only after `LONGEST_SLEEP_MS`, or if forwarding is held or the
        breaker open. A probe is one attempt; if it fails in a way that is retried, it does not count. Nor does an
        attempt that this relay could not make: the run is deferred for a second.
        `check_lease` is called before each attempt and raises to end the run without an outcome.

        Raises:
            LeaseLost: from `check_lease`.
        """
        if not is_probe and (shut := self._gate.why_closed(delivery)) is not None:
            return Deferred((), delivery.spent_ms, shut, 0, earlier=delivery.tries)
        attempts: list[Attempt] = []
        pause_ms = float(delivery.paused_ms)
        most = most_attempts(self._policy, delivery.tries)
        closed: WaitReason | None = None
        started = time.perf_counter()

        def next_wait_s(_: RetryCallState) -> float:
            nonlocal pause_ms
            failed = delivery.tries + len(attempts)
            pause_ms = wait_ms(self._policy, failed, attempts[-1].retry_after_ms)
            return pause_ms / 1000

        async def attempt() -> Attempt:
            check_lease()
            number = delivery.tries + len(attempts) + 1
            attempts.append(await self._counted(delivery, number, round(pause_ms)))
            return attempts[-1]

        def must_stop(_: RetryCallState) -> bool:
            nonlocal closed
            closed = self._gate.why_closed(delivery)
            is_last = delivery.tries + len(attempts) >= most
            return is_last or closed is not None or pause_ms > LONGEST_SLEEP_MS

        first = [await attempt()]

        async def first_or_next() -> Attempt:
            nonlocal closed
            if first:
                return first.pop()
            closed = self._gate.why_closed(delivery)
            return await attempt() if closed is None else replace(attempts[-1], retryable=False)

        def spent_ms() -> int:
            return delivery.spent_ms + round((time.perf_counter() - started) * 1000)

        if first[0].retryable and not is_probe:  # most are not, and need no loop
            await AsyncRetrying(
                sleep=asyncio.sleep,
                stop=must_stop,
                wait=next_wait_s,
                retry=retry_if_result(lambda last: last.retryable),
                before_sleep=lambda _: self._events.retrying(delivery, attempts[-1], pause_ms),
                retry_error_callback=lambda _: None,
            )(first_or_next)
        if is_own(attempts[-1].status):
            return self._not_made(delivery, attempts, spent_ms(), is_probe=is_probe)
        self.tracing.attempts(delivery, attempts)
        if is_probe and attempts[-1].retryable:
            return Deferred((), delivery.spent_ms, WaitReason.BREAKER, 0, earlier=delivery.tries)
        if attempts[-1].retryable and delivery.tries + len(attempts) < most:
            return Deferred(tuple(attempts), spent_ms(), closed or WaitReason.RETRY, pause_ms, earlier=delivery.tries)
        return Outcome(tuple(attempts), spent_ms(), earlier=delivery.tries)

    def _not_made(self, delivery: Delivery, attempts: list[Attempt], spent_ms: int, *, is_probe: bool) -> Deferred:
        """Defer a run whose last attempt this relay could not make. The others count."""
        made = attempts[:-1]
        self.tracing.attempts(delivery, made)
        reason = WaitReason.BREAKER if is_probe else WaitReason.RETRY
        return Deferred(tuple(made), spent_ms, reason, _OWN_PAUSE_MS, earlier=delivery.tries)

    async def _counted(self, delivery: Delivery, number: int, waited_ms: int) -> Attempt:
        """One attempt, counted unless this relay could not make it: that one ends the loop."""
        self._events.attempting(delivery, number)
        made = await self._attempt(delivery, number, waited_ms)
        if is_own(made.status):
            self._events.retrying(delivery, made, _OWN_PAUSE_MS)
            return replace(made, retryable=False)
        self._attempted(delivery, made)
        return made

    async def _attempt(self, delivery: Delivery, number: int, waited_ms: int) -> Attempt:
        """One POST. The time-out spans all of it: connecting, sending, and reading the answer."""
        started_at = datetime.now(UTC)
        started = time.perf_counter()
        request = self._request(delivery, number)
        raw, asked_ms = b"", None
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                response = await self._client.send(request, stream=True)
            response.stream = NO_STREAM
            raw = response.extensions[ANSWER]
            verdict = verdict_of_status(response.status_code)
            asked_ms = retry_after_ms(response.headers.get("retry-after"), now=datetime.now(UTC))
        except _FAILURES as error:
            verdict = verdict_of_failure(failure_of(error), timeout_ms=self._timeout_ms)
        return Attempt(
            number=number,
            started_at=started_at,
            wait_ms=waited_ms,
            duration_ms=round((time.perf_counter() - started) * 1000),
            status=verdict.status,
            success=verdict.success,
            retryable=verdict.retryable,
            error=with_agents_error(verdict.error, raw),
            answer=answer_excerpt(raw),
            agent_status=agent_status(raw) if verdict.success else None,
            retry_after_ms=asked_ms,
        )

    def _request(self, delivery: Delivery, number: int) -> httpx.Request:
        """The request of one attempt, complete, so that httpx need not work out what is missing."""
        headers = self._headers(delivery, number)
        request = httpx.Request("POST", self._endpoint, headers=headers, stream=httpx.ByteStream(delivery.sent_body))
        request.read()
        return request

    def _headers(self, delivery: Delivery, number: int) -> list[tuple[str, str]]:
        """The headers of one attempt (DESIGN, 1). Chatwoot's own pass through, its signature included.

        A body that an operator edited no longer fits that signature, and one that backfill made never had one: it is
        signed with the first secret, or goes unsigned if there is none. It goes without the content coding that the
        original had. What another program wrote into the table and no header can carry is left out; such a delivery id
        is percent-encoded.
        `X-Relay-Test` marks a test webhook, and no other one: the header that came in says only whether the draft of
        a test is to be posted.
        """
        passed = [
            (name, value)
            for name, value in delivery.headers
            if is_forwarded(name) and name != DELIVERY_HEADER and _NAME.fullmatch(name) and _VALUE.fullmatch(value)
        ]
        delivery_id = delivery.delivery_id
        if not _ID.fullmatch(delivery_id):
            delivery_id = quote(delivery_id, safe="")
        if delivery.edited or first_header(delivery.headers, ORIGIN_HEADER) is not None:
            passed = [item for item in passed if item[0] not in {SIGNATURE_HEADER, TIMESTAMP_HEADER, CONTENT_ENCODING}]
            if self._resign_with is not None:
                timestamp = str(int(time.time()))
                signature = sign(self._resign_with, timestamp, delivery.body)
                passed += [(TIMESTAMP_HEADER, timestamp), (SIGNATURE_HEADER, signature)]
        if not any(name == CONTENT_TYPE for name, _ in passed):
            passed.append((CONTENT_TYPE, "application/json"))
        return [
            ("host", self._host),
            *passed,
            ("content-length", str(len(delivery.sent_body))),
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
            ("user-agent", SENDER),
            (DELIVERY_HEADER, delivery_id),
            ("idempotency-key", delivery_id),
            ("x-relay-attempt", str(number)),
            (TRACEPARENT, self._traceparent(delivery, number)),
            ("x-forwarded-from", SENDER),
            *([(TEST_HEADER, test_value(delivery.headers))] if delivery.test else []),
        ]

    def _traceparent(self, delivery: Delivery, number: int) -> str:
        """The agent's parent: this attempt where spans are recorded, else the sender's span, else the receipt."""
        trace = trace_of(delivery.delivery_id, delivery.headers)
        if self.tracing.on:
            return trace.traceparent(attempt_span(delivery, number))
        return trace.traceparent(trace.parent or receipt_span(delivery.delivery_id))
