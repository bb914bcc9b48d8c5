"""Draws the activity screen: replay plans and the audit, in common columns. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content

from console.render import formatting
from relay.domain.format import day_clock, full_time
from relay.text import clean

if TYPE_CHECKING:
    from datetime import datetime

    from console.data.readings import Activity
    from relay.store.actions import OperatorAction
    from relay.store.replays import Plan

_PARTS = 10
_NAME = 14
_ACTION = 16


@dataclass(frozen=True, slots=True)
class Heads:
    """The first columns of a line, with their widths: when, who and, in the audit, what."""

    now: datetime
    when: int
    who: int
    what: int

    def names(self, last: str) -> Content:
        """Return the header line; `last` names the remaining columns."""
        return Content(f" {'WHEN':<{self.when}}  {'WHO':<{self.who}}  {last}")

    def of(self, moment: datetime, name: str) -> Content:
        """Return when and who; `name` is safe to show."""
        return Content.assemble(
            (f" {day_clock(moment, self.now):<{self.when}}  ", "$text-muted"),
            (f"{name:<{max(3, self.who)}}  ", "bold"),
        )


def heads_of(activity: Activity, now: datetime) -> Heads:
    """Return columns as wide as their contents."""
    moments = [*(plan.created_at for plan in activity.plans), *(action.at for action in activity.audit)]
    names = [*(who_asked(plan) for plan in activity.plans), *(_who_acted(action) for action in activity.audit)]
    return Heads(
        now,
        when=max((len(day_clock(moment, now)) for moment in moments), default=0),
        who=max(map(len, names), default=0),
        what=max((len(formatting.cut(action.action, _ACTION)) for action in activity.audit), default=0),
    )


def who_asked(plan: Plan) -> str:
    """Return who requested a plan, cut to the column and safe to show."""
    return formatting.signed_name(plan.requested_by, plan.login, limit=_NAME)


def _who_acted(action: OperatorAction) -> str:
    return formatting.signed_name(action.operator, action.login, limit=_NAME)


def whole_action(action: OperatorAction) -> list[Content]:
    """Return an entry of the audit in full."""
    head = Content.assemble(
        (f"{full_time(action.at)}  ", "$text-muted"),
        (formatting.signed_name(action.operator, action.login, limit=60), "bold"),
        f"  {formatting.cut(action.action, 40)}",
    )
    return [head, *(Content(f"  {clean(part, limit=300)}") for part in _about(action)[:_PARTS])]


def action_line(action: OperatorAction, heads: Heads, width: int) -> Content:
    """Return an entry of the audit as one line, cut to `width`."""
    line = Content.assemble(
        heads.of(action.at, _who_acted(action)),
        f"{formatting.cut(action.action, _ACTION):<{max(4, heads.what)}}  ",
        clean("  ".join(_about(action)), limit=300),
    )
    return line.truncate(width, ellipsis=True)


def _about(action: OperatorAction) -> list[str]:
    """Return what the entry says, part by part. Not clean."""
    about = [f"plan #{action.plan_id}"] if action.plan_id is not None else []
    details = {**action.details, **(action.result or {})}
    about += [f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
              for key, value in details.items() if value]  # fmt: skip
    return about + ([action.reason] if action.reason else [])
