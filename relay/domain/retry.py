"""Classifies the Agent SDK's answers and failures, and computes the wait before the next attempt. No I/O.

RUNBOOK, "Retry Policy" and "Retryable Conditions"; DESIGN, 3, for the table of outcomes.
"""

from __future__ import annotations

import errno
import json
import random
import re
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from relay.text import without_secrets

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
    """The final status of an attempt that got no HTTP status (DESIGN, 3). All of them are retried.

    `OUT_OF_FILES` is the relay's own: no request was made, so that the attempt does not count (`is_own`).
    """

    TIMEOUT = "timeout"
    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_RESET = "connection_reset"
    UNREACHABLE = "unreachable"
    DNS_FAILURE = "dns_failure"
    TLS_ERROR = "tls_error"
    PROTOCOL_ERROR = "protocol_error"
    OUT_OF_FILES = "out_of_file_descriptors"


@dataclass(frozen=True, slots=True)
class _Text:
    """How a failure is written: `sentence` as the error of an attempt, `brief` where that has no room.

    `short` is for narrow columns and filters, `cause` for a diagnosis.
    """

    short: str
    sentence: str
    brief: str
    cause: str


_TEXTS: dict[str, _Text] = {
    Failure.CONNECTION_REFUSED: _Text(
        "refused", "Agent SDK refused the connection", "refused connection",
        "The Agent SDK is down: it refuses connections",
    ),
    Failure.CONNECTION_RESET: _Text(
        "reset", "Agent SDK dropped the connection before its answer was complete", "dropped the connection",
        "The Agent SDK drops connections",
    ),
    Failure.UNREACHABLE: _Text(
        "no-host", "Agent SDK's host is unreachable", "host is unreachable", "The Agent SDK's host is unreachable"
    ),
    Failure.DNS_FAILURE: _Text(
        "dns", "Agent SDK's host name does not resolve", "host does not resolve",
        "The Agent SDK's host name does not resolve",
    ),
    Failure.TLS_ERROR: _Text(
        "tls", "The TLS handshake with the Agent SDK failed", "TLS handshake failed",
        "The TLS handshake with the Agent SDK fails",
    ),
    Failure.PROTOCOL_ERROR: _Text(
        "no-http", "Agent SDK's answer was not valid HTTP", "answer is no HTTP",
        "The Agent SDK's answers are not valid HTTP",
    ),
    Failure.OUT_OF_FILES: _Text(
        "no-fds", "The relay is out of file descriptors; raise its limit of open files", "relay is out of files",
        "The relay is out of file descriptors",
    ),
}  # fmt: skip
BRIEF_ERRORS = {text.sentence: text.brief for text in _TEXTS.values()}
"""The errors of attempts that got no answer, and what a column without room for one has in its place."""

_BY_SHORT = {text.short: status for status, text in _TEXTS.items()}
_CAUSES = {"429": "The Agent SDK is rate limiting", Failure.TIMEOUT: "The Agent SDK does not answer in time"}
_CAUSES |= {status: text.cause for status, text in _TEXTS.items()}


def cause_of(status: str) -> str:
    """What the Agent SDK does while attempts end with `status`, as a sentence without its full stop."""
    return f"{_CAUSES[status]} ({status})" if status in _CAUSES else f"The Agent SDK answers {status}"


def short_status(status: str) -> str:
    """`status` as narrow columns show it: `refused` for `connection_refused`; all others as they are."""
    text = _TEXTS.get(status)
    return status if text is None else text.short


def long_status(status: str) -> str:
    """The status that `short_status` shortened; a status that it leaves as it is."""
    return _BY_SHORT.get(status, status)


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
    errno.EMFILE: Failure.OUT_OF_FILES,
    errno.ENFILE: Failure.OUT_OF_FILES,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one answer means. `retryable` says whether another attempt may succeed. `error` is None on success."""

    status: str
    success: bool
    retryable: bool
    error: str | None


def retry_helps(status: str) -> bool:
    """True if a delivery with this final status may succeed when it is sent again (DESIGN, 3).

    A rejection (any other 4xx, a redirect) is the same however often the same payload is sent.
    """
    if status.isascii() and status.isdigit():  # other applications write facts too: "²" is a digit and no int
        return int(status) >= 500 or int(status) in RETRIED_4XX
    return bool(status)


def is_own(status: str) -> bool:
    """True if an attempt with this status failed in the relay itself, before it reached the agent."""
    return status == Failure.OUT_OF_FILES


def verdict_of_status(code: int) -> Verdict:
    """The verdict on an HTTP answer: 2xx succeeds; 5xx, 429 and 408 are retried; the rest is final."""
    status = str(code)
    if 200 <= code < 300:
        return Verdict(status, success=True, retryable=False, error=None)
    retryable = retry_helps(status)
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
        error = _TEXTS[failure].sentence
    return Verdict(failure.value, success=False, retryable=True, error=error)


def failure_of(error: BaseException) -> Failure:
    """Classifies an exception of the HTTP client by its whole chain of causes."""
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
    """`error`, its causes and contexts, and the OS errors that they wrap."""
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

    None if the header is missing or invalid; 0 for a date in the past.
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
    """The beginning of an answer as text that Postgres can hold: UTF-8, NUL and bad bytes replaced, no credentials."""
    text = without_secrets(raw[: ANSWER_CHARS * 4].decode("utf-8", "replace"))[:ANSWER_CHARS]
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


_VARYING = (
    re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F-]{13,27}\b"),  # UUIDs
    re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ][\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?"),  # dates and times
    re.compile(r"\b\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?\b"),
    re.compile(
        r"(?i)(?<=\b)((?:account|contact|conversation|delivery|id|inbox|message|note|request|user)s?[ :=#]+)\d+"
    ),
    re.compile(r"#\d+"),
    re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,}\b"),  # hashes
    re.compile(r"\b\d{4,}\b"),
)
_AGENT_ERROR_CHARS = 160


SAID = ": "
"""Between the relay's own sentence, which holds none, and what the agent said."""


def with_agents_error(error: str | None, raw: bytes) -> str | None:
    """`error`, and after a colon the `error` of the agent's JSON answer if it is a short text (DESIGN, 3).

    Ids, times and long numbers in it become `…`, so that failures of one cause have one sentence.
    """
    if error is None or not raw.lstrip().startswith(b"{"):
        return error
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        return error
    reason = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(reason, str) or not (reason := " ".join(reason.split()).rstrip(".")):
        return error
    reason = without_secrets(reason[: 2 * ANSWER_CHARS])
    for pattern in _VARYING:
        reason = pattern.sub(lambda found: (found.group(1) if found.re.groups else "") + "…", reason)
    reason = answer_excerpt(reason.encode("utf-8", "replace"))
    return f"{error}{SAID}{reason[:_AGENT_ERROR_CHARS]}{'…' if len(reason) > _AGENT_ERROR_CHARS else ''}"


def without_agents_error(error: str | None) -> str | None:
    """The relay's own part of what `with_agents_error` gave, for logs, traces, the breaker and notifications.

    An agent may repeat what a customer wrote.
    """
    return None if error is None else error.partition(SAID)[0]


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
