"""What screens and flows read from the app: settings, operator, the last snapshot, the state of the connection.

The app alone changes a `Context`. What a screen wants done it asks for by a message (`console.flows.requests`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from console.data.choices import Choices
from console.data.drafts import Drafts
from console.data.plan_pace import PlanPace
from relay.domain.format import clipped
from relay.store.databases import name_of
from relay.text import clean

if TYPE_CHECKING:
    from console.data.operator_session import OperatorSession
    from console.data.snapshot import Snapshot
    from relay.settings import Settings

WINDOWS: dict[str, timedelta] = {
    "15 min": timedelta(minutes=15),
    "1 h": timedelta(hours=1),
    "6 h": timedelta(hours=6),
    "24 h": timedelta(hours=24),
}
"""The overview's windows by name."""
_ENVIRONMENT, _PLACE, _OPERATOR = 12, 40, 40
"""The most characters of each that are shown."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The lines of the last health check run from here. `ok` is None until one has ended."""

    lines: tuple[str, ...] = ("not run from here yet",)
    ok: bool | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why Postgres cannot be read, since when (`time.time()`). `is_away`: it does not answer, or takes no session.

    `headline` is what that means, without its full stop, once the relay's `/health` was asked.
    """

    reason: str
    is_away: bool
    since: float
    headline: str | None = None


@dataclass(slots=True)
class Context:
    """`place` names the database. `trouble` says why it cannot be read, None while it can.

    `drafts` are edited payloads that are not sent yet, `pace` is how fast running replays go, `choices` is what
    the operator has chosen.
    `is_leaving` is True once the console ends: from then on no screen is complete.
    """

    settings: Settings
    session: OperatorSession
    operator: str
    place: str
    read_only: bool
    snapshot: Snapshot | None = None
    trouble: Trouble | None = None
    window_name: str = "1 h"
    paused: bool = False
    is_leaving: bool = False
    health_check: HealthCheck = HealthCheck()
    round_trip_s: float = 0.0
    drafts: Drafts = field(default_factory=Drafts)
    pace: PlanPace = field(default_factory=PlanPace)
    choices: Choices = field(default_factory=Choices)

    @property
    def environment(self) -> str | None:
        """What the operator calls this installation (`CONSOLE_ENVIRONMENT`); None if nothing."""
        name = self.settings.console_environment
        return None if name is None else clipped(clean(name[:40], limit=None), _ENVIRONMENT)

    @property
    def window(self) -> timedelta:
        """The overview's window."""
        return WINDOWS[self.window_name]


def operator_of(settings: Settings) -> str:
    """Return who operates the console, safe to show."""
    return clipped(clean(settings.operator[:400], limit=None), _OPERATOR)


def place_of(settings: Settings, dsn: str) -> str:
    """Return the database for people: name and host, nothing else of `dsn`; or that it is the embedded one."""
    if settings.database_url is None:
        return "embedded, local"
    return clipped(clean(name_of(dsn), limit=None), _PLACE)
