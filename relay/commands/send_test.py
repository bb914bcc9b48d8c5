"""`relay send-test`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from relay.commands.common import as_json, connected, database, print_json, run
from relay.settings import WEBHOOK_PATH, Settings, load_settings
from relay.store import deliveries
from relay.trial import EVENTS, post_test

if TYPE_CHECKING:
    from relay.store.database import Connection
    from relay.store.deliveries import Progress


@click.command("send-test")
@click.option("--event", type=click.Choice(EVENTS), default=EVENTS[0], show_default=True, help="Chatwoot's event.")
@click.option("--url", help="The relay's address (RELAY_URL; default: where RELAY_BIND says).")
@click.option("--wait", "wait_s", type=float, default=120, show_default=True, help="Seconds to follow it, at most.")
@as_json
def command(event: str, url: str | None, wait_s: float, *, as_json: bool) -> None:
    """Post a test webhook, signed as Chatwoot signs, and follow the delivery to its end.

    It is marked as a test: its facts count for no rate and no alert. Exit 0 if the Agent SDK took it.
    """
    settings = load_settings(relay_url=url)

    async def follow(dsn: str) -> int:
        async with connected(dsn) as connection:
            return await _follow(connection, settings, event, wait_s, as_json=as_json)

    with database(settings) as dsn:
        run(follow(dsn))


async def _follow(connection: Connection, settings: Settings, event: str, wait_s: float, *, as_json: bool) -> int:
    say = (lambda _: None) if as_json else click.echo
    delivery_id = str(uuid4())
    target = settings.own_url_shown + WEBHOOK_PATH
    say(f"posting {event} to {target} as {delivery_id}")
    status, answer, took_ms = await post_test(settings, event, delivery_id)
    say(f"answered {status} after {took_ms} ms: {answer}")
    progress: Progress | None = None
    if status in {200, 202, 500}:
        progress = await _watch(connection, delivery_id, wait_s, say)
    if as_json:
        print_json(
            {
                "deliveryId": delivery_id,
                "url": target,
                "status": status,
                "durationMs": took_ms,
                "answer": answer,
                "state": None if progress is None else progress.state,
                "attempts": [] if progress is None else progress.attempts,
            }
        )
    return 0 if progress is not None and progress.state == "delivered" else 1


async def _watch(connection: Connection, delivery_id: str, wait_s: float, say: Any) -> Progress | None:
    """Print every step of the delivery as it is recorded, until it is settled or `wait_s` is over."""
    deadline = time.monotonic() + wait_s
    shown_state, shown_attempts = "", 0
    while True:
        progress = await deliveries.progress(connection, delivery_id)
        if progress is None:
            say("not in this database: does the relay use another DATABASE_URL or RELAY_DATA_DIR?")
            return None
        if progress.state != shown_state and not progress.settled:
            shown_state = progress.state
            say(f"stored, {progress.state}")
        for attempt in progress.attempts[shown_attempts:]:
            waited = f" after a wait of {attempt['wait_ms']} ms" if attempt["wait_ms"] else ""
            error = f": {attempt['error']}" if attempt["error"] else ""
            say(f"attempt {attempt['number']}{waited}: {attempt['status']} in {attempt['duration_ms']} ms{error}")
        shown_attempts = len(progress.attempts)
        if progress.settled:
            say(f"{progress.state}" + (f": {progress.last_error}" if progress.last_error else ""))
            return progress
        if time.monotonic() > deadline:
            say(f"still {progress.state} after {wait_s:g} s; it goes on without us")
            return progress
        await asyncio.sleep(0.1)
