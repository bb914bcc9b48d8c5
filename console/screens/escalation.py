"""The escalation: what would be filed, to be read first; then filed, by one key."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from textual.content import Content

from console.keymap import ESCALATION, bindings_of
from console.screens.inquiry import InquiryView
from relay.escalation import LEVELS, REPORT, append, entry, incident
from relay.text import clean

if TYPE_CHECKING:
    from relay.escalation import Incident


class EscalationView(InquiryView):
    """Opened by `x`. Nothing is written before `y`."""

    VIEW = ESCALATION
    BINDINGS = bindings_of(ESCALATION)
    UNDER_WAY = "Gathering evidence: dead letters, error patterns, health, alerts, attempted fixes …"

    def __init__(self) -> None:
        super().__init__()
        self._incident: Incident | None = None
        self._filed = False

    async def look(self) -> None:
        """Gather, and show the entry."""
        app = self.console
        async with app.desk.beside() as connection:
            self._incident = await incident(connection, app.settings, operator=app.operator)
        self._filed = False
        self._show()

    def _show(self) -> None:
        told = self._incident
        if told is None:
            return
        notify = ", ".join(told.notify) or "nobody beyond the team"
        head = [
            Content.assemble(
                ("y", "bold $text-warning"), f" appends this to {REPORT} as ", (self.console.operator, "bold"),
                "; ", ("s", "bold $text-warning"), " changes the severity; esc leaves it",
            ) if not self._filed else Content.styled(f"Appended to {REPORT}.", "$text-success bold"),
            Content.assemble((told.level.upper(), "bold"), f"  notify: {notify}"),
            Content(""),
        ]  # fmt: skip
        body = [Content(clean(line, limit=2_000)) for line in entry(told).splitlines()]
        self.fill(head + body)

    def action_severity(self) -> None:
        """The next severity."""
        if self._incident is not None and not self._filed:
            level = LEVELS[(LEVELS.index(self._incident.level) + 1) % len(LEVELS)]
            self._incident = replace(self._incident, level=level)
            self._show()

    def action_file(self) -> None:
        """Append it, once."""
        if self._incident is not None and not self._filed:
            self._filed = True
            self.console.carry_out(self._file(self._incident))

    async def _file(self, told: Incident) -> None:
        try:
            written = await asyncio.to_thread(append, entry(told))
        except BaseException:
            self._filed = False
            raise
        self._show()
        self.console.say(f"Appended to {clean(str(written))}")
        await self.console.desk.record("escalate", {"level": told.level, "report": str(written)})
