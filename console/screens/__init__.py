"""The console's screens, one file a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.keymap import ACTIVITY, DEAD, DELIVERIES, HEALTH, LOG, OVERVIEW
from console.screens.activity import ActivityView
from console.screens.dead_letters import DeadLettersView
from console.screens.deliveries import DeliveriesView
from console.screens.health import HealthView
from console.screens.log import LogScreen
from console.screens.overview import OverviewView

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from textual.screen import Screen


def views() -> dict[str, Callable[[], Screen[Any]]]:
    """The screen of each view, by its name in the table of actions."""
    return {
        OVERVIEW: OverviewView,
        DEAD: DeadLettersView,
        DELIVERIES: DeliveriesView,
        LOG: LogScreen,
        HEALTH: HealthView,
        ACTIVITY: ActivityView,
    }
