"""The six views, by name, and how one comes to the front: with the present headline in its first frame."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from console.actions import ACTIVITY, DEAD, DELIVERIES, HEALTH, LOG, OVERVIEW
from console.screens.activity import ActivityView
from console.screens.dead_letters import DeadLettersView
from console.screens.deliveries import DeliveriesView
from console.screens.health import HealthView
from console.screens.log import LogView
from console.screens.overview import OverviewView
from console.screens.view import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import App
    from textual.screen import Screen

CLASSES: dict[str, type[View]] = {
    OVERVIEW: OverviewView,
    DEAD: DeadLettersView,
    DELIVERIES: DeliveriesView,
    LOG: LogView,
    HEALTH: HealthView,
    ACTIVITY: ActivityView,
}


def bring_to_front(app: App[Any], name: str) -> None:
    """Show the view `name`, with nothing on top of it."""
    _close_screens_on_top(app)
    with suppress(KeyError):  # it is not built yet
        _refresh_headers(app.get_screen_stack(name)[:1])
    app.switch_mode(name)
    _close_screens_on_top(app)


def close_front(app: App[Any]) -> None:
    """Close the screen in front."""
    _refresh_headers(app.screen_stack[-2:-1])
    app.pop_screen()


def filter_list(view: View | None, expression: str) -> None:
    """Filter the list of `view`, if it has one."""
    if isinstance(view, (DeadLettersView, DeliveriesView)):
        view.list.set_filter(expression)


def _close_screens_on_top(app: App[Any]) -> None:
    while isinstance(app.screen, View) and app.screen.ON_TOP:
        close_front(app)


def _refresh_headers(screens: Sequence[Screen[Any]]) -> None:
    for screen in screens:
        if isinstance(screen, View):
            screen.refresh_header()
