"""Draws the health screen: the database, the relays and the alert rules. Pure."""

from __future__ import annotations

import time
from textwrap import wrap
from typing import TYPE_CHECKING

from textual.content import Content

from console.render import formatting
from console.render.wrapping import hanging, shortened
from relay.domain.format import measured, span, utc_clock
from relay.store.failures import UNUSABLE

if TYPE_CHECKING:
    from console.data.context import Trouble
    from console.data.snapshot import Snapshot
    from relay.store.overview import Overview


def postgres(place: str, snapshot: Snapshot, trouble: Trouble | None) -> Content:
    """Return which database this is read from, and how long reading took; or that it is away, and the data's age."""
    if trouble is not None:
        age = span(time.monotonic() - snapshot.read_at)
        old = f"  away: all of this is {age} old ({trouble.reason.removeprefix(f'{UNUSABLE}: ')})"
        return Content.assemble(("✗ ", "$text-error bold"), "Postgres ", (place, "bold"), (old, "$text-error"))
    return Content.assemble(
        ("✓ ", "$text-success"), "Postgres ", (place, "bold"), (f"  read in {snapshot.took_ms:.0f} ms", "$text-muted")
    )


def relays(state: Overview, width: int) -> list[Content]:
    """Return each worker with the agent that it forwards to; the agent gets its own line where it does not fit."""
    if not state.relays:
        return [Content.styled("no relay heartbeat in the last day", "$text-error bold")]
    lines = []
    for relay in state.relays[:16]:
        line = Content.assemble(
            ("✓ " if relay.alive else "✗ ", "$text-success" if relay.alive else "$text-muted"),
            f"{relay.name.rpartition('/')[2]} worker {relay.slot}  v{relay.version}  ",
            (f"beat {span(relay.age_s)} ago  ", "$text-muted"),
            f"{relay.in_flight} in flight  " if relay.alive else "gone  ",
            (
                "signed only" if relay.signed else "unsigned accepted",
                "$text-muted" if relay.signed else "$text-warning",
            ),
        )
        target = Content.styled(f"  → {relay.agent}", "$text-muted")
        fits = line.cell_length + target.cell_length <= width
        lines += [line + target] if fits else [line, target]
    return lines


def rules(state: Overview, width: int) -> list[Content]:
    """Return the alert rules: severity, state, condition and value. An acknowledgement has a line of its own."""
    lines = []
    for verdict in state.verdicts:
        rule = verdict.rule
        style = formatting.STYLES[rule.severity] if verdict.firing else "$text-muted"
        mark = Content.styled(f"{formatting.alert_state(verdict, state.at):<13} ", style)
        value = measured(verdict.value, rule.unit)
        room = min(56, width - 34)
        (fitting,) = shortened([rule], room)
        first, *rest = wrap(fitting if not fitting.endswith("…") else rule.brief or rule.condition, max(1, room))
        lines.append(
            Content.assemble(
                (
                    f"{formatting.badge(rule.severity):<10} ",
                    formatting.STYLES[rule.severity] if verdict.firing else "$text-muted",
                ),
                mark,
                (f"{first:<{room}} ", "" if verdict.firing else "$text-muted"),
                (f"{value:>8}", "bold" if verdict.firing else "$text-muted"),
                (f"  {rule.name}" if width > 110 else "", "$text-muted"),
            )
        )
        lines += [Content.styled(f"{'':<25}{part}", "" if verdict.firing else "$text-muted") for part in rest]
        if (note := verdict.acknowledged) is not None:
            text = f"{'':>10} acknowledged by {note.who} until {utc_clock(note.until)}: {note.reason}"
            lines += hanging([Content.styled(text, "$text-muted")], width)
    return lines
