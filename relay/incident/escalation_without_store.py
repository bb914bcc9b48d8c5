"""An escalation while Postgres is away: what can be asked without it, and what could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from relay.incident.markdown import bullets, section, text
from relay.incident.without_store import UNREAD

if TYPE_CHECKING:
    from relay.incident.without_store import PartialView

_PEOPLE = {"p0": ("Engineering Manager", "CEO"), "p1": ("Engineering Manager",)}
DEFAULT_LEVEL = "p0"
"""Postgres away is `store-down-p0` (DESIGN, 7)."""


@dataclass(frozen=True, slots=True)
class PartialIncident:
    """The content of such an escalation."""

    level: str
    operator: str
    reason: str
    view: PartialView

    @property
    def notify(self) -> tuple[str, ...]:
        """Whom to notify (RUNBOOK, "Escalation Steps", step 3); whether drafts are affected is not known."""
        return _PEOPLE.get(self.level, ())

    @property
    def notified(self) -> str:
        """`notify` in one line."""
        return ", ".join(self.notify) or "the team only"


def partial_entry(found: PartialIncident, runbook: str | None) -> str:
    """The incident as Markdown, ending in a line end."""
    view = found.view
    parts = [
        f"## {datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z {found.level.upper()}: {text(view.cause.sentence)}",
        bullets(
            [
                f"Tags: `support`, `webhook`, `{found.level}`",
                f"Notify: {found.notified}",
                f"Filed by: {text(found.operator)}",
                *([f"Reason: {text(found.reason)}"] if found.reason else []),
                *([] if runbook is None else [f"Follow: {text(runbook)}"]),
            ]
        ),
        section("What was found", bullets(text(line) for line in view.lines[1:-1])),
        section("What could not be read", text(f"{UNREAD}. File again once Postgres is back.")),
    ]
    return "\n\n".join(parts) + "\n"
