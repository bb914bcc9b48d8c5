"""`relay send-test`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from relay.chatwoot.follow_test import (
    FOLLOW_S,
    Answered,
    Ended,
    NotFound,
    TestWebhook,
    Unreadable,
    attempt_line,
    follow,
)
from relay.chatwoot.test_webhook import EVENTS, EVENTS_OF_CONVERSATIONS, what_the_agent_does
from relay.commands.common import Finite, as_json, connected, database, print_json, run, say, say_source, source_of
from relay.domain.delivery import State
from relay.settings import WEBHOOK_PATH, Settings, load_settings
from relay.store import deliveries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.chatwoot.follow_test import Step
    from relay.commands.common import Source
    from relay.store.database import Connection
    from relay.store.databases import Place
    from relay.store.deliveries import Progress


@click.command("send-test")
@click.option("--event", type=click.Choice(EVENTS), default=EVENTS[0], show_default=True, help="Chatwoot's event.")
@click.option(
    "--conversation", type=click.IntRange(1, 2**63 - 1), metavar="N",
    help="Send it for conversation N of Chatwoot, and ask the agent to post its draft there as a private note. "
    "Without this nothing is posted.",
)  # fmt: skip
@click.option("--url", help="The relay's address (RELAY_URL; default: where RELAY_BIND says).")
@click.option(
    "--wait", "wait_s", type=Finite(0), default=FOLLOW_S, show_default=True, help="Seconds to follow it, at most."
)
@as_json
def command(event: str, conversation: int | None, url: str | None, wait_s: float, *, as_json: bool) -> None:
    """Post a test webhook, signed as Chatwoot signs, and follow the delivery to its end.

    It is marked as a test: its facts count for no rate and no alert, and the agent drafts a reply but posts no note in
    Chatwoot. Only --conversation N asks it to post. Exit 0 if the Agent SDK took it.
    """
    if conversation is not None and event not in EVENTS_OF_CONVERSATIONS:
        raise click.UsageError(f"{event} belongs to no conversation; --conversation goes with the other events.")
    settings = load_settings(relay_url=url)

    async def post(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            if not as_json:
                say_source(source, place)
            test = TestWebhook.of(event, conversation)
            return await _follow(connection, settings, test, source, wait_s, as_json=as_json)

    with database(settings, or_demo=True) as place:
        run(post(place))


async def _follow(
    connection: Connection, settings: Settings, test: TestWebhook, source: Source, wait_s: float, *, as_json: bool
) -> int:
    report: Callable[[str], None] = (lambda _: None) if as_json else say
    target = settings.own_url_shown + WEBHOOK_PATH
    report(f"posting {test.event} to {target} as {test.delivery_id}")
    report(what_the_agent_does(test.event, test.conversation))
    answer: Answered | None = None
    progress: Progress | None = None

    async def read(delivery_id: str) -> Progress | None:
        return await deliveries.progress(connection, delivery_id)

    async for step in follow(settings, test, read, wait_s=wait_s):
        for line in _lines(step, wait_s):
            report(line)
        answer = step if isinstance(step, Answered) else answer
        progress = step.progress if isinstance(step, Ended) else progress
    assert answer is not None
    if as_json:
        print_json(
            {
                "database": source.document,
                "delivery_id": test.delivery_id,
                "conversation": test.conversation,
                "asks_to_post": test.conversation is not None,
                "url": target,
                "status": answer.status,
                "duration_ms": answer.took_ms,
                "answer": answer.body,
                "state": None if progress is None else progress.state,
                "attempts": [] if progress is None else [_attempt(attempt) for attempt in progress.attempts],
            }
        )
    return 0 if progress is not None and progress.state is State.DELIVERED else 1


def _attempt(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {**columns, "started_at": datetime.fromisoformat(columns["started_at"])}


def _lines(step: Step, wait_s: float) -> list[str]:
    """A step of the delivery as lines of text."""
    match step:
        case Answered(status, body, took_ms):
            return [f"answered {status} after {took_ms} ms: {body}"]
        case NotFound():
            return ["not in this database: does the relay use another DATABASE_URL or RELAY_DATA_DIR?"]
        case Unreadable(why):
            return [why]
        case Ended(progress) if progress.settled:
            end = f"{progress.state}: {progress.last_error}" if progress.last_error else str(progress.state)
            return [*map(attempt_line, progress.attempts), end]
        case Ended(progress):
            return [
                *map(attempt_line, progress.attempts),
                f"still {progress.state} after {wait_s:g} s; the relay continues without this command",
            ]
        case _:
            return []
