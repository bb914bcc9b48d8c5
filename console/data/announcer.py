"""What the terminal itself announces: the bell at a new P0, and the worst alert in the title. No drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.domain.alerts import Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from console.data.snapshot import Snapshot


class Announcer:
    """Calls `bell` when a P0 starts to fire, and `show_title` when the title changes."""

    def __init__(self, *, bell: Callable[[], None], show_title: Callable[[str], None]) -> None:
        self._bell = bell
        self._show_title = show_title
        self._known: set[str] | None = None
        self._title = ""

    def take(self, snapshot: Snapshot, place: str) -> None:
        """Announce what is new in `snapshot` of the installation `place`. What fires at the start rings no bell."""
        firing = snapshot.overview.firing
        worst = {verdict.rule.name for verdict in firing if verdict.rule.severity is Severity.P0}
        if self._known is not None and worst - self._known:
            self._bell()
        self._known = worst
        title = f"{firing[0].rule.severity} {place}" if firing else f"hotdash {place}"
        if title != self._title:
            self._title = title
            self._show_title(title)
