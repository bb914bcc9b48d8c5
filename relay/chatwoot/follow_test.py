"""Posts a test webhook and follows its delivery to the end, for `relay send-test` and the console alike.

Progress comes from the delivery's row in Postgres. Attempts appear there once the run has ended. Callers render the
steps; this module prints nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from relay.chatwoot.test_webhook import post_test
from relay.errors import RelayError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from relay.domain.delivery import State
    from relay.settings import Settings
    from relay.store.deliveries import Progress

FOLLOW_S = 120.0
"""Seconds for which a delivery is followed unless the caller says otherwise."""

_READ_EVERY_S = 0.1
_POST_WITHIN_S = 5
_STORED_BY = frozenset({200, 202, 500})
"""Statuses with which a relay answers for a webhook that it has stored."""


@dataclass(frozen=True, slots=True)
class TestWebhook:
    """A test webhook to be posted. With a `conversation` it asks the agent to post its draft there."""

    event: str
    conversation: int | None
    delivery_id: str

    @staticmethod
    def of(event: str, conversation: int | None = None) -> TestWebhook:
        """A test webhook with a delivery id of its own."""
        return TestWebhook(event, conversation, str(uuid4()))


@dataclass(frozen=True, slots=True)
class Pending:
    """The delivery is not settled after `seconds`. `state` is None until it is stored. Comes with every read."""

    state: State | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The relay's answer: status, JSON document or text, and duration in ms."""

    status: int
    body: Any
    took_ms: int

    @property
    def is_stored(self) -> bool:
        """True if the relay stored the webhook and forwards it."""
        return self.status in _STORED_BY and not (isinstance(self.body, dict) and "ignored" in self.body)


@dataclass(frozen=True, slots=True)
class Ended:
    """The delivery is settled, or its time is over (`progress.settled` is False)."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class NotFound:
    """The relay has stored the webhook, but not in the database that is read."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The progress cannot be read, for the reason `why`. The relay's answer follows."""

    why: str


def attempt_line(attempt: Mapping[str, Any]) -> str:
    """One attempt of `Progress.attempts` as text."""
    waited = f" after a wait of {attempt['wait_ms']} ms" if attempt["wait_ms"] else ""
    error = f": {attempt['error']}" if attempt["error"] else ""
    return f"attempt {attempt['number']}{waited}: {attempt['status']} in {attempt['duration_ms']} ms{error}"


Step = Pending | Answered | Ended | NotFound | Unreadable


async def follow(
    settings: Settings,
    test: TestWebhook,
    read: Callable[[str], Awaitable[Progress | None]],
    *,
    wait_s: float = FOLLOW_S,
) -> AsyncGenerator[Step]:
    """Post `test` and yield what happens to it, until it is settled or `wait_s` seconds are over.

    `read` returns the progress of a delivery by its id. The answer comes before the end, because a relay may answer
    first or last. A caller that leaves early waits up to five seconds, so that the webhook is posted all the same.

    Raises:
        RelayError: no relay answers.
    """
    began = time.monotonic()
    posting = asyncio.create_task(post_test(settings, test.event, test.delivery_id, conversation=test.conversation))
    progress: Progress | None = None
    answer: Answered | None = None
    is_readable = True
    try:
        while answer is None or is_readable:
            has_answered = posting.done()  # noted before the row is read: what was answered for is stored by then
            if is_readable:
                try:
                    progress = await read(test.delivery_id)
                except RelayError as error:
                    is_readable = False
                    yield Unreadable(str(error))
            if has_answered and answer is None:
                answer = Answered(*posting.result())
                yield answer
                if not answer.is_stored:
                    return
            if answer is not None and is_readable:
                if progress is None:
                    yield NotFound()
                    return
                if progress.settled or time.monotonic() - began > wait_s:
                    yield Ended(progress)
                    return
            yield Pending(progress.state if progress is not None else None, time.monotonic() - began)
            await asyncio.sleep(_READ_EVERY_S)
    except GeneratorExit:
        await asyncio.wait((posting,), timeout=_POST_WITHIN_S)
        raise
    finally:
        posting.cancel()  # the relay continues with it
