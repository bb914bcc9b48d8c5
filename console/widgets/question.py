"""The docked strip: it asks before anything is sent, takes a reason, offers a choice, and shows a replay's way.

Only what it asks for says yes: never enter alone, never the key that began it. Knows no SQL; whoever asks
gives the functions that are called with the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from console.render.formatting import QUIET_RELAY_S, plural, span
from console.render.wrapping import hanging
from relay.store.replays import Control, PlanState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual import events
    from textual.app import RenderResult

    from relay.store.replays import Plan

_MAX_TYPED = 500
_MOST_ROWS = 12


class Kind(Enum):
    """What an answer is."""

    YES = "yes"  # the key y
    COUNT = "count"  # the count, typed, and enter
    TEXT = "text"  # any text, and enter
    CHOICE = "choice"  # the number of one of the choices
    NOTICE = "notice"  # nothing: any key closes it
    WAIT = "wait"  # nothing yet: what is asked is being found out, or done; what is typed is kept for the question


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked. `then` gets the answer; `dry` is called on `n`, where there is something to try.

    `follows` is what will be asked after a wait: what is typed ahead has to fit.
    """

    title: str
    lines: Sequence[Content]
    kind: Kind
    then: Callable[[str], object] = lambda _: None
    expected: str = ""
    choices: Sequence[str] = field(default=())
    dry: Callable[[], object] | None = None
    follows: Kind | None = None


