"""The health check and the test webhook, run from the console; what happens is shown as it happens."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from textual.content import Content

from console.data.log_window import draw
from console.keymap import HEALTH
from console.widgets.question import Kind, Prompt
from relay.errors import RelayError
from relay.probes import ARTIFACTS, check_health, write_artifact
from relay.text import clean
from relay.trial import EVENTS, post_test, what_the_agent_does

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from console.app import ConsoleApp
    from console.data.operator_session import Desk
    from console.screens.view import View
    from relay.store.browse import Row

_LOOK_EVERY_S = 0.15
_FOLLOW_S = 120
_LEAVE_WITHIN_S = 5
_GOES_ON = 202
_SETTLED = ("Webhook forwarded successfully", "Webhook failed, dead-lettered")


async def run_health_check(app: ConsoleApp) -> None:
    """Run the runbook's health check on the health screen; the artifact is written as `relay check-health` does."""
    app.go(HEALTH)
    app.show_check(["Health check under way …"], ok=None)
    try:
        check = await check_health(app.settings)
        path = await asyncio.to_thread(write_artifact, check, ARTIFACTS)
    except (RelayError, OSError) as error:
        app.show_check([f"The health check could not be run: {error}"], ok=False)
        return
    app.show_check(check.lines(path), ok=check.all_ok)
    try:
        await app.desk.record("check-health", {"allOk": check.all_ok, "artifact": str(path)})
    except RelayError as error:
        app.say(str(error), bad=True)


def ask_test_webhook(view: View) -> None:
    """Ask which event, then post it and follow it."""
    app = view.console
    signed = (
        "signed as Chatwoot signs" if app.settings.secrets else "unsigned, for CHATWOOT_WEBHOOK_SECRET is not set here"
    )
    lines = [
        Content.assemble("Post a test webhook to ", (app.settings.own_url, "bold"), " as ", (app.operator, "bold"),
                         f", {signed}. It counts for no rate and no alert. ", what_the_agent_does(EVENTS[0], None)),
        *(Content(f"  {number}  {event}") for number, event in enumerate(EVENTS, start=1)),
    ]  # fmt: skip

    def chosen(event: str) -> None:
        view.run_worker(_follow(view, event), group="test", exclusive=True)

    view.question.ask(Prompt(title="test webhook", lines=lines, kind=Kind.CHOICE, then=chosen, choices=EVENTS))


async def _follow(view: View, event: str) -> None:
    """Post the event and show every step of it until it is settled, or the operator has closed the strip."""
    app, delivery_id = view.console, str(uuid4())
    steps = [Content(f"posting {event} to {app.settings.own_url} as {delivery_id}")]
    outcome: list[Content] = []  # of all of it: whatever is read after it came before it
    shown = Prompt(title="test webhook", lines=tuple(steps), kind=Kind.NOTICE)
    view.question.ask(shown)

    def show() -> None:
        nonlocal shown
        shown = view.question.renew(shown, (*steps, *outcome))

    posting: asyncio.Task[tuple[int, Any, int]] | None = None
    try:
        traces = _Traces(app.desk, delivery_id)
        unread = await _trouble_of(traces.begin())
        posting = asyncio.create_task(post_test(app.settings, event, delivery_id))
        deadline = time.monotonic() + _FOLLOW_S
        told = settled = False
        while not (told and settled) and view.question.shows(shown) and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_EVERY_S)
            unread = unread or await _trouble_of(traces.look())
            steps += traces.take()
            if unread and not settled:
                steps.append(Content.styled(unread, "$text-error"))  # what the relay says of it is told all the same
            settled = settled or traces.settled or bool(unread)
            if posting.done() and not told:
                told = True
                (steps if posting.result()[0] == _GOES_ON else outcome).append(_answer(posting.result()))
                settled = settled or _is_all(posting.result())
            show()
        if not told:
            await asyncio.wait((posting,), timeout=_LEAVE_WITHIN_S)  # closed so soon: it goes out all the same
        elif not settled and view.question.shows(shown):
            steps.append(Content.styled(f"not settled within {_FOLLOW_S} s; 3 shows where it stands", "$text-warning"))
        unrecorded = await _trouble_of(app.desk.record("test-webhook", {"event": event, "deliveryId": delivery_id}))
        if unrecorded and not unread:
            steps.append(Content.styled(unrecorded, "$text-error"))
    except RelayError as error:
        steps.append(Content.styled(str(error), "$text-error"))
    finally:
        if posting is not None:
            posting.cancel()  # the relay goes on with it all the same
    show()


class _Traces:
    """What a delivery leaves in Postgres, as lines: its row, then the log's lines about it. Each is told once."""

    def __init__(self, desk: Desk, delivery_id: str) -> None:
        self._desk = desk
        self._delivery_id = delivery_id
        self._after = 0
        self._seen: set[int] = set()
        self._stored = self.settled = False
        self._fresh: list[Content] = []

    async def begin(self) -> None:
        """Look from here on; before it is posted."""
        self._after = await self._desk.newest_line()

    async def look(self) -> None:
        """Look for more. `settled` is true from the line on that says how it ended."""
        if not self._stored and (row := await self._desk.stored(self._delivery_id)) is not None:
            self._stored = True
            self._fresh.append(_stored(row))
        for line in await self._desk.lines_about(self._delivery_id, after=self._after):
            if line.id not in self._seen:
                self._seen.add(line.id)
                self._fresh.append(draw(line))
                self.settled = self.settled or line.message in _SETTLED

    def take(self) -> list[Content]:
        """What was found since."""
        fresh, self._fresh = self._fresh, []
        return fresh


async def _trouble_of(looking: Awaitable[None]) -> str:
    """Why that could not be done, or nothing."""
    try:
        await looking
    except RelayError as error:
        return str(error)
    return ""


def _stored(row: Row) -> Content:
    """That it was received and is in Postgres."""
    return Content.assemble(
        (f"{row.received_at:%H:%M:%S}.{row.received_at.microsecond // 1000:03d} ", "$text-muted"),
        "  ",
        (f"{clean(row.delivery_id[:8])}  ", "$text-accent"),
        f"Received and stored in Postgres as row {row.id}",
    )


def _is_all(answered: tuple[int, Any, int]) -> bool:
    """True if nothing follows the relay's answer: it refused the webhook, ignores its event, or knew it already."""
    status, body, _ = answered
    return status not in {200, _GOES_ON, 500} or (isinstance(body, dict) and ("ignored" in body or "duplicate" in body))


def _answer(answered: tuple[int, Any, int]) -> Content:
    status, body, took_ms = answered
    style = "$text-success bold" if status < 300 else "$text-error bold"
    said = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return Content.assemble(
        ("the relay answered ", ""), (str(status), style), f" after {took_ms} ms: {clean(said, limit=200)}"
    )
