"""What screens and flows ask of the app, as messages: navigation, notices, a fresh read, a confirmed write.

They are posted to the app itself, so that one from a screen that closes arrives all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence


class Say(Message):
    """Show a short notice, an error if `bad`. `text` is shown as text, never parsed."""

    def __init__(self, text: str, *, bad: bool = False) -> None:
        super().__init__()
        self.text = text
        self.bad = bad


class ReadNow(Message):
    """Read at once. With `afresh` also repeat a slow reading that is skipped for now."""

    def __init__(self, *, afresh: bool = False) -> None:
        super().__init__()
        self.afresh = afresh


class GoTo(Message):
    """Bring a view to the front; with `filter`, the rows of its list that it matches."""

    def __init__(self, view: str, *, filter: str | None = None) -> None:  # noqa: A002 - the operator's word
        super().__init__()
        self.view = view
        self.filter = filter


class GoBack(Message):
    """Close the screen in front if it lies on top of another, else go to the overview."""


class Open(Message):
    """Open a screen on top of the one in front. `console.screens.opening` knows which."""


class OpenDelivery(Open):
    """Open one delivery on top of the screen in front, with `answers` in full if wanted.

    `neighbours` are the rows of the list it was opened from.
    """

    def __init__(self, row_id: int, neighbours: Sequence[int] = (), *, answers: bool = False) -> None:
        super().__init__()
        self.answers = answers
        self.row_id = row_id
        self.neighbours = neighbours


class OpenConversation(Open):
    """Open a conversation on top of the screen in front."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__()
        self.conversation_id = conversation_id


class OpenBreakdown(Open):
    """Open the breakdown by event and inbox on top of the screen in front."""


class OpenDiagnosis(Open):
    """Open the diagnosis on top of the screen in front."""


class OpenEscalation(Open):
    """Open the escalation on top of the screen in front."""


class OpenHelp(Open):
    """Show the keys of a screen."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place


@dataclass(frozen=True, slots=True)
class Edit:
    """An edited payload. `is_accepted`: the operator continues to the replay; else the edit is kept for later."""

    text: str
    is_accepted: bool


class OpenEditor(Open):
    """Edit a payload, or continue the `draft` of it. `then` gets the edit, or None if none is left."""

    def __init__(self, body: bytes, draft: str | None, then: Callable[[Edit | None], None]) -> None:
        super().__init__()
        self.body = body
        self.draft = draft
        self.then = then


class CarryOut(Message):
    """Carry out a confirmed write, even if the operator quits the console. Errors are shown as notices."""

    def __init__(self, write: Callable[[], Coroutine[Any, Any, None]]) -> None:
        super().__init__()
        self.write = write


class Copy(Message):
    """Copy `text` to the operator's clipboard and show `notice`."""

    def __init__(self, text: str, notice: str) -> None:
        super().__init__()
        self.text = text
        self.notice = notice


class RunHealthCheck(Message):
    """Run the health check and show it on the health screen."""


class NextWindow(Message):
    """Switch the overview to the next window."""


class NextTheme(Message):
    """Switch to the next theme."""


class SwitchClock(Message):
    """Show times in UTC, or in this machine's zone."""


class PauseDisplay(Message):
    """Pause the display, or resume it."""


class Quit(Message):
    """End the console."""
