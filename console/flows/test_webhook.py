"""Posts a test webhook from the console, and shows every step of it until it is settled."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from textual.content import Content

from console.actions import DELIVERIES
from console.keymap import view_key
from console.widgets.prompt import Kind, Prompt
from relay.chatwoot.follow_test import (
    FOLLOW_S,
    Answered,
    Ended,
    NotFound,
    Pending,
    TestWebhook,
    Unreadable,
    attempt_line,
    follow,
)
from relay.chatwoot.test_webhook import EVENTS, what_the_agent_does
from relay.domain.delivery import State
from relay.domain.format import span
from relay.errors import RelayError
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from console.flows.host import Host
    from relay.chatwoot.follow_test import Step
    from relay.store.deliveries import Progress


def ask_test_webhook(host: Host) -> None:
    """Ask which event, then post it and follow it."""
    context = host.context
    settings = context.settings
    signed = "signed as Chatwoot signs" if settings.secrets else "unsigned, for CHATWOOT_WEBHOOK_SECRET is not set here"
    lines = [
        Content.assemble(
            "Post a test webhook to ", (settings.own_url_shown, "bold"), " as ", (context.operator, "bold"),
            f", {signed}. It counts for no rate and no alert. ", what_the_agent_does(EVENTS[0], None),
        ),
        *(Content(f"  {number}  {event}") for number, event in enumerate(EVENTS, start=1)),
    ]  # fmt: skip
    prompt = Prompt(title="test webhook", lines=lines, kind=Kind.CHOICE, choices=EVENTS)
    host.dialog.ask(prompt, lambda event: host.in_background(_follow(host, event), group="test"))


async def _follow(host: Host, event: str) -> None:
    """Post the event and show every step of it until it is settled, or the operator has closed the strip."""
    session, settings, test = host.context.session, host.context.settings, TestWebhook.of(event)
    lines = [Content(f"posting {event} to {settings.own_url_shown} as {test.delivery_id}")]
    shown = Prompt(title="test webhook", lines=tuple(lines), kind=Kind.NOTICE)
    host.dialog.ask(shown)
    is_readable = True
    try:
        async with aclosing(follow(settings, test, session.progress)) as steps:
            async for step in steps:
                lines += _lines(step)
                is_readable = is_readable and not isinstance(step, Unreadable)
                passing = [_pending(step)] if isinstance(step, Pending) else []
                shown = host.dialog.renew(shown, (*lines, *passing))
                if not host.dialog.shows(shown):
                    break
        await session.record("test-webhook", {"event": event, "deliveryId": test.delivery_id})
    except RelayError as error:
        if is_readable:  # else the reason is shown already
            lines.append(Content.styled(str(error), "$text-error"))
    host.dialog.renew(shown, lines)


def _lines(step: Step) -> list[Content]:
    """Return a step as the lines that it adds."""
    match step:
        case Answered(status, body, took_ms):
            style = "$text-success bold" if status < 300 else "$text-error bold"
            text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
            answer = f" after {took_ms} ms: {clean(text, limit=200)}"
            return [Content.assemble("the relay answered ", (str(status), style), answer)]
        case NotFound():
            return [Content.styled("Stored, but not in this database: the relay uses another one.", "$text-error")]
        case Unreadable(why):
            return [Content.styled(why, "$text-error")]
        case Ended(progress):
            return [*(_attempt(attempt) for attempt in progress.attempts), _end(progress)]
        case _:
            return []


def _pending(step: Pending) -> Content:
    """Return the last line while the delivery is not settled."""
    state = "not stored yet" if step.state is None else f"stored, {step.state}"
    return Content.styled(f"{state}, {span(step.seconds)}", "$text-muted")


def _attempt(attempt: Mapping[str, Any]) -> Content:
    return Content.styled(attempt_line(attempt), "$text-warning" if attempt["error"] else "")


def _end(progress: Progress) -> Content:
    if not progress.settled:
        still = f"still {progress.state} after {FOLLOW_S:g} s; {view_key(DELIVERIES)} shows its state"
        return Content.styled(still, "$text-warning")
    if progress.state is State.DELIVERED:
        return Content.styled("delivered", "$text-success bold")
    return Content.styled(f"{progress.state}: {progress.last_error}", "$text-error bold")