class Question(Widget, can_focus=True):
    """The strip. Closed, it takes no room."""

    DEFAULT_CSS = """
    Question {
        display: none;
        height: auto;
        max-height: 14;
        border-top: solid $warning;
        border-title-color: $warning;
        border-title-style: bold;
        background: $surface;
        padding: 0 1;
    }
    Question.open { display: block; }
    Question.progress { border-top: solid $primary; border-title-color: $primary; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._prompt: Prompt | None = None
        self._typed = ""
        self._wrong = ""
        self._plan: Plan | None = None
        self._plan_id: int | None = None
        self._quiet_s: float | None = 0.0
        self._control: Callable[[int, Control], object] = lambda *_: None
        self._came_from: Widget | None = None
        self._closes_when_ended: set[str] = set()

    @property
    def is_open(self) -> bool:
        """True while it asks something or shows a replay."""
        return self._prompt is not None or self._plan_id is not None

    @property
    def plan_id(self) -> int | None:
        """The replay it shows."""
        return self._plan_id

    def wait(self, title: str, what: str, follows: Kind | None = None) -> Prompt:
        """Open at once, while something is found out or done: keys pressed meanwhile are its own, not the view's."""
        waiting = Prompt(title=title, lines=[Content(what)], kind=Kind.WAIT, follows=follows)
        self.ask(waiting)
        return waiting

    def shows(self, prompt: Prompt) -> bool:
        """True while `prompt` is what is open: nobody has closed it, nothing else has taken its place."""
        return self._prompt is prompt

    def ask(self, prompt: Prompt) -> None:
        """Open with a question."""
        was_waiting = self._prompt is not None and self._prompt.kind is Kind.WAIT
        ahead = self._typed if was_waiting and self._prompt is not None and self._prompt.follows is prompt.kind else ""
        self._plan_id = self._plan = None
        self._prompt, self._typed, self._wrong = prompt, ahead.rstrip("\n"), ""
        self._open(prompt.title, progress=False)
        if ahead.endswith("\n"):
            self._enter(prompt)

    def renew(self, shown: Prompt, lines: Sequence[Content]) -> Prompt:
        """Show other lines in the place of those of `shown`, if that is still open. Returns what stands for it then."""
        if not self.shows(shown) or lines == shown.lines:
            return shown
        self._prompt = replace(shown, lines=lines)
        self.refresh(layout=True)
        return self._prompt

    def watch_plan(self, plan_id: int, control: Callable[[int, Control], object], *, enter_closes: bool = True) -> None:
        """Show a replay until it has ended and a key is pressed. `control` pauses, resumes and stops it."""
        self._closes_when_ended = {"enter", "space"} if enter_closes else {"space"}
        self._prompt, self._plan, self._plan_id, self._control = None, None, plan_id, control
        self._open(f"replay #{plan_id}", progress=True)

    def follow(self, plans: Sequence[Plan]) -> None:
        """Take the plans as they stand now."""
        plan = next((plan for plan in plans if plan.id == self._plan_id), None)
        if plan is not None and plan != self._plan:
            self._plan = plan
            self.refresh(layout=True)

    def hear(self, heard_s: float | None) -> None:
        """Take how long ago a relay was heard of; None if none is alive."""
        quiet_s = 0.0 if heard_s is not None and heard_s <= QUIET_RELAY_S else heard_s
        if quiet_s != self._quiet_s:
            self._quiet_s = quiet_s
            self.refresh(layout=True)

    def close(self) -> None:
        """Close; the focus goes back to where it was."""
        self._prompt = self._plan = self._plan_id = None
        self.remove_class("open", "progress")
        self.screen.remove_class("asking")
        if self._came_from is not None and self._came_from.is_mounted:
            self.screen.set_focus(self._came_from)
        self._came_from = None

    def _open(self, title: str, *, progress: bool) -> None:
        if self.screen.focused is not self:
            self._came_from = self.screen.focused
        self.border_title = title.upper()
        self.add_class("open")
        self.screen.add_class("asking")
        self.set_class(progress, "progress")
        self.screen.set_focus(self)  # now: the next key may be waiting already
        self.refresh(layout=True)

    def render(self) -> RenderResult:
        """The strip's lines."""
        if self._prompt is not None:
            return Content("\n").join([*self._fitted(self._prompt.lines), self._last_line(self._prompt)])
        if self._plan is not None:
            return Content("\n").join(plan_lines(self._plan, self.size.width, self._quiet_s))
        return Content.styled("waiting for a relay to take it on …" if self._plan_id else "", "$text-muted")

    def _fitted(self, lines: Sequence[Content]) -> list[Content]:
        """`lines` in rows, and of too many the first one and the last ones: the latest counts, and what to press."""
        rows = hanging(lines, max(20, (self.size.width or self.app.size.width - 2)))
        if len(rows) <= _MOST_ROWS:
            return rows
        return [rows[0], Content.styled("  …", "$text-muted"), *rows[-(_MOST_ROWS - 2) :]]

    def _last_line(self, prompt: Prompt) -> Content:
        cursor = Content.styled("▏", "blink")
        dry = "n dry run, " if prompt.dry else ""
        typed = (self._typed, "bold")
        wrong = (f"  {self._wrong}", "$text-error")
        if prompt.kind is Kind.YES:
            return Content.assemble(("y", "bold $text-warning"), f" does it, {dry}any other key cancels")
        if prompt.kind is Kind.COUNT:
            how = f"type {prompt.expected} and enter to run, {dry}esc cancels > "
            return Content.assemble((how, "$text-warning"), typed, cursor, wrong)
        if prompt.kind is Kind.TEXT:
            return Content.assemble(("and enter; esc cancels > ", "$text-warning"), typed, cursor, wrong)
        if prompt.kind is Kind.CHOICE:
            return Content.assemble(("type its number; any other key cancels", "$text-warning"))
        if prompt.kind is Kind.WAIT:
            return Content.assemble(("esc cancels  ", "$text-muted"), (self._typed.replace("\n", " ⏎"), "bold"))
        return Content.styled("any key closes this", "$text-muted")

    async def _on_key(self, event: events.Key) -> None:
        if self._prompt is not None:
            event.stop()
            event.prevent_default()
            self._answer(self._prompt, event)
        elif self._plan_id is not None:
            self._steer(event)

    def _answer(self, prompt: Prompt, event: events.Key) -> None:
        key, character = event.key, event.character or ""
        if key in {"escape", "ctrl+c"}:
            self.close()
        elif key == "n" and prompt.dry is not None and not self._typed:
            prompt.dry()
        elif prompt.kind is Kind.YES:
            self.close()
            if key == "y":
                prompt.then("y")
        elif prompt.kind is Kind.CHOICE:
            self.close()
            if character.isdigit() and 1 <= int(character) <= len(prompt.choices):
                prompt.then(prompt.choices[int(character) - 1])
        elif prompt.kind is Kind.NOTICE:
            self.close()
        elif prompt.kind is Kind.WAIT:
            self._type_ahead(prompt, key, character)
        else:
            self._type(prompt, key, character)

    def _type_ahead(self, prompt: Prompt, key: str, character: str) -> None:
        """Keep a count, and the enter behind it, or a text without its enter.

        Nor is a y kept: what it would agree to is not there to be seen.
        """
        if key == "backspace":
            self._typed = self._typed[:-1]
        elif self._typed.endswith("\n") or len(self._typed) >= _MAX_TYPED:
            return
        elif prompt.follows is Kind.COUNT:
            self._typed += "\n" if key == "enter" and self._typed else character if character.isdigit() else ""
        elif prompt.follows is Kind.TEXT and character.isprintable():
            self._typed += character
        self.refresh()

    def _type(self, prompt: Prompt, key: str, character: str) -> None:
        self._wrong = ""
        if key == "enter":
            self._enter(prompt)
            return
        if key == "backspace":
            self._typed = self._typed[:-1]
        elif key == "ctrl+u":
            self._typed = ""
        elif character.isprintable() and character and len(self._typed) < _MAX_TYPED:
            if prompt.kind is Kind.COUNT and not character.isdigit():
                self.close()
                return
            self._typed += character
        self.refresh(layout=True)

    def _enter(self, prompt: Prompt) -> None:
        answer = self._typed.strip()
        if prompt.kind is Kind.COUNT and answer != prompt.expected:
            self._wrong = f"that is not {prompt.expected}" if answer else f"type {prompt.expected} first"
            self._typed = ""
        elif not answer:
            self._wrong = "it needs some text"
        else:
            self.close()
            prompt.then(answer)
            return
        self.refresh(layout=True)

    def on_paste(self, event: events.Paste) -> None:
        """Pasted text is typed text; a count has to be typed."""
        if self._prompt is not None and self._prompt.kind is Kind.TEXT:
            event.stop()
            self._typed = (self._typed + " ".join(event.text.split()))[:_MAX_TYPED]
            self.refresh(layout=True)

    def _steer(self, event: events.Key) -> None:
        """Keys while a replay is shown; those it does not know go on to the view."""
        ended = self._plan is not None and self._plan.ended
        if event.key in {"escape", "q", "left"} or (ended and event.key in self._closes_when_ended):
            self.close()
        elif event.key in {"x", "ctrl+c"} and not ended and self._plan_id is not None:
            self._control(self._plan_id, Control.STOP)
        elif event.key == "p" and not ended and self._plan is not None:
            paused = self._plan.state is PlanState.PAUSED
            self._control(self._plan.id, Control.RESUME if paused else Control.PAUSE)
        else:
            return
        event.stop()
        event.prevent_default()


