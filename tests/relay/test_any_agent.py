"""Whatever the agent does, in whatever order, to however many deliveries at once: one outcome each, and true facts."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.demo.agent import Mode
from tests.relay.traces import seen_of, trace
from tests.servers import AgentStandIn, Behaviour, Rows, RunningRelay

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST = 3
RETRIED = {"500", "502", "503", "504", "507", "429", "408", "connection_reset", "protocol_error"}
_MODES = {Mode.RESET: "connection_reset", Mode.RESET_DURING: "connection_reset", Mode.GARBAGE: "protocol_error"}
_STATUSES = [200, 200, 201, 204, 301, 307, 400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504, 507]

BEHAVIOURS = st.builds(Behaviour, status=st.sampled_from(_STATUSES), delay_ms=st.sampled_from([0, 0, 5])) | st.builds(
    Behaviour, mode=st.sampled_from(list(_MODES))
)
SCRIPTS = st.lists(BEHAVIOURS, min_size=MOST, max_size=MOST)
_conversations = count(1)


def status_of(behaviour: Behaviour) -> str:
    """What the documents call the outcome of an attempt that the agent treats so."""
    return _MODES.get(behaviour.mode, str(behaviour.status))


def attempts_made(script: list[Behaviour]) -> list[str]:
    """The statuses of the attempts that the documents ask for, if the agent behaves as scripted."""
    statuses = [status_of(behaviour) for behaviour in script]
    decided = next((n for n, status in enumerate(statuses, 1) if status not in RETRIED), MOST)
    return statuses[:decided]


@given(st.lists(SCRIPTS, min_size=1, max_size=6))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_every_delivery_ends_once_as_the_agent_saw_it(
    shared_relay: RunningRelay, shared_agent: AgentStandIn, shared_rows: Rows, scripts: list[list[Behaviour]]
) -> None:
    conversations = {next(_conversations): script for script in scripts}
    shared_agent.behave(*(
        replace(step, times=1, conversations=frozenset({number}))
        for number, script in conversations.items() for step in script
    ))  # fmt: skip
    shared_agent.seen = deque(maxlen=1_000)
    answers = await asyncio.gather(*(
        shared_relay.post({"event": "message_created", "conversation": {"id": number}}) for number in conversations
    ))  # fmt: skip
    for answer, script in zip(answers, scripts, strict=True):
        assert_true(answer.status_code, answer.json(), attempts_made(script), shared_agent, shared_rows)


def assert_true(status: int, document: dict[str, Any], made: list[str], agent: AgentStandIn, rows: Rows) -> None:
    """The sender's answer, the row, the attempts, the facts and the agent's own view all agree."""
    success = made[-1].startswith("2")
    left = trace(rows, document["delivery_id"])
    assert (status, document["attempts"]) == (200 if success else 500, len(made))
    assert document.get("retryable", False) is (made[-1] in RETRIED)
    assert (left.state, left.run, left.final_status) == ("delivered" if success else "dead", 1, made[-1])
    assert [tried.status for tried in left.tried] == made
    assert [seen.attempt for seen in seen_of(agent, document["delivery_id"])] == [str(n + 1) for n in range(len(made))]
    ((retry, _),) = left.retries
    assert (retry["attempts"], retry["success"], retry["finalStatus"]) == (len(made), success, made[-1])
    assert [letter["finalStatus"] for letter, _ in left.dead_letters] == ([] if success else [made[-1]])
