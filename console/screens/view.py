"""What every view is: a status line, a cause, a body, a docked question, the keys. One subclass a screen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, Static

from console.keymap import OVERVIEW, VIEWS, actions_of, shown_key
from console.render import formatting as words
from console.render import panels
from console.render.cause import cause_of
from console.widgets.lines import LineList
from console.widgets.question import Question

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget

    from console.app import ConsoleApp
    from console.data.snapshot import Reading, Snapshot
    from console.render.cause import Cause


WIDE = 110
"""From this width on there are two columns."""


Pane = TypeVar("Pane", bound="Widget")


def titled(pane: Pane, title: str) -> Pane:
    """`pane` with its name on its edge. It is named before it is mounted: a console that is quit may mount nothing."""
    pane.border_title = title
    return pane


class View(Screen[None]):
    """A screen that shows snapshots. `VIEW` is its name in the table of actions; `ON_TOP` of another it is opened."""

    VIEW: ClassVar[str]
    ON_TOP: ClassVar[bool] = False
    AUTO_FOCUS = "LineList"
    _painted_at: float | None = None

    def compose(self) -> ComposeResult:
        """Status on top, keys at the bottom, the view's own body between them."""
        yield Static(self._waiting(), id="status", markup=False)
        yield Static("", id="cause", markup=False)
        with Vertical(id="body"):
            yield from self.compose_body()
        yield Question(id="question")
        yield Static("", id="keys", markup=False)

    def compose_body(self) -> ComposeResult:
        """The view's own widgets."""
        raise NotImplementedError

    def reading(self) -> Reading | None:
        """What this view wants read beside the overview."""
        return None

    def paint(self, snapshot: Snapshot) -> None:
        """Show a snapshot in the body. `snapshot.view` is what `reading()` gave, if it is still that."""
        raise NotImplementedError

    # Shared behaviour

    @property
    def console(self) -> ConsoleApp:
        """The app."""
        return cast("ConsoleApp", self.app)

    @property
    def question(self) -> Question:
        """The docked strip that asks, and shows a replay's progress."""
        return self.query_one("#question", Question)

    @property
    def lines(self) -> LineList | None:
        """The list that the cursor is in: the focused one, else the first."""
        if isinstance(self.focused, LineList):
            return self.focused
        return next(iter(self.query(LineList)), None)

    @property
    def is_up(self) -> bool:
        """True while its widgets are there."""
        return self.is_mounted and self.is_running and self.app.is_running and not self.console.is_leaving

    @property
    def is_settled(self) -> bool:
        """True once it shows what it was asked for."""
        return self.console.snapshot is not None

    def take(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        if not self.is_up:
            return
        self.freshen()
        self.question.hear(min((relay.age_s for relay in snapshot.overview.alive), default=None))
        self.question.follow(snapshot.plans)
        if self.reading() is None or snapshot.reading == self.reading():
            self._painted_at = snapshot.read_at
        self.paint(snapshot)

    def freshen(self) -> None:
        """Paint what changes without new data: the data's age, and the state of the connection."""
        if not self.is_up:
            return
        app, snapshot = self.console, self.console.snapshot
        width = self.app.size.width
        self.query_one("#keys", Static).update(self._keys(width))
        cause = self.query_one("#cause", Static)
        cause.set_class(app.trouble is not None, "trouble")
        if snapshot is None:
            self.query_one("#status", Static).update(self._waiting())
            cause.update(Content(f"{app.trouble}. Trying again." if app.trouble else ""))
            return
        age_s = time.monotonic() - snapshot.read_at
        self.query_one("#status", Static).update(
            panels.status_line(
                snapshot,
                age_s=age_s,
                operator=app.operator,
                read_only=app.read_only,
                paused=app.paused,
                width=width,
                place=app.place,
            )
        )
        if app.trouble is not None:
            shown_s = time.monotonic() - (self._painted_at or snapshot.read_at)
            older = f", what is below {words.span(shown_s)}" if shown_s > age_s + 1 else ""
            cause.update(Content(f"{app.trouble}. Trying again; the figures are {int(age_s)} s old{older}."))
            cause.set_classes("bad trouble")
        else:
            found = cause_of(snapshot)
            cause.update(self._cause(found, width))
            cause.set_classes(found.level)

    def _waiting(self) -> Content:
        """What stands on top until something was read."""
        what = "nothing could be read yet" if self.console.trouble else "connecting to Postgres"
        return Content.assemble((" hotdash ", "bold reverse"), f" {what}")

    def _cause(self, cause: Cause, width: int) -> Content:
        sentence, hint = cause.fitting(width - 2), self.hint(cause)
        if len(sentence) + len(hint) + 2 > width:
            hint = ""
        return Content(f" {sentence}").truncate(max(10, width - 1), ellipsis=True) + Content.styled(hint, "dim")

    def hint(self, cause: Cause) -> str:
        """What stands behind the cause, where there is room: what a key does about it here."""
        del cause
        return ""

    def _keys(self, width: int) -> Content:
        views = [
            Content.assemble(
                (f"{number}", "bold $accent"), (f" {title}", "bold reverse" if view == self.VIEW else "$text-muted")
            )
            for number, (view, title) in enumerate(VIEWS.items(), start=1)
        ]
        shown = [
            Content.assemble((shown_key(action.keys[0]), "bold $accent"), (f" {action.label}", "$text-muted"))
            for action in actions_of(self.VIEW, read_only=self.console.read_only)
            if action.shown
        ]
        ways = Content(" ").join(views) + Content.styled(" │", "$text-muted")
        if width < WIDE:
            ways = Content.assemble(("1-6", "bold $accent"), (" views", "$text-muted"))
        while shown:
            line = Content(" ") + Content("  ").join([ways, *shown])
            if line.cell_length <= width:
                return line
            shown.pop(-2 if len(shown) > 1 else 0)
        return ways

    # Actions that every view has

    def action_view(self, name: str) -> None:
        """Go to a view."""
        self.console.go(name)

    def action_cursor(self, where: str) -> None:
        """Move the cursor."""
        if self.lines is not None:
            self.lines.move(where)

    def action_open(self) -> None:
        """Open what the cursor is on."""
        if self.lines is not None:
            self.lines.open()

    def action_back(self) -> None:
        """Back to the overview; from there nowhere: who presses it once too often stays."""
        if self.VIEW == OVERVIEW:
            self.console.say("q quits")
        else:
            self.console.go(OVERVIEW)

    def action_leave(self) -> None:
        """Back; from the overview, quit."""
        if self.VIEW == OVERVIEW:
            self.app.exit()
        else:
            self.action_back()

    def action_pause(self) -> None:
        """Stop painting, or go on."""
        self.console.paused = not self.console.paused
        self.console.say("Painting is paused; p goes on" if self.console.paused else "Painting goes on")
        self.freshen()
        self.console.read_now()

    def action_refresh_now(self) -> None:
        """Read anew."""
        self.console.read_now(afresh=True)

    def action_next_theme(self) -> None:
        """Switch the theme."""
        self.console.next_theme()

    def action_keys(self) -> None:
        """Show the keys of this screen."""
        from console.screens.keys import KeysScreen  # noqa: PLC0415 - loaded when it is first wanted

        self.app.push_screen(KeysScreen(self.VIEW, read_only=self.console.read_only))

    def action_check_health(self) -> None:
        """Run the runbook's health check and show its lines."""
        from console.flows.checks import run_health_check  # noqa: PLC0415 - loads an HTTP client when it is first wanted

        self.console.run_worker(run_health_check(self.console), group="check", exclusive=True)

    def action_diagnose(self) -> None:
        """Walk the runbook's troubleshooting."""
        from console.screens.diagnosis import DiagnosisView  # noqa: PLC0415 - loads an HTTP client when it is first wanted

        if not isinstance(self, DiagnosisView):
            self.app.push_screen(DiagnosisView())

    def action_escalate(self) -> None:
        """Gather the evidence, and show what would be filed."""
        from console.screens.escalation import EscalationView  # noqa: PLC0415 - loads an HTTP client when first wanted

        if not isinstance(self, EscalationView):
            self.app.push_screen(EscalationView())

    def action_test(self) -> None:
        """Choose an event and post it as a test webhook."""
        from console.flows.checks import ask_test_webhook  # noqa: PLC0415 - loads an HTTP client when it is first wanted

        ask_test_webhook(self)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Refuse writes with --read-only."""
        del parameters
        writes = {a.name for a in actions_of(self.VIEW, read_only=False) if a.write}
        return not (self.console.read_only and action in writes)

    def on_key(self, event: events.Key) -> None:
        """Say why a key for a write does nothing with --read-only."""
        writes = (action for action in actions_of(self.VIEW, read_only=False) if action.write)
        if self.console.read_only and any(event.key in action.keys for action in writes):
            self.console.say("The console is read-only: it changes nothing", bad=True)

    def on_screen_resume(self) -> None:
        """Show what is known at once, and read what this view wants."""
        if self.console.snapshot is not None:
            self.take(self.console.snapshot)
        self.console.read_now()

    def on_resize(self) -> None:
        """Lay the lines out anew for the new width."""
        if self.console.snapshot is not None:
            self.call_after_refresh(self._repaint)

    def _repaint(self) -> None:
        if self.console.snapshot is not None:
            self.take(self.console.snapshot)

    def typing(self) -> bool:
        """True while an input has the focus."""
        return isinstance(self.focused, Input)
