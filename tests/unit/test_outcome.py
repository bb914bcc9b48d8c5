"""What an answer or a failure of the Agent SDK means: DESIGN 3's table, row by row."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.domain.retry import (
    Failure,
    agent_status,
    answer_excerpt,
    failure_of,
    verdict_of_failure,
    verdict_of_status,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

RETRIED = [408, 429, *range(500, 600)]


def read(codes: Iterable[int]) -> dict[int, tuple[str, bool, bool]]:
    """Status, success and whether it is retried, of each code."""
    verdicts = {code: verdict_of_status(code) for code in codes}
    return {code: (verdict.status, verdict.success, verdict.retryable) for code, verdict in verdicts.items()}


def test_any_2xx_is_success() -> None:
    codes = range(200, 300)
    assert read(codes) == {code: (str(code), True, False) for code in codes}
    assert {verdict_of_status(code).error for code in codes} == {None}


def test_5xx_429_and_408_are_retried() -> None:
    assert read(RETRIED) == {code: (str(code), False, True) for code in RETRIED}


def test_other_4xx_and_3xx_are_final() -> None:
    codes = [code for code in range(300, 500) if code not in RETRIED]
    assert read(codes) == {code: (str(code), False, False) for code in codes}


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (Failure.TIMEOUT, "timeout"),
        (Failure.CONNECTION_REFUSED, "connection_refused"),
        (Failure.CONNECTION_RESET, "connection_reset"),
        (Failure.UNREACHABLE, "unreachable"),
        (Failure.DNS_FAILURE, "dns_failure"),
        (Failure.TLS_ERROR, "tls_error"),
        (Failure.PROTOCOL_ERROR, "protocol_error"),
        (Failure.OUT_OF_FILES, "out_of_file_descriptors"),
    ],
)
def test_every_failure_without_an_answer_is_retried(failure: Failure, status: str) -> None:
    verdict = verdict_of_failure(failure, timeout_ms=30_000)
    assert (verdict.status, verdict.success, verdict.retryable) == (status, False, True)


def test_there_is_no_failure_without_a_name_in_the_table() -> None:
    assert len(Failure) == 8


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (503, "Agent SDK answered 503"),
        (408, "Agent SDK answered 408"),
        (429, "Agent SDK is rate limiting (429)"),
        (301, "Agent SDK answered with a redirect (301), which is not followed"),
        (401, "Agent SDK refused the relay's credentials (401)"),
        (403, "Agent SDK refused the relay's credentials (403)"),
        (422, "Agent SDK refused the payload (422)"),
    ],
)
def test_an_error_is_a_sentence_that_groups(code: int, sentence: str) -> None:
    assert verdict_of_status(code).error == sentence


def test_the_only_numbers_in_an_error_are_the_status_and_the_limit() -> None:
    assert verdict_of_failure(Failure.TIMEOUT, timeout_ms=1_500).error == "Agent SDK did not answer within 1.5 s"
    others = [verdict_of_failure(failure, timeout_ms=1).error for failure in Failure if failure is not Failure.TIMEOUT]
    assert len(set(others)) == len(Failure) - 1
    assert not any(re.search(r"\d", error or "0") for error in others)


def _caused(cause: BaseException) -> httpx.TransportError:
    """`cause` as it comes out of the HTTP client."""
    error = httpx.ConnectError("connecting failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "failure"),
    [
        (OSError(errno.ECONNREFUSED, "refused"), Failure.CONNECTION_REFUSED),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Failure.CONNECTION_REFUSED),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Failure.CONNECTION_RESET),
        (BrokenPipeError(errno.EPIPE, "broken pipe"), Failure.CONNECTION_RESET),
        (OSError(errno.ECONNABORTED, "aborted"), Failure.CONNECTION_RESET),
        (ConnectionResetError("Cannot write to closing transport"), Failure.CONNECTION_RESET),
        (OSError(errno.EHOSTUNREACH, "no route"), Failure.UNREACHABLE),
        (OSError(errno.ENETUNREACH, "no network"), Failure.UNREACHABLE),
        (OSError(errno.EADDRNOTAVAIL, "no port left"), Failure.UNREACHABLE),
        (OSError(errno.EMFILE, "too many open files"), Failure.OUT_OF_FILES),
        (OSError(errno.ETIMEDOUT, "timed out"), Failure.TIMEOUT),
        (TimeoutError(), Failure.TIMEOUT),
        (socket.gaierror(socket.EAI_NONAME, "unknown name"), Failure.DNS_FAILURE),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), Failure.DNS_FAILURE),
        (ssl.SSLError(1, "wrong version number"), Failure.TLS_ERROR),
        (ssl.SSLCertVerificationError(1, "self-signed certificate"), Failure.TLS_ERROR),
    ],
)
def test_a_failure_is_read_from_what_caused_it(cause: BaseException, failure: Failure) -> None:
    assert failure_of(cause) is failure
    assert failure_of(_caused(cause)) is failure
    assert failure_of(_caused(_caused(cause))) is failure


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (httpx.ReadTimeout(""), Failure.TIMEOUT),
        (httpx.ConnectTimeout(""), Failure.TIMEOUT),
        (httpx.RemoteProtocolError("not HTTP"), Failure.PROTOCOL_ERROR),
        (httpx.ConnectError("all attempts failed"), Failure.UNREACHABLE),
        (ValueError("a length that is no number"), Failure.PROTOCOL_ERROR),
    ],
)
def test_a_failure_without_a_cause_is_what_the_client_calls_it(error: Exception, failure: Failure) -> None:
    assert failure_of(error) is failure


def test_causes_that_go_round_in_a_circle_are_read_once() -> None:
    error, cause = httpx.ConnectError("a"), OSError(errno.ECONNREFUSED, "b")
    error.__cause__, cause.__cause__ = cause, error
    assert failure_of(error) is Failure.CONNECTION_REFUSED


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b'{"status": "draft_ready"}', "draft_ready"),
        (b' \n{"status": "ok", "conversation_id": 7}', "ok"),
        (b'{"status": "' + b"x" * 500 + b'"}', "x" * 200),
        (b'{"status": "a\\u0000b"}', "a\N{REPLACEMENT CHARACTER}b"),
        (b'{"status": 200}', None),
        (b'{"status": null}', None),
        (b'{"other": 1}', None),
        (b'["status"]', None),
        (b'"status"', None),
        (b'{"status": "cut of', None),
        (b"<html>status</html>", None),
        (b"", None),
        (b'{"a":' * 100_000, None),
        (b'{"status": "\xff"}', None),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_the_agents_status_is_the_text_under_status_in_its_json(raw: bytes, status: str | None) -> None:
    assert agent_status(raw) == status


@given(st.binary(max_size=300) | st.binary(max_size=20).map(lambda raw: raw * 1_000))
def test_an_excerpt_of_any_answer_is_text_that_postgres_can_hold(raw: bytes) -> None:
    excerpt = answer_excerpt(raw)
    assert "\0" not in excerpt
    assert len(excerpt) <= 2_000
    assert len(excerpt.encode()) > 0 or not raw


def test_an_excerpt_is_the_beginning_of_the_answer() -> None:
    assert answer_excerpt("é".encode() * 3_000) == "é" * 2_000
