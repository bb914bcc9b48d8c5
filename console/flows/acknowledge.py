"""Acknowledges an alert with a reason: it stays visible with the operator's name, and is not sent again for a while."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from textual.content import Content

from console.flows.hold import reason_and_time
from console.flows.requests import CarryOut, ReadNow, Say
from console.render.formatting import STYLES, badge
from console.widgets.prompt import Kind, Prompt
from relay.domain.format import utc_clock

if TYPE_CHECKING:
    from console.flows.host import Host
    from relay.domain.alerts import Rule, Verdict

_DEFAULT_S = 3_600


def ask_acknowledge(host: Host, chosen: str | None = None) -> None:
    """Ask for the reason why the rule `chosen` is acknowledged; without it, the worst alert that is not yet."""
    snapshot = host.context.snapshot
    if snapshot is None:
        host.request(Say("The alerts have not been read yet", bad=True))
        return
    firing = snapshot.overview.firing
    verdict = next((one for one in firing if one.rule.name == chosen), None)
    verdict = verdict or next((one for one in firing if one.acknowledged is None), None)
    if verdict is None:
        host.request(Say("Every active alert is acknowledged" if firing else "No active alerts"))
        return
    prompt = Prompt(title="acknowledge", lines=_lines(verdict, host.context.operator), kind=Kind.TEXT)
    host.dialog.ask(prompt, lambda text: host.request(CarryOut(partial(_acknowledge, host, verdict.rule, text))))


def _lines(verdict: Verdict, operator: str) -> list[Content]:
    rule, note = verdict.rule, verdict.acknowledged
    lines = [
        Content.assemble(
            "Acknowledge ", (badge(rule.severity), STYLES[rule.severity]), " ", (rule.name, "bold"), " as ",
            (operator, "bold"), f": {rule.condition}",
        ),
        Content("It stays visible and is not sent again for 1 h."),
        Content("Type the reason; end it with, for example, \"for 30m\" for another time"),
    ]  # fmt: skip
    if note is not None:
        replaced = f"It replaces what {note.who} acknowledged until {utc_clock(note.until)}: {note.reason}"
        lines.insert(1, Content.styled(replaced, "$text-warning"))
    return lines


async def _acknowledge(host: Host, rule: Rule, text: str) -> None:
    reason, for_s = reason_and_time(text)
    until = await host.context.session.acknowledge(rule.name, reason, _DEFAULT_S if for_s is None else for_s)
    host.request(Say(f"{rule.name} is acknowledged until {utc_clock(until)}"))
    host.request(ReadNow())
