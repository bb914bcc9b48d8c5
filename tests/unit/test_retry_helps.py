"""What a retry helps is one thing, for the relay that retries and for whoever offers a replay."""

from __future__ import annotations

import pytest

from relay.figures import retry_helps
from relay.outcome import RETRIED_4XX, Failure


@pytest.mark.parametrize("status", ["500", "503", "599", *map(str, RETRIED_4XX), *Failure])
def test_a_retry_helps_what_the_relay_retries(status: str) -> None:
    assert retry_helps(status)


@pytest.mark.parametrize(
    "status", ["", "200", "302", *(str(code) for code in range(400, 500) if code not in RETRIED_4XX)]
)
def test_no_retry_helps_a_refusal(status: str) -> None:
    assert not retry_helps(status)
