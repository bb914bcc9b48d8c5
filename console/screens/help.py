"""The help: the keys of one screen, from the key map."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen

from console.actions import CONFIRMATION, HELP, OVERLAYS, PLAN, PROGRESS, SCREENS, SEARCH_BOX, VIEWS
from console.key_names import shown_key
from console.keymap import actions_of, bindings_of, key_of, view_key, view_keys
from console.render.wrapping import in_two_columns
from console.widgets.scrolling import scroll_by_key
from console.widgets.text import Text

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.events import Key

_WIDEST = 100
_UNBROKEN = "\N{NO-BREAK SPACE}"
_AROUND = 5  # borders, padding, the scrollbar
_FILTER = (
    "Filters: error:503  status:5xx  event:message_created  conv:77  inbox:3  id:0192f  replay:12  age:<1h  "
    'since:14:02  until:15:00  test:yes  payload.sender.name:jane*  word  !word  "two words"; '
    "age, since and until go by when it was received"
)


class HelpScreen(ModalScreen[None]):
    """Every key of one view. Any of its closing keys goes back."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of(HELP)

    def __init__(self, view: str, *, read_only: bool) -> None:
        super().__init__()
        self._view = view
        self._read_only = read_only

    def compose(self) -> ComposeResult:
        """Return the table of keys."""
        with VerticalScroll(id="keys-box") as box:
            box.border_title = Content(f"Keys: {SCREENS[self._view]}")
            box.border_subtitle = Content(f"{key_of(HELP, 'dismiss')} closes")
            yield Text(self._table())

    def on_key(self, event: Key) -> None:
        """Scroll by the keys that move the cursor."""
        if scroll_by_key(self.query_one("#keys-box", VerticalScroll), self._view, event.key):
            event.stop()

    def _table(self) -> Content:
        width = min(_WIDEST, self.app.size.width * 96 // 100) - _AROUND
        actions = list(actions_of(self._view, read_only=self._read_only))
        moves = [action for action in actions if action.name.startswith("cursor(")]
        lines = [
            _line(" ".join(shown_key(key) for key in action.keys), action.text, width)
            for action in actions
            if action not in moves and not action.name.startswith("view(")
        ]
        moving = "; ".join(move.text for move in moves)
        lines.append(_line(" ".join(shown_key(move.keys[0]) for move in moves), moving, width))
        views = [f"{view_key(view)} {title}".replace(" ", _UNBROKEN) for view, title in VIEWS.items()]
        lines.append(_line(view_keys(), "  ".join(views), width))
        lines += [Content(""), Content.styled(_FILTER, "$text-muted")]
        for overlay in (CONFIRMATION, PLAN, PROGRESS, SEARCH_BOX):
            lines += [Content(""), Content.styled(OVERLAYS[overlay], "bold")]
            lines += [
                _line(" ".join(shown_key(key) for key in action.keys), action.text, width)
                for action in actions_of(overlay, read_only=self._read_only)
            ]
        return Content("\n").join(lines)


def _line(keys: str, text: str, width: int) -> Content:
    return Content("\n").join(in_two_columns(Content.styled(f"{keys:>22}  ", "bold $accent"), Content(text), width))
