"""The diagnosis: the runbook's four chapters on the live system, the cause first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from console.keymap import DIAGNOSIS, bindings_of
from console.screens.inquiry import InquiryView
from relay.diagnosis import diagnose
from relay.evidence import gather
from relay.text import clean

if TYPE_CHECKING:
    from relay.diagnosis import Chapter, Diagnosis

_MARKS = {True: ("✓ ", "$text-success"), False: ("✗ ", "$text-error bold"), None: ("? ", "$text-muted")}


class DiagnosisView(InquiryView):
    """Opened by `D`."""

    VIEW = DIAGNOSIS
    BINDINGS = bindings_of(DIAGNOSIS)

    def __init__(self) -> None:
        super().__init__()
        self._ready: tuple[str, ...] = ()

    async def look(self) -> None:
        """Diagnose."""
        app = self.console
        async with app.desk.beside() as connection:
            diagnosis = diagnose(await gather(connection, app.settings))
        self._ready = tuple(text for chapter in diagnosis.chapters for text in chapter.replay)
        self.fill(_lines(diagnosis, replayable=len(self._ready) if not app.read_only else 0))
        await app.desk.record("diagnose", {"cause": diagnosis.headline})

    def action_replay(self) -> None:
        """Replay what can be, the largest group first."""
        if not self._ready:
            self.console.say("There is no dead letter whose cause is gone")
            return
        self.replay_matching(self._ready[0])


def _lines(diagnosis: Diagnosis, *, replayable: int) -> list[Content]:
    style = "$text-error bold" if diagnosis.problem else "$text-success bold"
    lines = [Content.styled(clean(diagnosis.headline), style)]
    if replayable:
        lines.append(Content.styled("r replays the dead letters whose cause is gone", "$text-warning"))
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
