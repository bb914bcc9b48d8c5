"""Activity: running and past replays, and the audit of what operators did."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.content import Content

from console.actions import ACTIVITY, DELIVERIES
from console.data.readings import Activity, ActivityReading
from console.flows.requests import CarryOut, GoTo, ReadNow
from console.keymap import key_of
from console.render.activity import action_line, heads_of, who_asked, whole_action
from console.render.line import Line
from console.render.plans import plan_line
from console.render.wrapping import title_of
from console.screens.view import View, titled
from console.widgets.lines import LineList
from console.widgets.question import Kind, Prompt
from console.widgets.text import entitle
from relay.store.replays import Control, PlanState

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from console.data.context import Context
    from console.data.snapshot import Snapshot
    from relay.store.actions import OperatorAction
    from relay.store.replays import Plan


_WITH_WHOLE_TITLE = 64
_HEADS, _MOST_PLAN_ROWS = 2, 10
"""The rows of a pane's edge and header; those that the replays take at most."""


class ActivityView(View):
    """Replays above, the audit below."""

    VIEW = ACTIVITY

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._plans: dict[int, Plan] = {}
        self._audit: dict[int, OperatorAction] = {}

    def compose_body(self) -> ComposeResult:
        """Return the list of replays and the audit."""
        with titled(Vertical(classes="pane", id="plans-pane"), "Replays"):
            yield LineList(id="plans", newest_first=True, classes="calm")
        with titled(Vertical(classes="pane", id="audit-pane"), "Who did what"):
            yield LineList(id="audit", newest_first=True, classes="calm")

    def reading(self) -> ActivityReading:
        """Return the reading of plans and audit."""
        return ActivityReading()

    def paint(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        activity = snapshot.view
        if not isinstance(activity, Activity):
            return
        width, heads = self.app.size.width - 2, heads_of(activity, snapshot.overview.at)
        self._entitle()
        self._audit = {action.id: action for action in activity.audit}
        self._plans = {plan.id: plan for plan in activity.plans}
        room = self.query_one("#body").size.height
        wanted = min(_HEADS + max(1, len(self._plans)), _MOST_PLAN_ROWS, max(_HEADS + 1, room // 2))
        self.query_one("#plans-pane").styles.height = "1fr" if self.has_class("zoomed") else wanted
        self.query_one("#plans", LineList).show(
            [
                Line(plan.id, plan_line(plan, heads.of(plan.created_at, who_asked(plan)), width))
                for plan in activity.plans
            ],
            header=heads.names("PLAN"),
            empty=Content("  No replays yet."),
        )
        self.query_one("#audit", LineList).show(
            [Line(action.id, action_line(action, heads, width)) for action in activity.audit],
            header=heads.names(f"{'WHAT':<{heads.what}}  DETAILS"),
            empty=Content("  No actions recorded yet."),
        )

    def _entitle(self) -> None:
        """Name the keys in the titles, as many as fit."""
        width, opens = self.app.size.width, key_of(ACTIVITY, "open")
        whole = f"{opens} watches a running one, lists an ended one"
        keys = [whole if width >= _WITH_WHOLE_TITLE else f"{opens} opens one"]
        if not self.context.read_only:
            pauses, stops = (key_of(ACTIVITY, name) for name in ("pause_replay", "stop_replay"))
            keys += [f"{pauses} pauses a running one", f"{stops} stops it"]
        entitle(self.query_one("#plans-pane"), title_of(width, "Replays", keys=keys))
        entitle(self.query_one("#audit-pane"), title_of(width, "Who did what", keys=[f"{opens} shows one in full"]))

    def on_line_list_opened(self, event: LineList.Opened) -> None:
        """Watch a running plan, list the deliveries of an ended one, or show an entry of the audit in full."""
        plan = self._plans.get(event.key) if event.lines.id == "plans" and isinstance(event.key, int) else None
        if plan is not None and plan.ended:
            self.request(GoTo(DELIVERIES, filter=f"replay:{plan.id}"))
        elif plan is not None:
            self._watch(plan.id)
        elif isinstance(event.key, int) and event.key in self._audit:
            lines = whole_action(self._audit[event.key])
            self.dialog.ask(Prompt(title="who did what", lines=lines, kind=Kind.NOTICE))

    def action_zoom(self) -> None:
        """Give the replays all of the room, or take it back."""
        self.toggle_class("zoomed")
        self.query_one("#plans").focus()
        self.show_again()

    def on_line_list_moved(self) -> None:
        """Show the keys that the row under the cursor has."""
        self.refresh_header()

    def _watch(self, plan_id: int) -> None:
        self.dialog.watch_plan(plan_id)
        self.question.show_plans(list(self._plans.values()), self.context.pace)

    @property
    def _running_plan(self) -> Plan | None:
        """The replay under the cursor, if it has not ended."""
        lines = self.lines
        key = lines.key if lines is not None and lines.id == "plans" else None
        plan = self._plans.get(key) if isinstance(key, int) else None
        return None if plan is None or plan.ended else plan

    def is_possible(self, action: str) -> bool:
        """Return True if a replay runs under the cursor: only then it can be paused or stopped."""
        del action
        return self._running_plan is not None

    def _steer(self, plan: Plan, control: Control) -> None:
        self._watch(plan.id)
        self.request(CarryOut(partial(self.context.session.control, plan.id, control)))
        self.request(ReadNow())

    def action_pause_replay(self) -> None:
        """Pause the running replay under the cursor, or resume it."""
        if (plan := self._running_plan) is not None:
            self._steer(plan, Control.RESUME if plan.state is PlanState.PAUSED else Control.PAUSE)

    def action_stop_replay(self) -> None:
        """Stop the running replay under the cursor."""
        if (plan := self._running_plan) is not None:
            self._steer(plan, Control.STOP)
