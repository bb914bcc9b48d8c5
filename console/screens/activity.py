"""Activity: replays under way and past, and who did what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from console.data.snapshot import short_plan
from console.flows.replay import Replaying
from console.keymap import ACTIVITY, bindings_of
from console.render import formatting as words
from console.render import panels
from console.screens.view import titled
from console.widgets.lines import Line, LineList
from console.widgets.question import Kind, Prompt
from relay.store import actions, browse
from relay.store.replays import Control, PlanState
from relay.text import clean

if TYPE_CHECKING:
    from datetime import datetime

    from textual.app import ComposeResult

    from console.data.snapshot import Snapshot
    from relay.store.actions import OperatorAction
    from relay.store.database import Connection
    from relay.store.replays import Plan

_MOST = 200
_PARTS = 10
_NAME = 14
_ACTION = 16


@dataclass(frozen=True, slots=True)
class ActivityReading:
    """Read the newest plans, and the newest of the audit."""

    async def read(self, connection: Connection) -> Activity:
        """Read them."""
        plans = [short_plan(plan) for plan in await browse.plans(connection, _MOST)]
        return Activity(plans, await actions.newest(connection, limit=_MOST))


@dataclass(frozen=True, slots=True)
class Activity:
    """Newest first."""

    plans: list[Plan]
    audit: list[OperatorAction]

    def heads(self, now: datetime) -> Heads:
        """Columns as wide as what stands in them."""
        moments = [*(plan.created_at for plan in self.plans), *(action.at for action in self.audit)]
        names = [*(_who_asked(plan) for plan in self.plans), *(_who_acted(action) for action in self.audit)]
        return Heads(
            now,
            when=max((len(words.day_clock(moment, now)) for moment in moments), default=0),
            who=max(map(len, names), default=0),
            what=max((len(clean(action.action, limit=_ACTION)) for action in self.audit), default=0),
        )


@dataclass(frozen=True, slots=True)
class Heads:
    """How a line begins: when, who and, in the audit, what; each in a column as wide as this says, or as its name."""

    now: datetime
    when: int
    who: int
    what: int

    def names(self, last: str) -> Content:
        """Over the lines."""
        return Content(f" {'WHEN':<{self.when}}  {'WHO':<{self.who}}  {last}")

    def of(self, moment: datetime, name: str) -> Content:
        """When and who; `name` is safe to show."""
        return Content.assemble(
            (f" {words.day_clock(moment, self.now):<{self.when}}  ", "$text-muted"),
            (f"{name:<{max(3, self.who)}}  ", "bold"),
        )


class ActivityView(Replaying):
    """Replays above, the audit below."""

    VIEW = ACTIVITY
    BINDINGS = bindings_of(ACTIVITY)

    def __init__(self) -> None:
        super().__init__()
        self._plans: dict[int, Plan] = {}
        self._audit: dict[int, OperatorAction] = {}

    def compose_body(self) -> ComposeResult:
        """Two lists."""
        steering = "" if self.console.read_only else ", p pauses a running one, x stops it"
        with titled(Vertical(classes="pane", id="plans-pane"), f"Replays ─ enter watches one{steering}"):
            yield LineList(id="plans", newest_first=True)
        with titled(Vertical(classes="pane", id="audit-pane"), "Who did what ─ enter reads one to its end"):
            yield LineList(id="audit", newest_first=True)
        yield Static("", id="activity-hint", markup=False)

    def reading(self) -> ActivityReading:
        """Plans and audit."""
        return ActivityReading()

    def paint(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        if not isinstance(snapshot.view, Activity):
            return
        width, heads = self.app.size.width - 2, snapshot.view.heads(snapshot.overview.at)
        self._audit = {action.id: action for action in snapshot.view.audit}
        self._plans = {plan.id: plan for plan in snapshot.view.plans}
        self.query_one("#plans", LineList).show(
            [
                Line(plan.id, panels.plan_line(plan, heads.of(plan.created_at, _who_asked(plan)), width))
                for plan in snapshot.view.plans
            ],
            header=heads.names("PLAN"),
            empty=Content("  No replay was ever asked for."),
        )
        self.query_one("#audit", LineList).show(
            [Line(action.id, _line(action, heads, width)) for action in snapshot.view.audit],
            header=heads.names(f"{'WHAT':<{heads.what}}  DETAILS"),
            empty=Content("  Nobody has done anything yet."),
        )

    def _whole(self, action: OperatorAction) -> list[Content]:
        head = Content.assemble(
            (f"{action.at:%Y-%m-%d %H:%M:%S}Z  ", "$text-muted"),
            (words.signed_name(action.operator, action.login, limit=60), "bold"),
            f"  {clean(action.action, limit=40)}",
        )
        return [head, *(Content(f"  {clean(part, limit=300)}") for part in _about(action)[:_PARTS])]

    def on_line_list_opened(self, event: LineList.Opened) -> None:
        """Watch a plan, or read a line of the audit to its end."""
        if event.lines.id == "plans" and isinstance(event.key, int):
            self._watch(event.key)
        elif isinstance(event.key, int) and event.key in self._audit:
            self.question.ask(Prompt(title="who did what", lines=self._whole(self._audit[event.key]), kind=Kind.NOTICE))

    def _watch(self, plan_id: int) -> None:
        self.question.watch_plan(plan_id, self._steer, enter_closes=False)
        self.question.follow(list(self._plans.values()))

    @property
    def _steerable(self) -> Plan | None:
        """The replay under the cursor, if it has not ended and may be steered from here."""
        lines = self.lines
        key = lines.key if lines is not None and lines.id == "plans" else None
        plan = self._plans.get(key) if isinstance(key, int) else None
        return None if plan is None or plan.ended or self.console.read_only else plan

    def action_pause(self) -> None:
        """Pause the running replay under the cursor, or let it go on; with none there, pause painting."""
        plan = self._steerable
        if plan is None:
            super().action_pause()
        else:
            self._watch(plan.id)
            self._steer(plan.id, Control.RESUME if plan.state is PlanState.PAUSED else Control.PAUSE)

    def action_escalate(self) -> None:
        """Stop the running replay under the cursor; with none there, escalate."""
        plan = self._steerable
        if plan is None:
            super().action_escalate()
        else:
            self._watch(plan.id)
            self._steer(plan.id, Control.STOP)


def _who_asked(plan: Plan) -> str:
    return words.signed_name(plan.requested_by, plan.login, limit=_NAME)


def _who_acted(action: OperatorAction) -> str:
    return words.signed_name(action.operator, action.login, limit=_NAME)


def _line(action: OperatorAction, heads: Heads, width: int) -> Content:
    line = Content.assemble(
        heads.of(action.at, _who_acted(action)),
        f"{clean(action.action, limit=_ACTION):<{max(4, heads.what)}}  ",
        clean("  ".join(_about(action)), limit=300),
    )
    return line.truncate(width, ellipsis=True)


def _about(action: OperatorAction) -> list[str]:
    """What there is to say of it, part by part. Not clean."""
    about = [f"plan #{action.plan_id}"] if action.plan_id is not None else []
    told = {**action.details, **(action.result or {})}
    about += [f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
              for key, value in told.items() if value]  # fmt: skip
    return about + ([action.reason] if action.reason else [])
