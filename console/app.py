"""The app: one screen a view, one poller, and what every view shares. Knows no SQL and no table."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import threading
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.app import App, SystemCommand
from textual.filter import NoColor
from textual.theme import Theme

from console import look
from console.actions import OVERVIEW, VIEWS, actions_of
from console.desk import Desk
from console.poller import Poller
from console.view import WIDE, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from textual.screen import Screen

    from console.snapshot import Reading, Snapshot
    from relay.settings import Settings

_GRACE_S = 3.0

WINDOWS: dict[str, timedelta] = {
    "15 min": timedelta(minutes=15),
    "1 h": timedelta(hours=1),
    "6 h": timedelta(hours=6),
    "24 h": timedelta(hours=24),
}


def operator_name(settings: Settings) -> str:
    """Who acts: `CONSOLE_OPERATOR`, else the login name."""
    if settings.console_operator:
        return settings.console_operator
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _modes() -> dict[str, Callable[[], Screen[Any]]]:
    from console.screens import views  # noqa: PLC0415 - the screens know the app

    return dict(views())


class ConsoleApp(App[None]):
    """The operator console over the database at `dsn`.

    With `read_only` every write is hidden and refused, and the connections cannot write either.
    """

    CSS_PATH = "console.tcss"
    TITLE = "hotdash"
    ENABLE_COMMAND_PALETTE = True
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - Textual's
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]  # noqa: RUF012 - Textual's

    def __init__(self, settings: Settings, dsn: str, *, read_only: bool = False, ascii_only: bool = False) -> None:
        super().__init__()
        self.settings = settings
        self.read_only = read_only
        self.operator = operator_name(settings)
        self.window_name = "1 h"
        self.snapshot: Snapshot | None = None
        self.trouble: str | None = None
        self.paused = False
        self.check: tuple[list[str], bool | None] = (["not run from here yet"], None)
        self.desk = Desk(settings, dsn, self.operator, read_only=read_only)
        self._poller = Poller(dsn, self, read_only=read_only)
        for name, build in _modes().items():
            self.add_mode(name, build)
        for theme in look.THEMES:
            self.register_theme(Theme(**theme))
        self.theme = look.DEFAULT
        if self.no_color:  # Textual would only turn the colours into greys
            self._filters = [NoColor()]
            self.add_class("no-color")
        if ascii_only:
            self._filters.append(look.AsciiFilter())

    def on_mount(self) -> None:
        """Open the overview and begin to read."""
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(sign, lambda number, _: self._end(loop, number))
        self.switch_mode(OVERVIEW)
        self.run_worker(self._poller.run(), name="poller", exit_on_error=True)
        self.set_interval(1.0, self._tick)

    def _end(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        """End because a signal says so, if need be without ceremony.

        Textual writes through a thread that dies with the terminal; what then writes on waits for ever.
        """
        last_resort = threading.Timer(_GRACE_S, os._exit, [128 + number])
        last_resort.daemon = True
        last_resort.start()
        loop.call_soon_threadsafe(self.exit)

    async def on_unmount(self) -> None:
        """Let go of the database."""
        await self.desk.close()

    # The poller's front

    def reading(self) -> tuple[Reading | None, timedelta]:
        """What the view in front wants read."""
        view = self.view
        return (view.reading() if view else None), WINDOWS[self.window_name]

    def show(self, snapshot: Snapshot) -> None:
        """Hand a new snapshot to the view in front."""
        self.trouble = None
        if self.paused:
            return
        self.snapshot = snapshot
        if self.view is not None:
            self.view.take(snapshot)

    def disconnected(self, reason: str) -> None:
        """Say that the database is away; what was read last stays on the screen, with its age."""
        self.trouble = reason
        self._tick()

    @property
    def view(self) -> View | None:
        """The view in front, also when a dialog covers it; None once the app is about to end."""
        if not self.is_running:
            return None
        return next((screen for screen in reversed(self.screen_stack) if isinstance(screen, View)), None)

    def read_now(self) -> None:
        """Read at once: the view or what it wants has changed."""
        self._poller.wake()

    def _tick(self) -> None:
        if self.view is not None:
            self.view.freshen()

    # What every view can ask for

    def say(self, text: str, *, bad: bool = False) -> None:
        """Tell the operator something in passing. `text` is shown as it is, never parsed."""
        self.notify(text, severity="error" if bad else "information", markup=False, timeout=6)

    def go(self, view: str) -> View:
        """Bring a view to the front and return it."""
        self.switch_mode(view)
        self.read_now()
        front = self.view
        assert front is not None
        if self.snapshot is not None:
            front.take(self.snapshot)
        return front

    def show_check(self, lines: list[str], *, ok: bool | None) -> None:
        """Keep the health check's lines, and show them where they are to be seen; `ok` once it is over."""
        self.check = (lines, ok)
        if self.view is not None:
            self.view.freshen()

    def next_window(self) -> None:
        """Switch the overview's window to the next one."""
        names = list(WINDOWS)
        self.window_name = names[(names.index(self.window_name) + 1) % len(names)]
        self.read_now()

    def next_theme(self) -> None:
        """Switch to the next theme."""
        names = [theme["name"] for theme in look.THEMES]
        current = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(current + 1) % len(names)]

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Every action of the view in front, for the command palette."""
        view = screen if isinstance(screen, View) else self.view
        if view is None:
            return
        for action in actions_of(view.VIEW, read_only=self.read_only):
            yield SystemCommand(action.text, " ".join(action.keys), partial(self._run_on, view, action.name))
        yield SystemCommand("Quit the console", "q at the root", self.action_quit)

    def _run_on(self, view: View, action: str) -> None:
        asyncio.get_running_loop().create_task(view.run_action(action), name=action)


__all__ = ["VIEWS", "WINDOWS", "ConsoleApp", "operator_name"]
