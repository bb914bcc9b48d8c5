"""Which failures a retry can help is one rule, for the relay's retries and for replays."""

from __future__ import annotations

from relay.domain.retry import RETRIED_4XX, Failure, retry_helps


def test_a_retry_helps_what_the_relay_retries() -> None:
    retried = ["500", "503", "599", *map(str, RETRIED_4XX), *Failure]
    assert [status for status in retried if not retry_helps(status)] == []


def test_no_retry_helps_a_refusal() -> None:
    refused = ["", "200", "302", *(str(code) for code in range(400, 500) if code not in RETRIED_4XX)]
    assert [status for status in refused if retry_helps(status)] == []


def test_a_status_that_another_application_wrote_is_no_number_unless_it_is_one() -> None:
    for status in ("\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT FIVE}" * 3, "5" * 100, "-1", "1e3"):
        assert retry_helps(status), status
