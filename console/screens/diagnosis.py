"""The diagnosis: the runbook's four chapters applied to the live system, the cause first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from console.actions import DIAGNOSIS
from console.flows.replay import ReplayFlow
from console.keymap import key_of
from console.render.trouble import plainly
from console.screens.view import View
from console.widgets.report import Report
from relay.errors import RelayError
from relay.incident.diagnosis import diagnose
from relay.incident.evidence import gather
from relay.text import clean

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from console.data.context import Context
    from console.data.snapshot import Snapshot
    from relay.incident.diagnosis import Chapter, Diagnosis

_RUNNING = "Checking Postgres, Agent SDK, Chatwoot and this relay …"
_MARKS = {True: ("✓ ", "$text-success"), False: ("✗ ", "$text-error bold"), None: ("? ", "$text-muted")}


class DiagnosisView(View):
    """Opened by `D`, on top of the screen that it was opened from."""

    VIEW = DIAGNOSIS
    ON_TOP = True
    AUTO_FOCUS = SCROLL = "#report"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._ready: tuple[str, ...] = ()
        self._replay = ReplayFlow(self)

    def compose_body(self) -> ComposeResult:
        """Return one scroll."""
        yield Report(_RUNNING, id="report")

    def paint(self, snapshot: Snapshot) -> None:
        """Show nothing of it: a diagnosis stays as it was found."""

    def on_mount(self) -> None:
        """Start."""
        self.run_worker(self._run(), group="report", exclusive=True)

    def action_refresh_now(self) -> None:
        """Diagnose again."""
        self._fill([Content(_RUNNING)])
        self.on_mount()

    async def _run(self) -> None:
        context = self.context
        try:
            async with context.session.report_connection() as connection:
                diagnosis = diagnose(await gather(connection, context.settings))
            self._ready = tuple(text for chapter in diagnosis.chapters for text in chapter.replay)
            self._fill(_lines(diagnosis, replayable=len(self._ready) if not context.read_only else 0))
            await context.session.record("diagnose", {"cause": diagnosis.headline})
        except RelayError as error:
            self._fill([Content.styled(plainly(error), "$text-error")])

    def _fill(self, lines: list[Content]) -> None:
        if self.is_up:
            self.query_one(Report).show(lines)

    def action_replay(self) -> None:
        """Replay the dead letters whose cause is gone, the largest group first."""
        if self._ready:
            self._replay.matching(self._ready[0])
        else:
            self.say("No dead letter to replay: no cause has ended")


def _lines(diagnosis: Diagnosis, *, replayable: int) -> list[Content]:
    style = "$text-error bold" if diagnosis.problem else "$text-success bold"
    lines = [Content.styled(clean(diagnosis.headline), style)]
    if replayable:
        lines.append(
            Content.styled(
                f"{key_of(DIAGNOSIS, 'replay')} replays the dead letters whose cause is gone", "$text-warning"
            )
        )
    for chapter in diagnosis.chapters:
        lines += [Content(""), *_chapter(chapter)]
    return lines


def _chapter(chapter: Chapter) -> list[Content]:
    state = ("PROBLEM", "$text-error bold") if chapter.problem else ("ok", "$text-success")
    lines = [Content.assemble((chapter.title, "bold"), " ─ ", state)]
    if chapter.problem:
        lines.append(Content(f"  {clean(chapter.verdict)}"))
    lines += [Content.assemble("  ", _MARKS[check.ok], clean(check.text)) for check in chapter.checks]
    if chapter.problem:
        lines += [Content.styled("  What to do", "$text-muted")]
        lines += [Content(f"    {number}. {clean(todo)}") for number, todo in enumerate(chapter.resolution, start=1)]
    return lines
