"""Health: the probes, the health check run from here, the relays, the alert rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from console.actions import HEALTH
from console.keymap import key_of
from console.render import panels
from console.render.backlog import backlog_lines
from console.render.health import postgres, relays, rules
from console.render.wrapping import hanging
from console.screens.view import View, titled
from console.widgets.text import Text
from relay.text import clean

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from console.data.context import Context
    from console.data.snapshot import Snapshot


def _titles(*, read_only: bool) -> dict[str, str]:
    """Return the sections with their titles."""
    holds = "" if read_only else f" ─ {key_of(HEALTH, 'hold')} holds and releases"
    return {
        "probes": "Probes",
        "check": f"Health check ─ {key_of(HEALTH, 'check_health')} runs it",
        "relays": "Relays",
        "backlog": f"Backlog{holds}",
        "rules": "Alert rules",
    }


class HealthView(View):
    """One scroll of five sections."""

    VIEW = HEALTH
    AUTO_FOCUS = SCROLL = "#health-scroll"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._probes: list[Content] = []

    def compose_body(self) -> ComposeResult:
        """Return the sections."""
        with VerticalScroll(id="health-scroll"):
            for section, title in _titles(read_only=self.context.read_only).items():
                yield titled(Text("", id=section, classes="pane"), title)

    def paint(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        state, width = snapshot.overview, self.app.size.width - 4
        self._probes = panels.health(state, width)
        self._paint_probes(snapshot)
        self.query_one("#relays", Static).update(Content("\n").join(hanging(relays(state, width), width)))
        waits = hanging(backlog_lines(state.backlog), width)
        self.query_one("#backlog", Static).update(Content("\n").join(waits))
        self.query_one("#rules", Static).update(Content("\n").join(rules(state, width)))

    def _paint_probes(self, snapshot: Snapshot) -> None:
        database = postgres(self.context.place, snapshot, self.context.trouble)
        lines = hanging([*self._probes, database], self.app.size.width - 4)
        self.query_one("#probes", Static).update(Content("\n").join(lines))

    def refresh_header(self) -> None:
        """Show the state of the connection and the lines of the health check as well."""
        super().refresh_header()
        if not self.is_up:
            return
        if self.context.snapshot is not None:
            self._paint_probes(self.context.snapshot)
        check = self.context.health_check
        head, *rest = check.lines
        style = {True: "$text-success bold", False: "$text-error bold", None: "$text-muted"}[check.ok]
        self.query_one("#check", Static).update(
            Content("\n").join([Content.styled(clean(head), style), *(Content(clean(line)) for line in rest)])
        )
