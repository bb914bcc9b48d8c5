"""Health: the probes, the relays, the alert rules, and the runbook's health check, run from here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from console.keymap import HEALTH, bindings_of
from console.render import formatting as words
from console.render import panels
from console.render.wrapping import hanging, shortened
from console.screens.scrolling import ScrollingView
from console.screens.view import titled
from relay.text import clean

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from console.data.snapshot import Snapshot
    from relay.store.overview import Overview


_TITLES = {"probes": "Probes", "check": "Health check ─ h runs it", "relays": "Relays", "rules": "Alert rules"}


class HealthView(ScrollingView):
    """One scroll of four sections."""

    VIEW = HEALTH
    BINDINGS = bindings_of(HEALTH)
    AUTO_FOCUS = SCROLL = "#health-scroll"

    def __init__(self) -> None:
        super().__init__()
        self._probes: list[Content] = []

    def compose_body(self) -> ComposeResult:
        """The sections."""
        with VerticalScroll(id="health-scroll"):
            for section, title in _TITLES.items():
                yield titled(Static("", id=section, classes="pane", markup=False), title)

    def paint(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        state, width = snapshot.overview, self.app.size.width - 4
        self._probes = panels.health(state, width)
        self._paint_probes(snapshot)
        self.query_one("#relays", Static).update(Content("\n").join(hanging(_relays(state, width), width)))
        self.query_one("#rules", Static).update(Content("\n").join(_rules(state, width)))

    def _paint_probes(self, snapshot: Snapshot) -> None:
        postgres = _postgres(self.console.place, snapshot, self.console.trouble)
        self.query_one("#probes", Static).update(Content("\n").join([*self._probes, postgres]))

    def freshen(self) -> None:
        """Show the health check's lines as they come as well."""
        super().freshen()
        if not self.is_up:
            return
        if self.console.snapshot is not None:
            self._paint_probes(self.console.snapshot)
        (head, *rest), ok = self.console.check
        style = {True: "$text-success bold", False: "$text-error bold", None: "$text-muted"}[ok]
        self.query_one("#check", Static).update(
            Content("\n").join([Content.styled(clean(head), style), *(Content(clean(line)) for line in rest)])
        )


def _postgres(place: str, snapshot: Snapshot, trouble: str | None) -> Content:
    """Which database all of this is read from, and what reading it took; or that it is away, and all of this old."""
    if trouble is not None:
        old = f"  away: all of this is {words.span(time.monotonic() - snapshot.read_at)} old"
        return Content.assemble(("✗ ", "$text-error bold"), "Postgres ", (place, "bold"), (old, "$text-error"))
    return Content.assemble(
        ("✓ ", "$text-success"), "Postgres ", (place, "bold"), (f"  read in {snapshot.took_ms:.0f} ms", "$text-muted")
    )


def _relays(state: Overview, width: int) -> list[Content]:
    """Each worker with the agent that it forwards to, which has a line of its own where it does not fit."""
    if not state.relays:
        return [Content.styled("no relay was heard of in the last day", "$text-error bold")]
    lines = []
    for relay in state.relays[:16]:
        line = Content.assemble(
            ("✓ " if relay.alive else "✗ ", "$text-success" if relay.alive else "$text-muted"),
            f"{relay.name.rpartition('/')[2]} worker {relay.slot}  v{relay.version}  ",
            (f"beat {words.span(relay.age_s)} ago  ", "$text-muted"),
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


def _rules(state: Overview, width: int) -> list[Content]:
    lines = []
    for verdict in state.verdicts:
        rule = verdict.rule
        style = words.STYLES[rule.severity] if verdict.firing else "$text-muted"
        mark = Content.styled(f"{words.standing(verdict, state.at):<13} ", style)
        value = words.measured(rule, verdict.value)
        room = min(56, width - 34)
        lines.append(
            Content.assemble(
                (
                    f"{words.badge(rule.severity):<10} ",
                    words.STYLES[rule.severity] if verdict.firing else "$text-muted",
                ),
                mark,
                (f"{shortened(rule.condition, room):<{room}} ", "" if verdict.firing else "$text-muted"),
                (f"{value:>8}", "bold" if verdict.firing else "$text-muted"),
                (f"  {rule.name}" if width > 110 else "", "$text-muted"),
            )
        )
    return lines
