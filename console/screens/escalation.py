"""The escalation: shows the entry that would be filed, and files it on a key."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from textual.content import Content

from console.actions import ESCALATION
from console.flows.requests import CarryOut
from console.keymap import key_of
from console.render.trouble import plainly
from console.screens.view import View
from console.widgets.question import Kind, Prompt
from console.widgets.report import Report
from relay.errors import RelayError
from relay.incident.escalation import LEVELS, REPORT, append, entry, incident
from relay.text import clean

if TYPE_CHECKING:
    from pathlib import Path

    from textual.app import ComposeResult

    from console.data.context import Context
    from console.data.snapshot import Snapshot
    from relay.incident.escalation import Incident

_RUNNING = "Gathering evidence: dead letters, error patterns, health, alerts, attempted fixes …"


class EscalationView(View):
    """Opened by `x`, on top of the screen that it was opened from. Nothing is written before `y`."""

    VIEW = ESCALATION
    ON_TOP = True
    AUTO_FOCUS = SCROLL = "#report"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._incident: Incident | None = None
        self._is_filed = False

    def compose_body(self) -> ComposeResult:
        """Return one scroll."""
        yield Report(_RUNNING, id="report")

    def paint(self, snapshot: Snapshot) -> None:
        """Ignore the snapshot: the evidence stays as it was gathered."""

    def on_mount(self) -> None:
        """Start."""
        self.run_worker(self._run(), group="report", exclusive=True)

    def action_refresh_now(self) -> None:
        """Gather again."""
        self._fill([Content(_RUNNING)])
        self.on_mount()

    async def _run(self) -> None:
        context = self.context
        try:
            async with context.session.report_connection() as connection:
                self._incident = await incident(connection, context.settings, operator=context.settings.operator)
            self._is_filed = False
            self._show_entry()
        except RelayError as error:
            self._fill([Content.styled(plainly(error), "$text-error")])

    def _fill(self, lines: list[Content]) -> None:
        if self.is_up:
            self.query_one(Report).show(lines)

    def _show_entry(self) -> None:
        shown = self._incident
        if shown is None:
            return
        file, severity, note = (key_of(ESCALATION, name) for name in ("file", "severity", "note"))
        head = [
            Content.assemble(
                (file, "bold $text-warning"), f" appends this to {_here()} as ", (self.context.operator, "bold"),
                "; ", (severity, "bold $text-warning"), " changes the severity, ", (note, "bold $text-warning"),
                f" adds your reason; {key_of(ESCALATION, 'back')} leaves it",
            ) if not self._is_filed else Content.styled(f"Appended to {_here()}.", "$text-success bold"),
            Content.assemble((shown.level.upper(), "bold"), f"  notify: {shown.notified}"),
            Content(""),
        ]  # fmt: skip
        body = [Content(clean(line, limit=2_000)) for line in entry(shown).splitlines()]
        self._fill(head + body)

    def action_severity(self) -> None:
        """Choose the next severity."""
        if self._incident is not None and not self._is_filed:
            level = LEVELS[(LEVELS.index(self._incident.level) + 1) % len(LEVELS)]
            self._incident = replace(self._incident, level=level)
            self._show_entry()

    def action_note(self) -> None:
        """Ask for a reason, which becomes part of the entry."""
        if self._incident is not None and not self._is_filed:
            lines = [Content("Type your reason, or what you know: it becomes part of the entry")]
            self.dialog.ask(Prompt(title="reason", lines=lines, kind=Kind.TEXT), self._take_reason)

    def _take_reason(self, reason: str) -> None:
        if self._incident is not None:
            self._incident = replace(self._incident, reason=reason)
            self._show_entry()

    def action_file(self) -> None:
        """Append the entry, once."""
        if self._incident is not None and not self._is_filed:
            self._is_filed = True
            self.request(CarryOut(partial(self._file, self._incident)))

    async def _file(self, filed: Incident) -> None:
        try:
            written = await asyncio.to_thread(append, entry(filed))
        except BaseException:
            self._is_filed = False
            raise
        self._show_entry()
        self.say(f"Appended to {_here(written)}")
        await self.context.session.record("escalate", {"level": filed.level, "report": str(written)})


def _here(path: Path = REPORT) -> str:
    with suppress(OSError):  # the working directory may be gone: appending says so
        path = path.absolute()
    return clean(str(path), limit=300)
