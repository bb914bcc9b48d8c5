"""What the strip can ask: the kinds of answers, and the keys that a question takes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from textual.content import Content

from console.actions import CONFIRMATION, PLAN
from console.key_names import shown_key
from console.keymap import actions_of
from console.render.wrapping import in_two_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from console.actions import Action


class Kind(Enum):
    """What an answer is."""

    YES = "yes"  # the key y
    COUNT = "count"  # the count, typed, and enter
    TEXT = "text"  # any text, and enter
    CHOICE = "choice"  # the number of one of the choices
    NOTICE = "notice"  # nothing: any key closes it
    WAIT = "wait"  # nothing yet: what is asked is being found out, or done; what is typed is kept for the question


_ANSWERS = {
    Kind.YES: {"agree"},
    Kind.COUNT: {"submit", "delete_left", "delete_all"},
    Kind.TEXT: {"submit", "delete_left", "delete_all"},
}


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

    def actions(self) -> list[Action]:
        """Return the actions that it takes: those that change it, those that answer it, and to cancel."""
        answers = _ANSWERS.get(self.kind, set()) | {"cancel"}
        changes = [action for action in actions_of(PLAN, read_only=False) if action.name in self.adjusts]
        return changes + [action for action in actions_of(CONFIRMATION, read_only=False) if action.name in answers]

    def explanation(self, width: int) -> list[Content]:
        """Return its keys with what they do, in rows of `width` cells."""
        rows: list[Content] = []
        for action in self.actions():
            keys = Content.styled(f"{' '.join(map(shown_key, action.keys)):>12}  ", "bold $accent")
            rows += in_two_columns(keys, Content(action.text), width)
        return rows
