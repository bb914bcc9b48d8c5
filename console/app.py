"""The app: owns the poller, the operator session and the context, and carries out what screens ask for by messages.

It knows no SQL and paints nothing itself.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on
from textual.app import SystemCommand
from textual.filter import NoColor
from textual.screen import ModalScreen
from textual.theme import Theme
from textual.widgets import Input, TextArea

from console import theme as themes
from console.actions import HEALTH, OVERVIEW, VIEWS
from console.data.announcer import Announcer
from console.data.choices import Choices
from console.data.context import WINDOWS, Context, Trouble, operator_of, place_of
from console.data.operator_session import OperatorSession
from console.data.outage import outage_of
from console.data.poller import Poller
from console.data.writes import Writes
from console.flows import requests
from console.keymap import key_of
from console.render.trouble import plainly
from console.screens.opening import open_screen
from console.screens.prebuild import build_views
from console.screens.view import WIDE, View
from console.screens.views import CLASSES, bring_to_front, close_front, filter_list
from console.terminal.driver import TerminalDriver, show_title
from console.terminal.signals import EndSignals
from console.theme import ascii_of
from console.widgets.commands import Commands, commands_of
from console.widgets.question import Question
from console.widgets.type_ahead import TypeAhead
from relay.errors import RelayError
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta, tzinfo

    from rich.console import RenderableType
    from textual.command import Provider
    from textual.filter import LineFilter
    from textual.screen import Screen

    from console.data.context import HealthCheck
    from console.data.first_connection import FirstConnection
    from console.data.snapshot import Reading, Snapshot
    from relay.settings import Settings

_MAX_PASTED = 300_000
_MAX_PASTED_LINE = 4_000
_MAX_NOTICE = 500


class ConsoleApp(TypeAhead):
    """The operator console over the database at `dsn`.

    With `read_only` every write is hidden and refused, and the connections cannot write either. `has_figures` is set
    once a first snapshot was read. `has_panicked`: it ends because of a defect. `first` is a connection that is being
    opened already.
    """

    CSS_PATH = "console.tcss"
    TITLE = "hotdash"
    ENABLE_COMMAND_PALETTE = True
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - Textual's
    VERTICAL_BREAKPOINTS = [(0, "-low"), (20, "-short"), (30, "-tall")]  # noqa: RUF012 - Textual's

    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {Commands}

    def __init__(
        self,
        settings: Settings,
        dsn: str,
        *,
        read_only: bool = False,
        ascii_only: bool = False,
        mono: bool = False,
        choices: Choices | None = None,
        own_themes: Sequence[dict[str, Any]] = (),
        first: FirstConnection | None = None,
    ) -> None:
        super().__init__(driver_class=TerminalDriver if sys.stdin.isatty() else None)
        self.stylesheet = themes.ThemedStylesheet(variables=self.get_css_variables())
        choices = choices or Choices()
        self.context = Context(
            settings=settings,
            session=OperatorSession(settings, dsn, settings.operator, read_only=read_only, choices=choices),
            operator=operator_of(settings),
            place=place_of(settings, dsn),
            read_only=read_only,
            choices=choices,
        )
        self.has_figures = asyncio.Event()
        self.has_panicked = False
        self._poller = Poller(dsn, self, read_only=read_only, outage=partial(outage_of, settings), first=first)
        self._signals = EndSignals()
        self._writes = Writes(say=self._say_error, fail=self._fail)
        self._own_filters: list[LineFilter] = []
        self._announcer = Announcer(bell=self.bell, show_title=self._entitle)
        for name, view in CLASSES.items():
            self.add_mode(name, partial(view, self.context))
        self._themes = [theme["name"] for theme in (*themes.THEMES, *own_themes)]
        for theme in (*themes.THEMES, *own_themes):
            self.register_theme(Theme(**theme))
        self.theme = choices.theme if choices.theme in self._themes else themes.DEFAULT
        self._is_mono = mono or self.no_color
        if self._is_mono:
            self._own_filters.append(NoColor())
            self.add_class("no-color")
        elif self.console.color_system == "standard":
            self._own_filters.append(themes.SixteenColours())
            self.add_class("sixteen")
        if ascii_only:
            self._own_filters.append(themes.AsciiFilter())

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Return what every line passes through. Textual's own would turn colours into greys under NO_COLOR."""
        return self._own_filters if self._is_mono else [*super().get_line_filters(), *self._own_filters]

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return the variables that the layout needs besides Textual's own."""
        return dict(themes.THEMES[0]["variables"])

    # Beginning and end

    def on_mount(self) -> None:
        """Open the overview and begin to read."""
        self._signals.take(self.exit)
        # What stays the same is not painted again, and the shell has painted over it while the console was suspended.
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(layout=True))
        self.switch_mode(OVERVIEW)
        self.run_worker(self._poller.run(), name="poller", exit_on_error=True)
        self.set_interval(1.0, self._tick)

    def exit(self, *args: Any, **more: Any) -> None:
        """End the console. From here on screens may lack widgets, so nothing is painted."""
        self.context.is_leaving = True
        super().exit(*args, **more)

    def panic(self, *renderables: RenderableType) -> None:
        """End because of a defect. Textual would return 0 where it is in the thread that reads the terminal."""
        self.has_panicked = True
        super().panic(*renderables)

    async def on_unmount(self) -> None:
        """Finish the confirmed writes, if Postgres takes them in time; close the session, restore the signals."""
        await self._writes.finish()
        show_title(self._driver, None)
        gc.unfreeze()
        self._signals.give_back()
        await self.context.session.close()

    # Keys and pasted text

    async def on_event(self, event: events.Event) -> None:
        """Clean pasted text before any widget gets it: it may come from a customer. A list gets none."""
        if isinstance(event, events.Paste) and not event.is_forwarded:
            focused = self.focused
            if not isinstance(focused, (Input, TextArea, Question)):
                return
            limit = _MAX_PASTED if isinstance(focused, TextArea) else _MAX_PASTED_LINE
            event = events.Paste(clean(event.text[:limit], limit=limit, newlines=True))
        await super().on_event(event)

    def is_settled(self) -> bool:
        """Return True once the view in front shows what it was asked for: an earlier key would act on other rows.

        Nothing is waited for while the operator types into a box or a strip, and while Postgres is away.
        """
        view = self.view
        if view is None or self.screen is not view or self.context.trouble is not None or self.context.paused:
            return True
        return view.is_up and (view.is_typed_into or view.question.is_open or view.is_settled)

    def delay_update(self, delay: float = 0.0) -> None:
        """Do not delay frames when views change: a view paints the last snapshot at once.

        Textual would hold every frame for 50 ms to hide the steps in which it builds a screen.
        """

    # What the poller uses

    def reading(self) -> tuple[Reading | None, timedelta]:
        """Return what the view in front wants read, and the overview's window."""
        view = self.view
        return (view.reading() if view else None), self.context.window

    @property
    def zone(self) -> tzinfo | None:
        """The zone in which times are shown; None is this machine's."""
        return self.context.choices.zone

    @property
    def round_trip_s(self) -> float:
        """How long Postgres takes to answer nothing."""
        return self.context.round_trip_s

    @round_trip_s.setter
    def round_trip_s(self, seconds: float) -> None:
        self.context.round_trip_s = seconds

    @property
    def watched_plan(self) -> int | None:
        """Id of the replay that the strip of the view in front shows; None if it shows none."""
        view = self.view
        return view.question.plan_id if view is not None and view.is_up else None

    def show(self, snapshot: Snapshot) -> None:
        """Pass a new snapshot to the view in front."""
        self.context.trouble = None
        is_stopped = snapshot.overview.backlog.stopped is not None
        self.context.pace.take(snapshot.plans, snapshot.overview.at, is_stopped=is_stopped)
        self._announcer.take(snapshot, self.context.environment or self.context.place)
        if self.context.paused:
            return
        if self.context.snapshot is None:
            self.run_worker(build_views(self, list(VIEWS), lambda: not self.context.is_leaving), name="views")
            self.run_worker(self.context.session.open(), name="session")
        self.context.snapshot = snapshot
        if self.view is not None:
            self.view.show(snapshot)
        self.has_figures.set()

    def _entitle(self, title: str) -> None:
        show_title(self._driver, ascii_of(title, len(title)))

    def disconnected(self, reason: str, *, is_away: bool, headline: str | None = None) -> None:
        """Show that the database is away; the last snapshot stays on the screen, with its age."""
        before = self.context.trouble
        since = time.time() if before is None else before.since
        self.context.trouble = Trouble(reason, is_away=is_away, since=since, headline=headline)
        self._tick()

    def _tick(self) -> None:
        if self.view is not None:
            self.view.refresh_header()

    @property
    def view(self) -> View | None:
        """The view in front, also when a dialog covers it; None once the app ends."""
        if not self.is_running:
            return None
        return next((screen for screen in reversed(self.screen_stack) if isinstance(screen, View)), None)

    # What screens ask for

    def say(self, text: str, *, bad: bool = False) -> None:
        """Show a short notice. `text` is shown as text, never parsed."""
        if self.screen_stack:
            text = clean(text, limit=_MAX_NOTICE)
            self.clear_notifications()
            self.notify(text, severity="error" if bad else "information", markup=False, timeout=6)

    def _say_error(self, error: RelayError) -> None:
        self.say(plainly(error), bad=True)

    @on(requests.Say)
    def _say(self, asked: requests.Say) -> None:
        self.say(asked.text, bad=asked.bad)

    @on(requests.Copy)
    def _copy(self, asked: requests.Copy) -> None:
        self.copy_to_clipboard(asked.text)
        self.say(asked.notice)

    @on(requests.ReadNow)
    def _read_now(self, asked: requests.ReadNow) -> None:
        self._poller.wake(afresh=asked.afresh)

    @on(requests.GoTo)
    def _go_to(self, asked: requests.GoTo) -> None:
        self._go(asked.view)
        if asked.filter is not None:
            filter_list(self.view, asked.filter)

    @on(requests.GoBack)
    def _go_back(self) -> None:
        if isinstance(self.screen, View) and self.screen.ON_TOP:
            close_front(self)
            self._poller.wake()
        else:
            self._go(OVERVIEW)

    def _go(self, view: str) -> None:
        bring_to_front(self, view)
        self._poller.wake()
        if self.context.snapshot is not None and self.view is not None:
            self.view.show(self.context.snapshot)

    @on(requests.Open)
    def _open(self, asked: requests.Open) -> None:
        open_screen(self, self.context, asked)

    @on(requests.CarryOut)
    def _carry_out(self, asked: requests.CarryOut) -> None:
        self._writes.begin(asked.write)

    def _fail(self, task: asyncio.Task[None]) -> None:
        """End the console with a traceback if a write has a defect, as Textual does for its workers."""
        if self.is_running:
            self.call_next(task.result)

    @on(requests.RunHealthCheck)
    def _run_health_check(self) -> None:
        from console.flows.health_check import run_health_check  # noqa: PLC0415 - loads an HTTP client when first wanted

        async def run() -> None:
            try:
                await run_health_check(self.context, self._show_check)
            except RelayError as error:
                self._say_error(error)

        self._go(HEALTH)
        self.run_worker(run(), group="check", exclusive=True)

    def _show_check(self, check: HealthCheck) -> None:
        self.context.health_check = check
        self._tick()

    @on(requests.PauseDisplay)
    def _pause_display(self) -> None:
        self.context.paused = not self.context.paused
        resumes = key_of(OVERVIEW, "pause_display")
        self.say(f"Display paused; {resumes} resumes it" if self.context.paused else "Display resumed")
        self._tick()
        self._poller.wake()

    @on(requests.NextWindow)
    def _next_window(self) -> None:
        names = list(WINDOWS)
        self.context.window_name = names[(names.index(self.context.window_name) + 1) % len(names)]
        self._poller.wake()
        if self.view is not None:
            self.view.show_again()

    @on(requests.NextTheme)
    def _next_theme(self) -> None:
        self.theme = self._themes[(self._themes.index(self.theme) + 1) % len(self._themes)]
        self.context.choices.choose_theme(self.theme)

    @on(requests.SwitchClock)
    def _switch_clock(self) -> None:
        choices = self.context.choices
        choices.choose_clock(is_local_time=not choices.is_local_time)
        self.say("Times are this machine's; since: and until: in filters stay UTC" if choices.is_local_time
                 else "Times are UTC")  # fmt: skip
        self._poller.wake(afresh=True)

    async def action_quit(self) -> None:
        """Quit, by Textual's own key as well. The payload editor is left first, so that its edit is kept."""
        front, view = self.screen, self.view
        if isinstance(front, ModalScreen):
            if hasattr(front, "action_leave"):
                await front.run_action("leave")
                return
            front.dismiss(None)
        if view is None:
            self.exit()
        else:
            view.quit()

    def action_help_quit(self) -> None:
        """Say how to quit: ctrl+c does not, because a hand that copies or cancels may press it too often."""
        self.say(f"{key_of(OVERVIEW, 'leave')} on the overview quits")

    @on(requests.Quit)
    def _quit(self) -> None:
        self.exit()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Return every action of the view in front that is possible now, for the command palette."""
        view = screen if isinstance(screen, View) else self.view
        if view is None:
            return
        yield from commands_of(view.possible_actions(), view.VIEW, partial(self._run_on, view))
        yield SystemCommand("Quit the console", f"{key_of(OVERVIEW, 'leave')} on the overview", self.action_quit)

    def _run_on(self, view: View, action: str) -> None:
        self.run_worker(view.run_action(action), name=action)
