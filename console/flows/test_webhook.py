"""Posts a test webhook from the console, and shows every step of it until it is settled."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from textual.content import Content

from console.render.log_lines import draw
from console.widgets.question import Kind, Prompt
from relay.chatwoot.test_webhook import EVENTS, post_test, what_the_agent_does
from relay.errors import RelayError
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from console.data.operator_session import OperatorSession
    from console.flows.host import Host
    from relay.store.browse import Row

_READ_EVERY_S = 0.15
_FOLLOW_S = 120
_POST_WITHIN_S = 5
_ACCEPTED = 202
_SETTLED = ("Webhook forwarded successfully", "Webhook failed, dead-lettered")


def ask_test_webhook(host: Host) -> None:
    """Ask which event, then post it and follow it."""
    context = host.context
    settings = context.settings
    signed = "signed as Chatwoot signs" if settings.secrets else "unsigned, for CHATWOOT_WEBHOOK_SECRET is not set here"
    lines = [
        Content.assemble("Post a test webhook to ", (settings.own_url, "bold"), " as ", (context.operator, "bold"),
                         f", {signed}. It counts for no rate and no alert. ", what_the_agent_does(EVENTS[0], None)),
        *(Content(f"  {number}  {event}") for number, event in enumerate(EVENTS, start=1)),
    ]  # fmt: skip
    prompt = Prompt(title="test webhook", lines=lines, kind=Kind.CHOICE, choices=EVENTS)
    host.dialog.ask(prompt, lambda event: host.in_background(_follow(host, event), group="test"))


async def _follow(host: Host, event: str) -> None:
    """Post the event and show every step of it until it is settled, or the operator has closed the strip."""
    session, settings, delivery_id = host.context.session, host.context.settings, str(uuid4())
    steps = [Content(f"posting {event} to {settings.own_url} as {delivery_id}")]
    outcome: list[Content] = []  # the last line: whatever is read later came before it
    shown = Prompt(title="test webhook", lines=tuple(steps), kind=Kind.NOTICE)
    host.dialog.ask(shown)

    def show() -> None:
        nonlocal shown
        shown = host.dialog.renew(shown, (*steps, *outcome))

    posting: asyncio.Task[tuple[int, Any, int]] | None = None
    try:
        traces = _Traces(session, delivery_id)
        unread = await _trouble_of(traces.begin())
        posting = asyncio.create_task(post_test(settings, event, delivery_id))
        deadline = time.monotonic() + _FOLLOW_S
        answered = settled = False
        while not (answered and settled) and host.dialog.shows(shown) and time.monotonic() < deadline:
            await asyncio.sleep(_READ_EVERY_S)
            unread = unread or await _trouble_of(traces.read())
            steps += traces.take()
            if unread and not settled:
                steps.append(Content.styled(unread, "$text-error"))  # the relay's answer is shown all the same
            settled = settled or traces.settled or bool(unread)
            if posting.done() and not answered:
                answered = True
                (steps if posting.result()[0] == _ACCEPTED else outcome).append(_answer(posting.result()))
                settled = settled or _is_final(posting.result())
            show()
        if not answered:
            await asyncio.wait((posting,), timeout=_POST_WITHIN_S)  # closed at once: it is posted all the same
        elif not settled and host.dialog.shows(shown):
            steps.append(Content.styled(f"not settled within {_FOLLOW_S} s; 3 shows its state", "$text-warning"))
        unrecorded = await _trouble_of(session.record("test-webhook", {"event": event, "deliveryId": delivery_id}))
        if unrecorded and not unread:
            steps.append(Content.styled(unrecorded, "$text-error"))
    except RelayError as error:
        steps.append(Content.styled(str(error), "$text-error"))
    finally:
        if posting is not None:
            posting.cancel()  # the relay goes on with it
    show()


class _Traces:
    """What a delivery leaves in Postgres, as lines: its row, then the log's lines about it. Each is returned once."""

    def __init__(self, session: OperatorSession, delivery_id: str) -> None:
        self._session = session
        self._delivery_id = delivery_id
        self._after = 0
        self._seen: set[int] = set()
        self._stored = self.settled = False
        self._fresh: list[Content] = []

    async def begin(self) -> None:
        """Note the end of the log, before the webhook is posted."""
        self._after = await self._session.newest_line()

    async def read(self) -> None:
        """Read what is new. `settled` is True from the line on that says how it ended."""
        if not self._stored and (row := await self._session.stored(self._delivery_id)) is not None:
            self._stored = True
            self._fresh.append(_stored(row))
        for line in await self._session.lines_about(self._delivery_id, after=self._after):
            if line.id not in self._seen:
                self._seen.add(line.id)
                self._fresh.append(draw(line))
                self.settled = self.settled or line.message in _SETTLED

    def take(self) -> list[Content]:
        """Return what was read since the last call."""
        fresh, self._fresh = self._fresh, []
        return fresh


async def _trouble_of(work: Awaitable[None]) -> str:
    """Return why `work` failed; empty if it did not."""
    try:
        await work
    except RelayError as error:
        return str(error)
    return ""


def _stored(row: Row) -> Content:
    """Return the line about its row."""
    return Content.assemble(
        (f"{row.received_at:%H:%M:%S}.{row.received_at.microsecond // 1000:03d} ", "$text-muted"),
        "  ",
        (f"{clean(row.delivery_id[:8])}  ", "$text-accent"),
        f"Received and stored in Postgres as row {row.id}",
    )


def _is_final(answer: tuple[int, Any, int]) -> bool:
    """True if nothing follows the relay's answer: it refused the webhook, ignores its event, or knew it already."""
    status, body, _ = answer
    is_not_forwarded = isinstance(body, dict) and ("ignored" in body or "duplicate" in body)
    return status not in {200, _ACCEPTED, 500} or is_not_forwarded


def _answer(answer: tuple[int, Any, int]) -> Content:
    status, body, took_ms = answer
    style = "$text-success bold" if status < 300 else "$text-error bold"
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return Content.assemble(
        ("the relay answered ", ""), (str(status), style), f" after {took_ms} ms: {clean(text, limit=200)}"
    )
