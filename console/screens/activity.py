"""Activity: replays under way and past, and who did what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from console import panels, words
from console.actions import ACTIVITY, bindings_of
from console.clean import clean
from console.replaying import Replaying
from console.widgets.lines import Line, LineList
from relay.store import actions

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from console.snapshot import Snapshot
    from relay.store.actions import OperatorAction
    from relay.store.database import Connection

_MOST = 200


@dataclass(frozen=True, slots=True)
class ActivityReading:
    """Read the newest of the audit."""

    async def read(self, connection: Connection) -> list[OperatorAction]:
        """Read it."""
        return await actions.newest(connection, limit=_MOST)


class ActivityView(Replaying):
    """Replays above, the audit below."""

    VIEW = ACTIVITY
    BINDINGS = bindings_of(ACTIVITY)

    def compose_body(self) -> ComposeResult:
        """Two lists."""
        with Vertical(classes="pane", id="plans-pane"):
            yield LineList(id="plans", empty="  No replay was ever asked for.")
        with Vertical(classes="pane", id="audit-pane"):
            yield LineList(id="audit", empty="  Nobody has done anything yet.")
        yield Static("", id="activity-hint", markup=False)

    def on_mount(self) -> None:
        """Name the panes."""
        self.query_one("#plans-pane").border_title = "Replays ─ enter watches one, p pauses it, x stops it"
        self.query_one("#audit-pane").border_title = "Who did what"

    def reading(self) -> ActivityReading:
        """The audit."""
        return ActivityReading()

    def paint(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        width, now = self.app.size.width - 2, snapshot.overview.at
        self.query_one("#plans", LineList).show(
            [Line(plan.id, panels.plan_line(plan, now, width)) for plan in snapshot.plans],
            header=Content(f" {'WHEN':<13} {'WHO':<14} PLAN"),
        )
        if not isinstance(snapshot.view, list):
            return
        self.query_one("#audit", LineList).show(
            [Line(action.id, self._line(action, now, width)) for action in snapshot.view],
            header=Content(f" {'WHEN':<13} {'WHO':<14} {'WHAT':<16} DETAILS"),
        )

    def _line(self, action: OperatorAction, now: object, width: int) -> Content:
        when = words.day_clock(action.at, now)  # type: ignore[arg-type]
        about = [f"plan #{action.plan_id}"] if action.plan_id is not None else []
        about += [f"{key}: {value}" for key, value in {**action.details, **(action.result or {})}.items() if value]
        about += [action.reason] if action.reason else []
        line = Content.assemble(
            (f" {when:<13} ", "$text-muted"),
            (f"{clean(action.operator, limit=14):<14} ", "bold"),
            f"{clean(action.action, limit=16):<16} ",
            clean("  ".join(about), limit=300),
        )
        return line.truncate(width, ellipsis=True)

    def on_line_list_opened(self, event: LineList.Opened) -> None:
        """Watch a plan."""
        if event.lines.id == "plans" and isinstance(event.key, int):
            self.question.watch_plan(event.key, self._steer)
            if self.console.snapshot is not None:
                self.question.follow(self.console.snapshot.plans)
