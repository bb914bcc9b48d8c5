"""Every key of the console, once: this table feeds bindings, footer, help, palette and README.

Only keys that every terminal and tmux passes on. A `write` is hidden and refused with --read-only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.binding import Binding, BindingType

if TYPE_CHECKING:
    from collections.abc import Iterator

OVERVIEW, DEAD, DELIVERIES, LOG, HEALTH, ACTIVITY, DETAIL, DIAGNOSIS, ESCALATION = (
    "overview",
    "dead",
    "deliveries",
    "log",
    "health",
    "activity",
    "detail",
    "diagnosis",
    "escalation",
)
VIEWS = {
    OVERVIEW: "Overview",
    DEAD: "Dead letters",
    DELIVERIES: "Deliveries",
    LOG: "Log",
    HEALTH: "Health",
    ACTIVITY: "Activity",
}
TITLES = VIEWS | {DETAIL: "A delivery", DIAGNOSIS: "Diagnosis", ESCALATION: "Escalation"}
"""The views, and the screens that open on top of them."""

_TABLES = frozenset({DEAD, DELIVERIES, OVERVIEW, ACTIVITY})
_ROWS = frozenset({DEAD, DELIVERIES})
_TEXTS = frozenset({LOG, DETAIL})
ELSEWHERE = frozenset(TITLES) - {ACTIVITY}
_LETTERS = frozenset({DEAD, DETAIL})


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. `name` is Textual's action string, `where` the views it belongs to (None: all).

    `label` stands in the footer when `shown`; `text` in help and palette.
    """

    keys: tuple[str, ...]
    name: str
    label: str
    text: str
    where: frozenset[str] | None = None
    write: bool = False
    shown: bool = False

    def belongs_to(self, view: str) -> bool:
        """True if it can be done in `view`."""
        return self.where is None or view in self.where


