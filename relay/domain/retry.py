"""What an answer or a failure of the Agent SDK means, and how long to wait then. Pure: values in, values out.

RUNBOOK, "Retry Policy" and "Retryable Conditions"; DESIGN, 3, for the table of outcomes.
"""

from __future__ import annotations

import errno
import json
import random
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

RETRIED_4XX = frozenset({408, 429})
ANSWER_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long apart a delivery is attempted (RUNBOOK, Retry Policy).

    `max_attempts` counts the first one. Delays are in milliseconds; `factor` multiplies each delay
    into the next; `jitter` (0 to 1) is the share of a delay by which it may be longer or shorter.
    """

    max_attempts: int = 3
    base_delay_ms: float = 200
    factor: float = 2
    max_delay_ms: float = 30_000
    jitter: float = 0


class Failure(StrEnum):
    """The final status of an attempt that got no HTTP status (DESIGN, 3). All of them are retried."""

    TIMEOUT = "timeout"
    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_RESET = "connection_reset"
    UNREACHABLE = "unreachable"
    DNS_FAILURE = "dns_failure"
    TLS_ERROR = "tls_error"
    PROTOCOL_ERROR = "protocol_error"


_SENTENCES = {
    Failure.CONNECTION_REFUSED: "Agent SDK refused the connection",
    Failure.CONNECTION_RESET: "Agent SDK dropped the connection before its answer was complete",
    Failure.UNREACHABLE: "Agent SDK's host is unreachable",
    Failure.DNS_FAILURE: "Agent SDK's host name does not resolve",
    Failure.TLS_ERROR: "The TLS handshake with the Agent SDK failed",
    Failure.PROTOCOL_ERROR: "Agent SDK's answer was not valid HTTP",
}

_ERRNO_FAILURES = {
    errno.ECONNREFUSED: Failure.CONNECTION_REFUSED,
    errno.ECONNRESET: Failure.CONNECTION_RESET,
    errno.ECONNABORTED: Failure.CONNECTION_RESET,
    errno.EPIPE: Failure.CONNECTION_RESET,
    errno.ENETUNREACH: Failure.UNREACHABLE,
    errno.EHOSTUNREACH: Failure.UNREACHABLE,
    errno.ENETDOWN: Failure.UNREACHABLE,
    errno.EHOSTDOWN: Failure.UNREACHABLE,
    errno.EADDRNOTAVAIL: Failure.UNREACHABLE,
    errno.ETIMEDOUT: Failure.TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one answer means: success, worth another try, or neither. `error` is None on success."""

    status: str
    success: bool
    retryable: bool
    error: str | None


def verdict_of_status(code: int) -> Verdict:
    """The verdict on an HTTP answer: 2xx succeeds; 5xx, 429 and 408 are retried; the rest is final."""
    status = str(code)
    if 200 <= code < 300:
        return Verdict(status, success=True, retryable=False, error=None)
    retryable = code >= 500 or code in RETRIED_4XX
    if code == 429:
        error = "Agent SDK is rate limiting (429)"
    elif retryable:
        error = f"Agent SDK answered {code}"
    elif 300 <= code < 400:
        error = f"Agent SDK answered with a redirect ({code}), which is not followed"
    elif code in {401, 403}:
        error = f"Agent SDK refused the relay's credentials ({code})"
    else:
        error = f"Agent SDK refused the payload ({code})"
    return Verdict(status, success=False, retryable=retryable, error=error)


def verdict_of_failure(failure: Failure, *, timeout_ms: int) -> Verdict:
    """The verdict on an attempt that got no answer. `timeout_ms` is the limit that a time-out hit."""
    if failure is Failure.TIMEOUT:
        error = f"Agent SDK did not answer within {timeout_ms / 1000:g} s"
    else:
        error = _SENTENCES[failure]
    return Verdict(failure.value, success=False, retryable=True, error=error)


def failure_of(error: BaseException) -> Failure:
    """Which failure an exception of the HTTP client stands for, read from its whole chain of causes."""
    chain = list(_causes(error))
    names = {cls.__name__ for link in chain for cls in type(link).__mro__}
    for link in chain:
        if isinstance(link, ssl.SSLError):
            return Failure.TLS_ERROR
        if isinstance(link, socket.gaierror):
            return Failure.DNS_FAILURE
        if isinstance(link, OSError) and link.errno in _ERRNO_FAILURES:
            return _ERRNO_FAILURES[link.errno]
    # The classes of aiohttp and httpx by name, so that the domain imports no HTTP client.
    if "ClientConnectorDNSError" in names:
        return Failure.DNS_FAILURE
    if names & {"ClientSSLError", "ServerFingerprintMismatch"}:
        return Failure.TLS_ERROR
    if names & {"ServerDisconnectedError", "ConnectionError", "ClientPayloadError"}:
        return Failure.CONNECTION_RESET
    if names & {"ClientResponseError", "HttpProcessingError", "RemoteProtocolError"}:
        return Failure.PROTOCOL_ERROR
    if "TimeoutError" in names or "TimeoutException" in names:
        return Failure.TIMEOUT
    if any(cls.__name__ == "ConnectError" for cls in type(error).__mro__) or any(
        isinstance(link, OSError) for link in chain
    ):
        return Failure.UNREACHABLE
    return Failure.PROTOCOL_ERROR


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it was raised from, what that was raised from, and their wrapped OS errors."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        pending += [link.__cause__, link.__context__, getattr(link, "os_error", None)]


def retry_after_ms(value: str | None, *, now: datetime) -> float | None:
    """Milliseconds that a `Retry-After` header asks for: seconds or an HTTP date (RFC 9110, 10.2.3).

    None if there is no such header or it makes no sense; 0 for a date that has passed.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12]) * 1000
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds() * 1000)


def wait_ms(policy: RetryPolicy, failed_attempts: int, asked_ms: float | None) -> float:
    """The pause before the next attempt, after `failed_attempts` of them (RUNBOOK, Retry Behavior).

    `base * factor ** (failed_attempts - 1)`, spread by the jitter; a longer `Retry-After` (`asked_ms`)
    replaces it. Never more than the policy's `max_delay_ms`.
    """
    try:
        backoff = policy.base_delay_ms * policy.factor ** (failed_attempts - 1)
    except OverflowError:
        backoff = policy.max_delay_ms
    if policy.jitter:
        backoff *= random.uniform(1 - policy.jitter, 1 + policy.jitter)  # noqa: S311 - spreads load, hides nothing
    return min(max(backoff, asked_ms or 0), policy.max_delay_ms)


def most_attempts(policy: RetryPolicy, made: int) -> int:
    """The number of the last attempt of a run of which `made` attempts were made before it had to wait.

    A run that had used up its attempts and waited for the circuit breaker gets as many again.
    """
    return policy.max_attempts * (1 + made // policy.max_attempts)


def answer_excerpt(raw: bytes) -> str:
    """The beginning of an answer as text that Postgres can hold: UTF-8, NUL and bad bytes replaced."""
    text = raw[: ANSWER_CHARS * 4].decode("utf-8", "replace")[:ANSWER_CHARS]
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def agent_status(raw: bytes) -> str | None:
    """The text under `status` in the agent's JSON answer, if it is such an answer (DESIGN, 2)."""
    if not raw.lstrip().startswith(b"{"):
        return None
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    status = answer.get("status") if isinstance(answer, dict) else None
    return answer_excerpt(status[:200].encode("utf-8", "replace")) if isinstance(status, str) else None
