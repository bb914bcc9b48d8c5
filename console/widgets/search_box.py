"""A one-line box to type a filter or a search into. It is closed, and takes no room, until `open` is called.

The box holds text only: it does not search, and it does not know what the text means. The screen gives it a function
that checks the text, and handles its messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.message import Message
from textual.validation import ValidationResult, Validator
from textual.widgets import Input

from console.actions import SEARCH_BOX
from console.data.choices import MOST_CHARS
from console.keymap import actions_of, bindings_of
from relay.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual import events
    from textual.binding import BindingType

    from console.actions import Action

    Check = Callable[[str], str | None]
    """Returns what is wrong with a text, as a sentence for the operator; None if the text is valid."""


class SearchBox(Input):
    """A box that opens on a key, checks its text while it is typed, and closes on `enter` or `esc`.

    It holds `MOST_CHARS` characters at most and cuts longer text.

    `check` returns what is wrong with a text, or None; without it every text is valid. When the box closes, the widget
    that `returns_to` selects gets the focus.

    - `Changed` follows every change of the text, with the error if there is one.
    - `Submitted` follows `enter`; the box is closed by then. An invalid text leaves the box open and sends nothing.
    - `Asked` follows `tab` if the screen `completes` texts. `history` returns earlier texts, the newest first.
    - `Closed` follows `close`. A text that is invalid at that moment is replaced by the text from before `open`.

    Control characters and other characters that are not shown never get in, by key, by paste or by program: the box
    holds their visible names (`␛`) instead.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings_of(SEARCH_BOX)
    DEFAULT_CSS = """
    SearchBox { display: none; }
    SearchBox.-textual-compact { padding: 0 1; }
    SearchBox.open { display: block; }
    """

    class Changed(Input.Changed):
        """The text has changed."""

        @property
        def text(self) -> str:
            """The text now."""
            return self.value

        @property
        def error(self) -> str:
            """What is wrong with the text; empty if nothing is."""
            result = self.validation_result
            return "" if result is None else " ".join(result.failure_descriptions)

    class Submitted(Input.Submitted):
        """The operator pressed enter on a valid text. The box is closed."""

        @property
        def text(self) -> str:
            """The text."""
            return self.value

    class Asked(Message):
        """The operator wants the text completed."""

        def __init__(self, box: SearchBox) -> None:
            super().__init__()
            self.box = box

        @property
        def control(self) -> SearchBox:
            """The box."""
            return self.box

    class Closed(Message):
        """The box was closed without enter. `text` is valid: what was typed, else the text from before."""

        def __init__(self, box: SearchBox, text: str) -> None:
            super().__init__()
            self.box = box
            self.text = text

        @property
        def control(self) -> SearchBox:
            """The box."""
            return self.box

    def __init__(
        self,
        value: str = "",
        *,
        returns_to: str,
        check: Check | None = None,
        placeholder: str = "",
        history: Callable[[], Sequence[str]] | None = None,
        completes: bool = False,
        id: str | None = None,  # noqa: A002 - Textual's name
    ) -> None:
        validators = [] if check is None else [_Checked(check)]
        super().__init__(
            value, placeholder=placeholder, validators=validators, validate_on=["changed"], compact=True, id=id
        )
        self._check = check
        self._returns_to = returns_to
        self._text_before = value
        self._history = history
        self._completes = completes
        self._at = -1
        self._typed = ""

    @property
    def actions(self) -> list[Action]:
        """What it takes, as the key map has it: without history and completion where it has none."""
        lacks = set() if self._completes else {"complete"}
        lacks |= set() if self._history is not None else {"older", "newer"}
        return [action for action in actions_of(SEARCH_BOX, read_only=False) if action.name not in lacks]

    @property
    def is_open(self) -> bool:
        """True from `open` until the box closes, whether or not it has the focus."""
        return self.has_class("open")

    def open(self) -> None:
        """Show the box and give it the focus. Its text is selected, so that typing replaces it."""
        self._at = -1
        if not self.is_open:
            self._text_before = self.value
            self.add_class("open")
        self.focus()

    def close(self) -> None:
        """Close the box and post `Closed`. Does nothing if the box is closed."""
        if not self.is_open:
            return
        if self._error:
            self.value = self._text_before
        self._hide()
        self.post_message(self.Closed(self, self.value))

    def action_close_box(self) -> None:
        """Close the box."""
        self.close()

    def action_older(self) -> None:
        """Put an older text of the history in the box."""
        self._recall(1)

    def action_newer(self) -> None:
        """Put a newer text of the history in the box; after the newest, what was typed."""
        self._recall(-1)

    def _recall(self, step: int) -> None:
        known = () if self._history is None else self._history()
        at = max(-1, min(self._at + step, len(known) - 1))
        if at == self._at:
            return
        if self._at < 0:
            self._typed = self.value
        self._at = at
        self.value = known[at] if at >= 0 else self._typed
        self.cursor_position = len(self.value)

    def action_complete(self) -> None:
        """Ask the screen to complete the text."""
        if self._completes:
            self.post_message(self.Asked(self))

    async def action_submit(self) -> None:
        """Close the box and post `Submitted`, unless the text is invalid."""
        if not self._error:
            self._hide()
            self.post_message(self.Submitted(self, self.value))

    @property
    def _error(self) -> str | None:
        return None if self._check is None else self._check(self.value)

    def _hide(self) -> None:
        self.remove_class("open")
        self.screen.query_one(self._returns_to).focus()

    # What gets in

    def validate_value(self, value: str) -> str:
        """Return `value` as the box may hold it: clean, and not too long."""
        return _safe(value)

    def replace(self, text: str, start: int, end: int) -> None:
        """Put `text`, as far as there is room for it, in the place of what is between `start` and `end`."""
        low, high = sorted((start, end))
        room = MOST_CHARS - len(self.value) + (high - low)
        super().replace(_safe(text)[: max(0, room)], start, end)

    def on_paste(self, event: events.Paste) -> None:
        """Insert the first line of the pasted text that is not blank. The rest of the paste costs nothing."""
        event.stop()
        event.prevent_default()
        lines = event.text.lstrip()[:MOST_CHARS].splitlines()
        if lines:
            self.replace(lines[0], *self.selection)

    def action_paste(self) -> None:
        """Insert what the console copied last, cut in the same way as a paste."""
        lines = self.app.clipboard.lstrip()[:MOST_CHARS].splitlines()
        if lines:
            self.replace(lines[0], *self.selection)


class _Checked(Validator):
    """Textual's form of a `Check`."""

    def __init__(self, check: Check) -> None:
        super().__init__()
        self._check = check

    def validate(self, value: str) -> ValidationResult:
        error = self._check(value)
        return self.success() if error is None else self.failure(error)


def _safe(text: str) -> str:
    """Return the first `MOST_CHARS` characters of `text`, with visible names for invisible ones."""
    return clean(text[:MOST_CHARS], limit=None)[:MOST_CHARS]