ACTIONS: tuple[Action, ...] = (
    *(
        Action((str(number),), f"view('{view}')", title, f"Go to {title.lower()}")
        for number, (view, title) in enumerate(VIEWS.items(), start=1)
    ),
    Action(("enter",), "open", "open", "Open what the cursor is on; on an alert, diagnose", where=_TABLES | {LOG},
           shown=True),
    Action(("tab",), "app.focus_next", "alerts", "To the alerts and back", where=frozenset({OVERVIEW})),
    Action(("escape", "left"), "back", "back", "Go back"),
    Action(("q",), "leave", "quit", "Go back; from the overview, quit"),
    Action(("slash",), "filter", "filter", "Filter the rows", where=_ROWS, shown=True),
    Action(("slash",), "filter", "find", "Find in the text", where=_TEXTS, shown=True),
    Action(("r",), "replay", "replay", "Replay: marked, else current, else all of the group",
           where=_LETTERS | {OVERVIEW}, write=True, shown=True),
    Action(("R",), "replay_all", "replay all", "Replay all that match the filter",
           where=frozenset({DEAD}), write=True, shown=True),
    Action(("r",), "replay", "replay", "Replay the dead letters whose cause is gone",
           where=frozenset({DIAGNOSIS}), write=True, shown=True),
    Action(("y",), "file", "file it", "Append the entry to the report", where=frozenset({ESCALATION}), write=True,
           shown=True),
    Action(("s",), "severity", "severity", "Another severity", where=frozenset({ESCALATION}), shown=True),
    Action(("e",), "edit", "edit", "Edit the payload, then replay it", where=_LETTERS, write=True, shown=True),
    Action(("d",), "discard", "discard", "Discard, with a reason", where=_LETTERS, write=True, shown=True),
    Action(("space",), "mark", "mark", "Mark or unmark the row", where=frozenset({DEAD}), shown=True),
    Action(("v",), "mark_range", "range", "Mark from the last mark to here", where=frozenset({DEAD})),
    Action(("asterisk",), "mark_all", "all", "Mark all that match the filter", where=frozenset({DEAD})),
    Action(("u",), "unmark", "none", "Unmark all", where=frozenset({DEAD})),
    Action(("y",), "copy", "copy", "Copy payload or id to the clipboard", where=_ROWS | {DETAIL, LOG}),
    Action(("Y",), "copy_curl", "curl", "Copy as an equivalent curl command", where=_ROWS | {DETAIL}),
    Action(("D",), "diagnose", "diagnose", "Diagnose: walk the runbook's troubleshooting", shown=True),
    Action(("x",), "escalate", "escalate", "Stop the replay under the cursor while it runs; else escalate",
           where=frozenset({ACTIVITY}), write=True, shown=True),
    Action(("x",), "escalate", "escalate", "Escalate: gather the evidence and file it", where=ELSEWHERE, write=True,
           shown=True),
    Action(("t",), "test", "test", "Post a test webhook and watch it go through", write=True, shown=True),
    Action(("h",), "check_health", "health", "Run the health check", shown=True),
    Action(("w",), "window", "window", "Switch the window: 15 min, 1 h, 6 h, 24 h",
           where=frozenset({OVERVIEW}), shown=True),
    Action(("o",), "sort", "sort", "Sort the groups by another column", where=frozenset({OVERVIEW})),
    Action(("z",), "zoom", "zoom", "Give the list all of the room, or take it back",
           where=frozenset({OVERVIEW, DEAD})),
    Action(("z",), "zoom", "zoom", "The payload alone, or all of it again", where=frozenset({DETAIL})),
    Action(("p",), "pause", "pause", "Pause the replay under the cursor while it runs; else pause painting",
           where=frozenset({ACTIVITY})),
    Action(("p",), "pause", "pause", "Pause painting; p again goes on", where=ELSEWHERE),
    Action(("f",), "follow", "follow", "Follow the log's end", where=frozenset({LOG}), shown=True),
    Action(("m",), "mark_line", "mark", "Mark the line", where=frozenset({LOG})),
    Action(("l",), "level", "level", "Least level shown: info, warning, error", where=frozenset({LOG}), shown=True),
    Action(("o",), "only", "only", "Only the lines that match what is searched for, or all",
           where=frozenset({LOG}), shown=True),
    Action(("n",), "find_next", "next", "Next match", where=_TEXTS),
    Action(("N",), "find_previous", "previous", "Previous match", where=_TEXTS),
    Action(("right_square_bracket",), "next_failure", "next failure", "Next failure", where=frozenset({LOG})),
    Action(("left_square_bracket",), "previous_failure", "previous failure", "Previous failure",
           where=frozenset({LOG})),
    Action(("j",), "cursor('down')", "down", "Down"),
    Action(("k",), "cursor('up')", "up", "Up"),
    Action(("g",), "cursor('top')", "top", "To the top"),
    Action(("G",), "cursor('bottom')", "bottom", "To the bottom"),
    Action(("ctrl+d",), "cursor('page_down')", "page down", "A page down"),
    Action(("ctrl+u",), "cursor('page_up')", "page up", "A page up"),
    Action(("ctrl+r",), "refresh_now", "refresh", "Read anew; never changes anything"),
    Action(("colon", "ctrl+p"), "app.command_palette", "palette", "Command palette: every action by name"),
    Action(("T",), "next_theme", "theme", "Next theme"),
    Action(("question_mark", "f1"), "keys", "help", "The keys of this screen", shown=True),
)  # fmt: skip

_SHOWN_KEYS = {
    "slash": "/",
    "asterisk": "*",
    "question_mark": "?",
    "right_square_bracket": "]",
    "left_square_bracket": "[",
    "escape": "esc",
    "left": "←",
    "f1": "F1",
    "colon": ":",
}


def shown_key(key: str) -> str:
    """How a key is written on the screen: `/` for `slash`."""
    return _SHOWN_KEYS.get(key, key)


def actions_of(view: str, *, read_only: bool) -> Iterator[Action]:
    """The actions of a view, in the table's order; without the writes when `read_only`."""
    return (action for action in ACTIONS if action.belongs_to(view) and not (read_only and action.write))


def bindings_of(view: str) -> list[BindingType]:
    """Textual's bindings of a view, writes included: with --read-only those say why they are refused."""
    return [
        Binding(",".join(action.keys), action.name, action.label, show=action.shown)
        for action in ACTIONS
        if action.belongs_to(view)
    ]
