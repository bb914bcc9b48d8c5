"""The base of every screen: a status line, a headline, a body, the question strip and the footer of keys."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.events import Key
from textual.screen import Screen
from textual.widgets import Input, Static

from console.actions import ACTIVITY, DEAD, DELIVERIES, DIAGNOSIS, OVERVIEW, SEARCH_BOX
from console.data.operator_session import ReadOnlyError
from console.flows import requests
from console.flows.acknowledge import ask_acknowledge
from console.flows.dialog import Dialog
from console.flows.hold import ask_hold_or_release
from console.flows.pager import show_in_pager
from console.key_names import character_of
from console.keymap import action_of, actions_of, bindings_of, is_refused, key_of, view_key
from console.render.backlog import why_replays_wait
from console.render.head import connecting, head_of
from console.render.header import view_at
from console.render.trouble import plainly
from console.screens.footer import hints, own_first, ways
from console.screens.text_of import text_of
from console.widgets.key_bar import KeyBar
from console.widgets.lines import LineList
from console.widgets.question import Kind, Prompt, Question
from console.widgets.scrolling import scroll_to
from console.widgets.search_box import SearchBox
from console.widgets.text import Text, entitle
from relay.domain.format import plural
from relay.errors import RelayError
from relay.incident.cause import BAD, PRESENT
from relay.incident.cause import Kind as CauseKind

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from textual import events
    from textual.app import ComposeResult
    from textual.message import Message
    from textual.widget import Widget

    from console.actions import Action
    from console.data.context import Context
    from console.data.snapshot import Reading, Snapshot
    from relay.incident.cause import Headline


WIDE = 110
"""From this width on there are two columns."""


_SHOWN_IN = {CauseKind.RECOVERED: DEAD, CauseKind.DEAD_LETTERS: DEAD, CauseKind.REPLAY_RUNS: ACTIVITY}
"""The views that show what a headline is about."""

Pane = TypeVar("Pane", bound="Widget")


def titled(pane: Pane, title: str) -> Pane:
    """Return `pane` with a title on its edge, set before it is mounted: a console that is quit may never mount it."""
    entitle(pane, title)
    return pane


class View(Screen[None]):
    """A screen that shows snapshots. It is the host of its flows (`console.flows.host.Host`).

    `VIEW` is its name in the key map. It is opened on top of another screen if `ON_TOP`. With `SCROLL` the cursor keys
    scroll the `VerticalScroll` of that selector; without, they move the cursor of the list.
    """

    VIEW: ClassVar[str]
    ON_TOP: ClassVar[bool] = False
    SCROLL: ClassVar[str | None] = None
    AUTO_FOCUS = "LineList"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.dialog = Dialog(lambda: self.question)
        self._shown_at: float | None = None
        self._is_local_time = context.choices.is_local_time

    def __init_subclass__(cls, **given: Any) -> None:
        if "VIEW" in cls.__dict__:
            cls.BINDINGS = bindings_of(cls.VIEW)
        super().__init_subclass__(**given)

    def compose(self) -> ComposeResult:
        """Return the status line, the headline, the screen's own body, the strip and the footer."""
        yield Text(connecting(is_away=self.context.trouble is not None), id="status")
        yield Text("", id="cause")
        with Vertical(id="body"):
            yield from self.compose_body()
        yield Question(id="question", read_only=self.context.read_only)
        yield KeyBar(id="keys")

    def compose_body(self) -> ComposeResult:
        """Return the screen's own widgets."""
        raise NotImplementedError

    def reading(self) -> Reading | None:
        """Return what this screen reads besides the overview."""
        return None

    def paint(self, snapshot: Snapshot) -> None:
        """Show a snapshot in the body. `snapshot.view` is what `reading()` gave, if it has not changed since."""
        raise NotImplementedError

    # What flows and the app use

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
        """True while its widgets exist."""
        return self.is_mounted and self.is_running and self.app.is_running and not self.context.is_leaving

    @property
    def is_in_front(self) -> bool:
        """True while no other screen covers it."""
        return self.app.screen is self

    @property
    def is_settled(self) -> bool:
        """True once it shows what it was asked for: until then a key would find no row to act on."""
        snapshot, wanted = self.context.snapshot, self.reading()
        return snapshot is not None and (wanted is None or type(snapshot.reading) is type(wanted))

    @property
    def is_typed_into(self) -> bool:
        """True while an input has the focus."""
        return isinstance(self.focused, Input)

    def request(self, message: Message) -> None:
        """Send a message to the app, even while this screen closes."""
        self.app.post_message(message)

    def say(self, text: str, *, bad: bool = False) -> None:
        """Show a short notice."""
        self.request(requests.Say(text, bad=bad))

    def in_background(self, work: Coroutine[Any, Any, None], *, group: str = "reading") -> None:
        """Run `work` until the screen closes or other work of the same group begins; errors become notices."""

        async def run() -> None:
            try:
                await work
            except RelayError as error:
                self.say(plainly(error), bad=True)

        self.run_worker(run(), group=group, exclusive=True)

    # Painting

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        if not self.is_up:
            return
        if self._is_local_time != self.context.choices.is_local_time:
            self._is_local_time = self.context.choices.is_local_time
            self.forget()
        self.refresh_header()
        self.question.show_heartbeat(min((relay.age_s for relay in snapshot.overview.alive), default=None))
        self.question.show_wait(why_replays_wait(snapshot.overview.backlog))
        self.question.show_plans(snapshot.plans, self.context.pace)
        if self.reading() is None or snapshot.reading == self.reading():
            self._shown_at = snapshot.read_at
        self.paint(snapshot)

    def forget(self) -> None:
        """Forget what was read and is kept: its times are in another zone than those to come."""

    def show_again(self) -> None:
        """Show the last snapshot again, if there is one."""
        if self.context.snapshot is not None:
            self.show(self.context.snapshot)

    def refresh_header(self) -> None:
        """Show what changes without new data: the data's age, and the state of the connection."""
        if not self.is_up:
            return
        self.show_keys()
        head = head_of(self.context, self._shown_at, self.app.size.width, self.hint)
        self.query_one("#status", Static).update(head.status)
        cause = self.query_one("#cause", Static)
        cause.update(head.cause)
        cause.set_classes(head.classes)

    def hint(self, cause: Headline) -> str:
        """Return what a key does about the cause here, shown behind it where there is room."""
        if cause.kind is CauseKind.HELD and not self.context.read_only:
            return f"  {key_of(self.VIEW, 'hold')} releases"
        if (cause.level == BAD or cause.kind in PRESENT) and self.VIEW != DIAGNOSIS:
            return f"  {key_of(self.VIEW, 'diagnose')} says why"
        shows = _SHOWN_IN.get(cause.kind, self.VIEW)
        return "" if shows == self.VIEW else f"  {view_key(shows)} shows {'it' if shows == ACTIVITY else 'them'}"

    def show_keys(self) -> None:
        """Show the keys of what has the focus: the strip or the search box while one is open, else this screen."""
        if not self.is_up:
            return
        width = self.app.size.width
        taken = list(self.question.actions)
        if not taken and isinstance(self.focused, SearchBox):
            taken = self.focused.actions
        if taken:
            self.query_one(KeyBar).show([], hints(taken), width)
        else:
            shown = own_first(action for action in self.possible_actions() if action.shown)
            self.query_one(KeyBar).show(ways(self.VIEW, is_wide=width >= WIDE), hints(shown), width)

    async def on_key_bar_clicked(self, event: KeyBar.Clicked) -> None:
        """Do what the key does for what has the focus."""
        event.stop()
        if self.question.is_open:
            self.question.post_message(Key(event.key, character_of(event.key)))
        elif isinstance(self.focused, Input):
            await self.focused.run_action(action_of(SEARCH_BOX, event.key) or "")
        elif (action := next((one for one in self.possible_actions() if event.key in one.keys), None)) is not None:
            await self.run_action(action.name)

    def on_descendant_focus(self) -> None:
        """Show the keys of what has the focus."""
        self.call_after_refresh(self.show_keys)

    def possible_actions(self) -> Iterator[Action]:
        """Return the actions of this screen that are possible now, in the key map's order, one a key."""
        taken: set[str] = set()
        for action in actions_of(self.VIEW, read_only=self.context.read_only):
            if taken.isdisjoint(action.keys) and not (action.conditional and not self.is_possible(action.name)):
                taken.update(action.keys)
                yield action

    def is_possible(self, action: str) -> bool:
        """Return True if a conditional action is possible now."""
        del action
        return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Refuse writes with --read-only, and conditional actions that are not possible now."""
        del parameters
        known = [one for one in actions_of(self.VIEW, read_only=False) if one.name == action]
        if any(one.write for one in known) and self.context.read_only:
            return False
        return not any(one.conditional for one in known) or self.is_possible(action)

    # Events

    def on_click(self, event: events.Click) -> None:
        """Go to what a part of the top line is about, unless something is asked."""
        status, is_asked = self.query_one("#status", Text), self.question.is_open and self.question.plan_id is None
        if event.widget is status and not is_asked and isinstance(status.content, Content):
            view = view_at(status.content.plain, event.x)
            if view is not None:
                self.request(requests.GoTo(view))

    def on_key(self, event: events.Key) -> None:
        """Say why a key for a write does nothing with --read-only."""
        if self.context.read_only and is_refused(self.VIEW, event.key):
            self.say(str(ReadOnlyError()), bad=True)

    def on_screen_resume(self) -> None:
        """Show what is known at once, and read what this screen wants."""
        self.show_again()
        self.request(requests.ReadNow())

    def on_resize(self) -> None:
        """Lay the lines out for the new width."""
        if self.context.snapshot is not None:
            self.call_after_refresh(self.show_again)

    def on_question_answered(self, event: Question.Answered) -> None:
        """Pass the answer on to the flow that asked."""
        event.stop()
        self.dialog.answered(event.prompt, event.answer)

    def on_question_adjusted(self, event: Question.Adjusted) -> None:
        """Pass the action on to the flow that asked."""
        event.stop()
        self.dialog.adjusted(event.action)

    def on_question_listed(self, event: Question.Listed) -> None:
        """List the deliveries of a replay."""
        event.stop()
        self.request(requests.GoTo(DELIVERIES, filter=f"replay:{event.plan_id}"))

    def on_question_steered(self, event: Question.Steered) -> None:
        """Pause, resume or stop the replay on the strip."""
        event.stop()
        self.request(requests.CarryOut(partial(self.context.session.control, event.plan_id, event.control_wanted)))
        self.request(requests.ReadNow())

    # Actions that every screen has

    def action_view(self, name: str) -> None:
        """Go to a view."""
        self.request(requests.GoTo(name))

    def action_cursor(self, where: str) -> None:
        """Move the cursor, or scroll."""
        if self.SCROLL is None:
            if self.lines is not None:
                self.lines.move(where)
            return
        scroll_to(self.query_one(self.SCROLL, VerticalScroll), where)

    def action_open(self) -> None:
        """Open what the cursor is on."""
        if self.SCROLL is None and self.lines is not None:
            self.lines.open()

    def action_back(self) -> None:
        """Go back to the screen below, or to the overview. On the overview it quits nothing: a key too many is safe."""
        if self.VIEW != OVERVIEW:
            self.request(requests.GoBack())

    def action_leave(self) -> None:
        """Back; from the overview, quit."""
        if self.VIEW != OVERVIEW:
            self.action_back()
        else:
            self.quit()

    def quit(self) -> None:
        """Quit; while edited payloads are kept, ask first."""
        if self.context.drafts:
            lost = f"{plural(len(self.context.drafts), 'edited payload')} not sent. Quitting discards the edits."
            quits = Prompt(title="quit", lines=[Content(lost)], kind=Kind.YES)
            self.dialog.ask(quits, lambda _: self.request(requests.Quit()))
        else:
            self.request(requests.Quit())

    def action_pause_display(self) -> None:
        """Pause the display, or resume it."""
        self.request(requests.PauseDisplay())

    def action_refresh_now(self) -> None:
        """Refresh, slow readings included."""
        self.request(requests.ReadNow(afresh=True))

    def action_next_theme(self) -> None:
        """Switch the theme."""
        self.request(requests.NextTheme())

    def action_clock(self) -> None:
        """Show times in UTC, or in this machine's zone."""
        self.request(requests.SwitchClock())

    def action_check_health(self) -> None:
        """Run the runbook's health check and show its lines."""
        self.request(requests.RunHealthCheck())

    def action_diagnose(self) -> None:
        """Open the diagnosis."""
        self.request(requests.OpenDiagnosis())

    def action_escalate(self) -> None:
        """Open the escalation."""
        self.request(requests.OpenEscalation())

    def action_breakdown(self) -> None:
        """Open the breakdown by event and inbox."""
        self.request(requests.OpenBreakdown())

    def action_pager(self) -> None:
        """Show all of this screen in the operator's pager."""
        self.in_background(self._page(), group="pager")

    async def _page(self) -> None:
        await show_in_pager(self.app, await self.whole_text())
        self.refresh_header()
        self.request(requests.ReadNow())

    async def whole_text(self) -> str:
        """Return what the screen shows, whole, as text."""
        return text_of(self.query_one("#body"))

    def action_hold(self) -> None:
        """Hold forwarding, or release it."""
        ask_hold_or_release(self)

    def action_acknowledge(self) -> None:
        """Acknowledge the worst alert."""
        ask_acknowledge(self)

    def action_test_webhook(self) -> None:
        """Choose an event and post it as a test webhook."""
        from console.flows.test_webhook import ask_test_webhook  # noqa: PLC0415 - loads an HTTP client when first wanted

        ask_test_webhook(self)

    def action_keys(self) -> None:
        """Show the keys of this screen."""
        self.request(requests.OpenHelp(self.VIEW))
