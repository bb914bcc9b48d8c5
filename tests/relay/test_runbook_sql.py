"""The runbook's SQL, verbatim, on the facts of real deliveries: it runs, and its numbers are true."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.runbook.sql import (
    AVERAGE_RESPONSE_TIME,
    DEAD_LETTER_QUEUE,
    DLQ_SIZE,
    FAILED_PAYLOADS,
    FAILURE_REASONS,
    RECENT_ACTIVITY,
    RECENT_DLQ_ENTRIES,
    RETRY_METRICS,
    SUCCESS_RATE,
)
from tests.servers import AgentStandIn, Behaviour, Rows, RunningRelay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

# what the agent does with each delivery, and so what comes of it: attempts, success, final status
HISTORY: list[tuple[list[int], tuple[int, bool, str]]] = [
    ([200], (1, True, "200")),
    ([200], (1, True, "200")),
    ([503, 200], (2, True, "200")),
    ([500, 429, 202], (3, True, "202")),
    ([503, 503, 503], (3, False, "503")),
    ([500, 502, 503], (3, False, "503")),
    ([429, 429, 429], (3, False, "429")),
    ([422], (1, False, "422")),
    ([503, 422], (2, False, "422")),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def durations(shared_relay: RunningRelay, shared_agent: AgentStandIn) -> AsyncIterator[list[int]]:
    """The history has happened; yields how long the relay says each delivery took, in ms."""
    taken = []
    for number, (statuses, _) in enumerate(HISTORY):
        shared_agent.behave(*(Behaviour(status=status, times=1) for status in statuses))
        answer = await shared_relay.post({"event": "message_created", "id": number, "price": 1.50})
        taken.append(answer.json()["duration_ms"])
    yield taken


def failed() -> list[tuple[int, tuple[int, bool, str]]]:
    """Number and outcome of the deliveries that failed, newest first."""
    return [(number, came) for number, (_, came) in enumerate(HISTORY) if not came[1]][::-1]


async def test_retry_metrics(shared_rows: Rows, durations: list[int]) -> None:
    expected: list[Any] = [
        (str(attempts), str(success).lower(), str(duration_ms), status)
        for (_, (attempts, success, status)), duration_ms in zip(HISTORY, durations, strict=True)
    ]
    assert shared_rows(RETRY_METRICS) == expected[::-1]


async def test_dead_letter_queue(shared_rows: Rows) -> None:
    queue = shared_rows(DEAD_LETTER_QUEUE)
    assert [(payload["id"], int(attempts)) for payload, attempts, _, _ in queue] == [
        (number, attempts) for number, (attempts, _, _) in failed()
    ]
    assert all(payload == {"event": "message_created", "id": payload["id"], "price": 1.5} for payload, *_ in queue)
    assert all(datetime.fromisoformat(failed_at).tzinfo is not None for *_, failed_at in queue)


async def test_recent_activity(shared_rows: Rows) -> None:
    attempts = [came[0] for _, came in HISTORY]
    total, successful, average = shared_rows.one(RECENT_ACTIVITY)
    assert (total, successful) == (9, 4)
    assert float(average) == pytest.approx(sum(attempts) / len(attempts))


async def test_failure_reasons(shared_rows: Rows) -> None:
    assert dict(shared_rows(FAILURE_REASONS)) == {"503": 2, "429": 1, "422": 2}


async def test_recent_dead_letters_group_by_their_error(shared_rows: Rows) -> None:
    entries = shared_rows(RECENT_DLQ_ENTRIES)
    assert dict(entries) == {
        "Agent SDK answered 503": 2, "Agent SDK refused the payload (422)": 2, "Agent SDK is rate limiting (429)": 1,
    }  # fmt: skip
    assert [count for _, count in entries] == [2, 2, 1]


async def test_failed_payloads_can_be_extracted(shared_rows: Rows) -> None:
    assert [payload["id"] for payload in shared_rows(FAILED_PAYLOADS)] == [number for number, _ in failed()]


async def test_success_rate(shared_rows: Rows) -> None:
    assert shared_rows.one(SUCCESS_RATE) == Decimal("44.44")


async def test_average_response_time(shared_rows: Rows, durations: list[int]) -> None:
    taken = [ms for (_, (_, success, _)), ms in zip(HISTORY, durations, strict=True) if success]
    assert abs(float(shared_rows.one(AVERAGE_RESPONSE_TIME)) - sum(taken) / len(taken)) <= 0.5


async def test_dlq_size(shared_rows: Rows) -> None:
    assert shared_rows.one(DLQ_SIZE) == 5
