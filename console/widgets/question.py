"""The docked strip: asks before anything is sent, takes a reason, offers a choice, and shows a replay's progress.

Enter alone never confirms, nor does the key that opened it. Keys that mean nothing are ignored: only `esc` cancels.
The strip posts `Answered`, `Adjusted`, `Cancelled`, `Steered` and `Listed`; it knows neither who asks nor what an
answer does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from console.actions import CONFIRMATION, OVERVIEW, PLAN, PROGRESS
from console.key_names import shown_key
from console.keymap import action_of, actions_of, key_of
from console.render.formatting import QUIET_RELAY_S
from console.render.plans import plan_lines
from console.render.wrapping import hanging, in_two_columns
from console.widgets.text import entitle
from relay.store.replays import Control, PlanState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import RenderResult

    from console.actions import Action
    from console.data.plan_pace import PlanPace
    from relay.store.replays import Plan

_MAX_TYPED = 500
_MOST_ROWS, _LEAST_ROWS = 12, 3
_EDGES = 2
"""The strip's edge and the footer, in rows."""


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
    """What is asked. `adjusts` names the actions of a replay plan (`keymap.PLAN`) that it offers besides an answer.

    `follows` is the kind of the question after a wait: only what fits it can be typed ahead.
    """

    title: str
    lines: Sequence[Content]
    kind: Kind
    expected: str = ""
    choices: Sequence[str] = field(default=())
    adjusts: frozenset[str] = frozenset()
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

    class Answered(Message):
        """The operator has answered a prompt."""

        def __init__(self, prompt: Prompt, answer: str) -> None:
            super().__init__()
            self.prompt = prompt
            self.answer = answer

    class Adjusted(Message):
        """The operator wants a prompt adjusted, or shown, by one of the actions that it offers."""

        def __init__(self, prompt: Prompt, action: str) -> None:
            super().__init__()
            self.prompt = prompt
            self.action = action

    class Steered(Message):
        """The operator pauses, resumes or stops the replay that the strip shows."""

        def __init__(self, plan_id: int, control: Control) -> None:
            super().__init__()
            self.plan_id = plan_id
            self.control_wanted = control

    class Listed(Message):
        """The operator wants the deliveries of the replay that the strip shows as a list."""

        def __init__(self, plan_id: int) -> None:
            super().__init__()
            self.plan_id = plan_id

    def __init__(self, *, id: str | None = None, read_only: bool = False) -> None:  # noqa: A002
        super().__init__(id=id)
        self._read_only = read_only
        self._prompt: Prompt | None = None
        self._aside: Sequence[Content] = ()
        self._typed = ""
        self._wrong = ""
        self._plan: Plan | None = None
        self._plan_id: int | None = None
        self._quiet_s: float | None = 0.0
        self._left_s: float | None = None
        self._why_it_waits = ""
        self._came_from: Widget | None = None

    @property
    def is_open(self) -> bool:
        """True while it asks something or shows a replay."""
        return self._prompt is not None or self._plan_id is not None

    @property
    def plan_id(self) -> int | None:
        """The replay it shows."""
        return self._plan_id

    @property
    def actions(self) -> list[Action]:
        """What it takes now, as the key map has it; nothing while it is closed."""
        if self._prompt is not None:
            return _actions_of(self._prompt)
        if self._plan_id is None:
            return []
        idle = _WHILE_IT_RUNS if self._plan is not None and self._plan.ended else _ONCE_ENDED
        return [action for action in actions_of(PROGRESS, read_only=self._read_only) if action.name not in idle]

    def shows(self, prompt: Prompt) -> bool:
        """Return True while `prompt` is open: not closed, and not replaced."""
        return self._prompt is prompt

    def ask(self, prompt: Prompt) -> None:
        """Open with a question."""
        was_waiting = self._prompt is not None and self._prompt.kind is Kind.WAIT
        ahead = self._typed if was_waiting and self._prompt is not None and self._prompt.follows is prompt.kind else ""
        self._plan_id = self._plan = None
        self._prompt, self._typed, self._wrong, self._aside = prompt, ahead.rstrip("\n"), "", ()
        self._open(prompt.title, progress=False)
        if ahead.endswith("\n"):
            self._enter(prompt)

    def renew(
        self,
        shown: Prompt,
        lines: Sequence[Content],
        *,
        expected: str | None = None,
        adjusts: frozenset[str] | None = None,
    ) -> Prompt:
        """Show other lines in `shown` if it is still open. Returns the prompt that is open then.

        What was typed is kept unless another answer is `expected` now.
        """
        expected = shown.expected if expected is None else expected
        renewed = replace(shown, lines=lines, expected=expected, adjusts=shown.adjusts if adjusts is None else adjusts)
        if not self.shows(shown) or renewed == shown:
            return shown
        if expected != shown.expected:
            self._wrong = f"the count is {expected} now" if self._typed else ""
            self._typed = ""
        self._prompt = renewed
        self.refresh(layout=True)
        return self._prompt

    def show_aside(self, lines: Sequence[Content]) -> None:
        """Show `lines` in place of the question until a key is pressed; what was typed is kept."""
        self._aside = lines
        self.refresh(layout=True)

    def watch_plan(self, plan_id: int) -> None:
        """Show a replay until the strip is closed."""
        self._prompt, self._plan, self._plan_id, self._left_s = None, None, plan_id, None
        self._open(f"replay #{plan_id}", progress=True)

    def show_plans(self, plans: Sequence[Plan], pace: PlanPace) -> None:
        """Show the watched replay as it is in `plans`, with the time left at its measured `pace`."""
        plan = next((plan for plan in plans if plan.id == self._plan_id), None)
        if plan is not None and (plan != self._plan or self._left_s != pace.left_s(plan)):
            self._plan, self._left_s = plan, pace.left_s(plan)
            self.refresh(layout=True)

    def show_heartbeat(self, age_s: float | None) -> None:
        """Take the age of the newest relay heartbeat; None if no relay is alive."""
        quiet_s = 0.0 if age_s is not None and age_s <= QUIET_RELAY_S else age_s
        if quiet_s != self._quiet_s:
            self._quiet_s = quiet_s
            self.refresh(layout=True)

    def show_wait(self, why: str) -> None:
        """Take what keeps replays from being sent; empty while nothing does."""
        if why != self._why_it_waits:
            self._why_it_waits = why
            self.refresh(layout=True)

    def close(self) -> None:
        """Close; the focus goes back to where it was."""
        self._prompt = self._plan = self._plan_id = None
        self._aside = ()
        self.remove_class("open", "progress")
        self.screen.remove_class("asking")
        if self._came_from is not None and self._came_from.is_mounted:
            self.screen.set_focus(self._came_from)
        self._came_from = None

    def _open(self, title: str, *, progress: bool) -> None:
        if self.screen.focused is not self:
            self._came_from = self.screen.focused
        entitle(self, title.upper())
        self.add_class("open")
        self.screen.add_class("asking")
        self.set_class(progress, "progress")
        self.screen.set_focus(self)  # now: the next key may be waiting already
        self.refresh(layout=True)

    def render(self) -> RenderResult:
        """Return the strip's lines."""
        if self._prompt is not None and self._aside:
            back = Content.styled("nothing was sent; any key goes back", "$text-muted")
            return Content("\n").join([*self._fitted(self._aside), back])
        if self._prompt is not None:
            return Content("\n").join([*self._fitted(self._prompt.lines), self._last_line(self._prompt)])
        if self._plan is not None:
            lines = plan_lines(
                self._plan,
                self.size.width,
                self._quiet_s,
                self._left_s,
                self._why_it_waits,
                read_only=self._read_only,
            )
            return Content("\n").join(hanging(lines, max(20, self.size.width)))
        return Content.styled("waiting for a relay to claim it …" if self._plan_id else "", "$text-muted")

    def _fitted(self, lines: Sequence[Content]) -> list[Content]:
        """Return `lines` in rows; of too many, the first one and the last ones."""
        rows, most = hanging(lines, self._width), self._most_rows
        if len(rows) <= most:
            return rows
        return [rows[0], Content.styled("  …", "$text-muted"), *rows[-(most - 2) :]]

    @property
    def _width(self) -> int:
        return max(20, self.size.width or self.app.size.width - 2)

    @property
    def _most_rows(self) -> int:
        """The rows that there is room for: the head, the footer and the strip's own edge and last lines stay."""
        last = 0 if self._prompt is None else len(hanging([self._last_line(self._prompt)], self._width))
        head = sum(widget.outer_size.height for widget in self.screen.query("#status, #cause"))
        return max(_LEAST_ROWS, min(_MOST_ROWS, self.app.size.height - head - _EDGES - last))

    def _last_line(self, prompt: Prompt) -> Content:
        cursor = Content.styled("▏", "blink")
        cancels = f"{key_of(CONFIRMATION, 'cancel')} cancels"
        shows = f"{key_of(PLAN, 'dry_run')} shows {'it' if prompt.expected == '1' else 'them'} · "
        explains = f"{key_of(CONFIRMATION, 'explain')} explains · "
        ways = f"{shows if 'dry_run' in prompt.adjusts else ''}{explains}{cancels}"
        submit = key_of(CONFIRMATION, "submit")
        typed = (self._typed, "bold")
        wrong = (f"  {self._wrong}", "$text-error")
        if prompt.kind is Kind.YES:
            return Content.assemble((key_of(CONFIRMATION, "agree"), "bold $text-warning"), f" does it · {ways}")
        if prompt.kind is Kind.COUNT:
            how = f"type {prompt.expected} and {submit} · {ways} > "
            return Content.assemble((how, "$text-warning"), typed, cursor, wrong)
        if prompt.kind is Kind.TEXT:
            return Content.assemble((f"{submit} submits · {cancels} > ", "$text-warning"), typed, cursor, wrong)
        if prompt.kind is Kind.CHOICE:
            return Content.assemble((f"type its number; {cancels}", "$text-warning"))
        if prompt.kind is Kind.WAIT:
            return Content.assemble((f"{cancels}  ", "$text-muted"), (self._typed.replace("\n", " ⏎"), "bold"))
        return Content.styled("any key closes this", "$text-muted")

    def on_key(self, event: events.Key) -> None:
        """Take the keys while it is open; those that it does not know while it shows a replay go to the view."""
        if self._prompt is not None and action_of(OVERVIEW, event.key) != "app.suspend_process":
            event.stop()
            event.prevent_default()
            self._answer(self._prompt, event)
        elif self._plan_id is not None:
            self._steer(event)

    def _answer(self, prompt: Prompt, event: events.Key) -> None:
        action, character = action_of(CONFIRMATION, event.key), event.character or ""
        adjusts = action_of(PLAN, event.key)
        if self._aside:
            self._aside = ()
            self.refresh(layout=True)
            if not (prompt.kind is Kind.COUNT and character.isdigit()):
                return
        if action == "cancel" or prompt.kind is Kind.NOTICE:
            self.close()
        elif prompt.kind is Kind.WAIT:
            self._type_ahead(prompt, action, character)
        elif adjusts in prompt.adjusts:
            self.post_message(self.Adjusted(prompt, adjusts or ""))
        elif action == "explain" and prompt.kind is not Kind.TEXT:
            self.show_aside(_explanation(prompt, self._width))
        elif prompt.kind is Kind.YES:
            if action == "agree":
                self.close()
                self.post_message(self.Answered(prompt, character))
        elif prompt.kind is Kind.CHOICE:
            if character.isdecimal() and 1 <= int(character) <= len(prompt.choices):
                self.close()
                self.post_message(self.Answered(prompt, prompt.choices[int(character) - 1]))
        else:
            self._type(prompt, action, character)

    def _type_ahead(self, prompt: Prompt, action: str | None, character: str) -> None:
        """Keep a count with the enter behind it, or a text without its enter.

        A single key that confirms is not kept: the operator has not seen yet what it would confirm.
        """
        if action == "delete_left":
            self._typed = self._typed[:-1]
        elif self._typed.endswith("\n") or len(self._typed) >= _MAX_TYPED:
            return
        elif prompt.follows is Kind.COUNT:
            self._typed += "\n" if action == "submit" and self._typed else character if character.isdigit() else ""
        elif prompt.follows is Kind.TEXT and character.isprintable():
            self._typed += character
        self.refresh()

    def _type(self, prompt: Prompt, action: str | None, character: str) -> None:
        self._wrong = ""
        if action == "submit":
            self._enter(prompt)
            return
        if action == "delete_left":
            self._typed = self._typed[:-1]
        elif action == "delete_all":
            self._typed = ""
        elif character.isprintable() and character and len(self._typed) < _MAX_TYPED:
            if prompt.kind is Kind.COUNT and not character.isdigit():
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
            self.post_message(self.Answered(prompt, answer))
            return
        self.refresh(layout=True)

    def on_paste(self, event: events.Paste) -> None:
        """Take pasted text as typed text, except for a count, which has to be typed."""
        if self._prompt is not None and self._prompt.kind is Kind.TEXT:
            event.stop()
            self._typed = (self._typed + " ".join(event.text.split()))[:_MAX_TYPED]
            self.refresh(layout=True)

    def _steer(self, event: events.Key) -> None:
        action = next((action.name for action in self.actions if event.key in action.keys), None)
        ended = self._plan is not None and self._plan.ended
        if action == "close" or (action == "close_ended" and ended):
            self.close()
        elif action == "list_ended" and ended and self._plan_id is not None:
            self.post_message(self.Listed(self._plan_id))
            self.close()
        elif action == "stop_replay" and not ended and self._plan_id is not None:
            self.post_message(self.Steered(self._plan_id, Control.STOP))
        elif action == "pause_replay" and not ended and self._plan is not None:
            paused = self._plan.state is PlanState.PAUSED
            self.post_message(self.Steered(self._plan.id, Control.RESUME if paused else Control.PAUSE))
        else:
            return
        event.stop()
        event.prevent_default()


_ONCE_ENDED = {"close_ended", "list_ended"}
_WHILE_IT_RUNS = {"pause_replay", "stop_replay"}
_ANSWERS = {
    Kind.YES: {"agree"},
    Kind.COUNT: {"submit", "delete_left", "delete_all"},
    Kind.TEXT: {"submit", "delete_left", "delete_all"},
}


def _actions_of(prompt: Prompt) -> list[Action]:
    """Return the actions that `prompt` takes: those that change it, those that answer it, and to cancel."""
    answers = _ANSWERS.get(prompt.kind, set()) | {"cancel"}
    changes = [action for action in actions_of(PLAN, read_only=False) if action.name in prompt.adjusts]
    return changes + [action for action in actions_of(CONFIRMATION, read_only=False) if action.name in answers]


def _explanation(prompt: Prompt, width: int) -> list[Content]:
    """Return the keys of `prompt` with what they do, in rows of `width` cells."""
    rows: list[Content] = []
    for action in _actions_of(prompt):
        keys = Content.styled(f"{' '.join(map(shown_key, action.keys)):>12}  ", "bold $accent")
        rows += in_two_columns(keys, Content(action.text), width)
    return rows
