"""The app: one screen a view, one poller, and what every view shares. Knows no SQL and no table."""

from __future__ import annotations

import asyncio
import gc
import getpass
import os
import signal
import threading
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import events
from textual.app import SystemCommand
from textual.filter import NoColor
from textual.theme import Theme

from console import theme as look
from console.data.operator_session import Desk
from console.data.poller import Poller
from console.keymap import OVERVIEW, VIEWS, actions_of, shown_key
from console.screens.view import WIDE, View
from console.widgets.type_ahead import TypeAhead
from relay.databases import name_of
from relay.errors import RelayError
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from textual.screen import Screen

    from console.data.snapshot import Reading, Snapshot
    from relay.settings import Settings

_GRACE_S = 3.0
_WRITES_S = 2.0
_MOST_PASTED = 1_000_000
_MOST_SAID = 500
_BUILD_AFTER_S = 0.3
_COLLECT_AFTER = (5_000, 20, 20)

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


def place_of(settings: Settings, dsn: str) -> str:
    """Which database that is, for people: its name and host, nothing else of `dsn`; or that it is the embedded one."""
    if settings.database_url is None:
        return "embedded"
    return clean(name_of(dsn), limit=40)


def _modes() -> dict[str, Callable[[], Screen[Any]]]:
    from console.screens import views  # noqa: PLC0415 - the screens know the app

    return dict(views())


class ConsoleApp(TypeAhead):
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
        self.place = place_of(settings, dsn)
        self.window_name = "1 h"
        self.snapshot: Snapshot | None = None
        self.trouble: str | None = None
        self.paused = self.is_leaving = False
        self.check: tuple[list[str], bool | None] = (["not run from here yet"], None)
        self.desk = Desk(settings, dsn, self.operator, read_only=read_only)
        self._poller = Poller(dsn, self, read_only=read_only)
        self._handlers: dict[int, Any] = {}
        self._writes: set[asyncio.Task[None]] = set()
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

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """What the layout asks of a theme beside Textual's own variables."""
        return dict(look.THEMES[0]["variables"])

    def on_mount(self) -> None:
        """Open the overview and begin to read."""
        loop = asyncio.get_running_loop()
        self._handlers = {
            sign: signal.signal(sign, lambda number, _: self._end(loop, number))
            for sign in (signal.SIGTERM, signal.SIGHUP)
        }
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

    async def on_event(self, event: events.Event) -> None:
        """Clean what is pasted before any widget gets it: it may come from a customer."""
        if isinstance(event, events.Paste) and not event.is_forwarded:
            event = events.Paste(clean(event.text, limit=_MOST_PASTED, newlines=True))
        await super().on_event(event)

    def is_settled(self) -> bool:
        """True once the view in front shows what it was asked for: a key that comes before would miss it.

        While something is typed into a field or a strip, and while Postgres is away, nothing is waited for.
        """
        view = self.view
        if view is None or self.screen is not view or self.trouble is not None or self.paused:
            return True
        return view.is_up and (view.typing() or view.question.is_open or view.is_settled)

    async def on_unmount(self) -> None:
        """Let go of the database, of the signals, and of what the garbage collector was kept from.

        What an operator has confirmed is carried out first, if Postgres takes it in time.
        """
        if self._writes:
            await asyncio.wait(self._writes, timeout=_WRITES_S)
        gc.unfreeze()
        for sign, handler in self._handlers.items():
            signal.signal(sign, handler)
        await self.desk.close()

    # The poller's front

    def reading(self) -> tuple[Reading | None, timedelta]:
        """What the view in front wants read."""
        view = self.view
        return (view.reading() if view else None), WINDOWS[self.window_name]

    @property
    def watched_plan(self) -> int | None:
        """The replay that the view in front shows the way of."""
        view = self.view
        return view.question.plan_id if view is not None and view.is_up else None

    def show(self, snapshot: Snapshot) -> None:
        """Hand a new snapshot to the view in front."""
        self.trouble = None
        if self.paused:
            return
        if self.snapshot is None:
            self.run_worker(self._build_views(), name="views")
        self.snapshot = snapshot
        if self.view is not None:
            self.view.take(snapshot)

    def exit(self, *args: Any, **more: Any) -> None:
        """End the console. From now on views are taken apart, or never become whole: nothing is painted any more."""
        self.is_leaving = True
        super().exit(*args, **more)

    async def _build_views(self) -> None:
        """Put the other views together while the first one is read, so that a first switch is as quick as any.

        What is there by then stays: it is taken out of the garbage collector's rounds, which would stop a key for
        40 ms now and then.
        """
        for name in VIEWS:
            await asyncio.sleep(_BUILD_AFTER_S)
            if self.is_leaving or not self.is_running:
                return
            await self._init_mode(name)
        gc.freeze()
        gc.set_threshold(*_COLLECT_AFTER)

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

    def read_now(self, *, afresh: bool = False) -> None:
        """Read at once: the view or what it wants has changed. `afresh`: also what rests because it took long."""
        self._poller.wake(afresh=afresh)

    def _tick(self) -> None:
        if self.view is not None:
            self.view.freshen()

    def delay_update(self, delay: float = 0.0) -> None:
        """Hold nothing back when views change: each paints what is known at once.

        Textual would hold every frame for 50 ms, to hide the steps in which a screen is put together.
        """

    # What every view can ask for

    def say(self, text: str, *, bad: bool = False) -> None:
        """Tell the operator something in passing, if he is still there. `text` is shown as text, never parsed."""
        if not self.screen_stack:
            return
        self.notify(clean(text, limit=_MOST_SAID), severity="error" if bad else "information", markup=False, timeout=6)

    def go(self, view: str) -> View:
        """Bring a view to the front and return it."""
        self._leave_what_is_on_top()
        self.switch_mode(view)
        self._leave_what_is_on_top()
        self.read_now()
        front = self.view
        assert front is not None
        if self.snapshot is not None:
            front.take(self.snapshot)
        return front

    def _leave_what_is_on_top(self) -> None:
        while isinstance(self.screen, View) and self.screen.ON_TOP:
            self.pop_screen()

    def carry_out(self, writing: Coroutine[Any, Any, None]) -> None:
        """Do what an operator has confirmed, whatever becomes of the view; what goes wrong is said."""

        async def told() -> None:
            try:
                await writing
            except RelayError as error:
                self.say(str(error), bad=True)

        task = asyncio.get_running_loop().create_task(told(), name="write")
        self._writes.add(task)
        task.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if not task.cancelled() and (defect := task.exception()) is not None and self.is_running:
            self._handle_exception(defect)  # type: ignore[arg-type] # as a worker's is

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
            yield SystemCommand(
                action.text, " ".join(map(shown_key, action.keys)), partial(self._run_on, view, action.name)
            )
        yield SystemCommand("Quit the console", "q on the overview", self.action_quit)

    def _run_on(self, view: View, action: str) -> None:
        self.run_worker(view.run_action(action), name=action)


__all__ = ["VIEWS", "WINDOWS", "ConsoleApp", "operator_name"]