def plan_lines(plan: Plan, width: int, quiet_s: float | None) -> list[Content]:
    """A replay under way or at its end: how far, how fast, how long yet; at the end, the proof.

    `quiet_s` is for how long no relay was heard of, None if none is alive: there is nobody to send it.
    """
    from console.render.panels import progress  # noqa: PLC0415 - a chart's drawing is loaded when one is drawn

    counts = Content.assemble(
        progress(plan, max(10, min(40, width - 40))),
        (f" {plan.total - plan.left:,}/{plan.total:,} ", "bold"),
        (f"{plan.delivered:,} delivered", "$text-success bold" if plan.delivered else "$text-muted"),
        ("  ", ""),
        (f"{plan.dead:,} dead again", "$text-error bold" if plan.dead else "$text-muted"),
        (f"  {plan.skipped} skipped" if plan.skipped else "", "$text-muted"),
    )
    if plan.ended:
        return [counts, _verdict(plan)]
    how = Content.assemble(
        (f"{plan.state.value}", "$text-warning bold" if plan.state is PlanState.PAUSED else "bold"),
        f"  {plan.left:,} left",
        _pace(plan, quiet_s),
    )
    resume = "p goes on" if plan.state is PlanState.PAUSED else "p pauses"
    return [
        counts,
        how,
        Content.styled(f"{resume}, x stops what was not sent yet, esc leaves it running", "$text-muted"),
    ]


def _pace(plan: Plan, quiet_s: float | None) -> tuple[str, str]:
    """How fast it goes and how long it will take; or that there seems to be nobody who sends it."""
    if quiet_s is None:
        return "; no relay is running, so nobody sends them. Start one: `relay serve`", "$text-error bold"
    if quiet_s:
        return f"; no relay was heard of for {span(quiet_s)}, so it may stand still", "$text-warning bold"
    if plan.rate is None:
        return ", as fast as it goes", ""
    time = f", about {span(plan.left / plan.rate + 0.9)} left" if plan.state is PlanState.RUNNING else ""
    return f", up to {plan.rate:g}/s{time}", ""


def _verdict(plan: Plan) -> Content:
    if plan.state is PlanState.STOPPED:
        why = plan.stopped_why or "stopped"
        return Content.assemble(
            (f"Stopped: {why}. ", "$text-error bold"),
            f"{plural(plan.left, 'delivery')} not sent, or on their way. esc closes this",
        )
    if plan.delivered == plan.total:
        return Content.assemble((f"Done: all {plan.total:,} delivered.", "$text-success bold"), " esc closes this")
    dead = f"{plan.dead} dead again" if plan.dead else "none dead again"
    skipped = f", {plan.skipped} dealt with by somebody else" if plan.skipped else ""
    return Content.assemble((f"Done: {plan.delivered} delivered, {dead}{skipped}.", "bold"), " esc closes this")
