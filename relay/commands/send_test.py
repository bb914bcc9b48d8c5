"""`relay send-test`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import click

from relay.chatwoot.test_webhook import EVENTS, EVENTS_OF_CONVERSATIONS, post_test, what_the_agent_does
from relay.commands.common import as_json, connected, database, print_json, run, say, say_source, source_of
from relay.settings import WEBHOOK_PATH, Settings, load_settings
from relay.store import deliveries

if TYPE_CHECKING:
    from collections.abc import Callable

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
@click.option("--wait", "wait_s", type=float, default=120, show_default=True, help="Seconds to follow it, at most.")
@as_json
def command(event: str, conversation: int | None, url: str | None, wait_s: float, *, as_json: bool) -> None:
    """Post a test webhook, signed as Chatwoot signs, and follow the delivery to its end.

    It is marked as a test: its facts count for no rate and no alert, and the agent drafts a reply but posts no note in
    Chatwoot. Only --conversation N asks it to post. Exit 0 if the Agent SDK took it.
    """
    if conversation is not None and event not in EVENTS_OF_CONVERSATIONS:
        raise click.UsageError(f"{event} belongs to no conversation; --conversation goes with the other events.")
    settings = load_settings(relay_url=url)

    async def follow(place: Place) -> int:
        async with connected(place.dsn) as connection:
            source = await source_of(connection, place)
            if not as_json:
                say_source(source, place)
            sent = _Sent(event, conversation, str(uuid4()))
            return await _follow(connection, settings, sent, source, wait_s, as_json=as_json)

    with database(settings, or_demo=True) as place:
        run(follow(place))


@dataclass(frozen=True, slots=True)
class _Sent:
    """The test webhook."""

    event: str
    conversation: int | None
    delivery_id: str


async def _follow(
    connection: Connection, settings: Settings, sent: _Sent, source: Source, wait_s: float, *, as_json: bool
) -> int:
    report: Callable[[str], None] = (lambda _: None) if as_json else say
    delivery_id = sent.delivery_id
    target = settings.own_url_shown + WEBHOOK_PATH
    report(f"posting {sent.event} to {target} as {delivery_id}")
    report(what_the_agent_does(sent.event, sent.conversation))
    status, answer, took_ms = await post_test(settings, sent.event, delivery_id, conversation=sent.conversation)
    report(f"answered {status} after {took_ms} ms: {answer}")
    progress: Progress | None = None
    if status in {200, 202, 500}:
        progress = await _watch(connection, delivery_id, wait_s, report)
    if as_json:
        print_json(
            {
                "database": source.document,
                "deliveryId": delivery_id,
                "conversation": sent.conversation,
                "asksToPost": sent.conversation is not None,
                "url": target,
                "status": status,
                "durationMs": took_ms,
                "answer": answer,
                "state": None if progress is None else progress.state,
                "attempts": [] if progress is None else progress.attempts,
            }
        )
    return 0 if progress is not None and progress.state == "delivered" else 1


async def _watch(
    connection: Connection, delivery_id: str, wait_s: float, report: Callable[[str], None]
) -> Progress | None:
    """Print every step of the delivery as it is recorded, until it is settled or `wait_s` is over."""
    deadline = time.monotonic() + wait_s
    shown_state, shown_attempts = "", 0
    while True:
        progress = await deliveries.progress(connection, delivery_id)
        if progress is None:
            report("not in this database: does the relay use another DATABASE_URL or RELAY_DATA_DIR?")
            return None
        if progress.state != shown_state and not progress.settled:
            shown_state = progress.state
            report(f"stored, {progress.state}")
        for attempt in progress.attempts[shown_attempts:]:
            waited = f" after a wait of {attempt['wait_ms']} ms" if attempt["wait_ms"] else ""
            error = f": {attempt['error']}" if attempt["error"] else ""
            report(f"attempt {attempt['number']}{waited}: {attempt['status']} in {attempt['duration_ms']} ms{error}")
        shown_attempts = len(progress.attempts)
        if progress.settled:
            report(f"{progress.state}" + (f": {progress.last_error}" if progress.last_error else ""))
            return progress
        if time.monotonic() > deadline:
            report(f"still {progress.state} after {wait_s:g} s; the relay continues without this command")
            return progress
        await asyncio.sleep(0.1)
