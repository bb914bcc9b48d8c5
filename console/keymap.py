"""Every key of the console, once: this table feeds bindings, footer, help, palette and README.

It holds only keys that every terminal and tmux pass on. It does not hold what a key does: screens and widgets do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textual.binding import Binding, BindingType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OVERVIEW, DEAD, DELIVERIES, LOG, HEALTH, ACTIVITY, DETAIL, CONVERSATION, BREAKDOWN, DIAGNOSIS, ESCALATION = (
    "overview",
    "dead",
    "deliveries",
    "log",
    "health",
    "activity",
    "detail",
    "conversation",
    "breakdown",
    "diagnosis",
    "escalation",
)
CONFIRMATION, PLAN, PROGRESS, SEARCH_BOX, EDITOR, HELP = (
    "confirmation",
    "plan",
    "progress",
    "search box",
    "editor",
    "help",
)
VIEWS = {
    OVERVIEW: "Overview",
    DEAD: "Dead letters",
    DELIVERIES: "Deliveries",
    LOG: "Log",
    HEALTH: "Health",
    ACTIVITY: "Activity",
}
"""The views that have a number."""
SCREENS = VIEWS | {
    DETAIL: "A delivery",
    CONVERSATION: "A conversation",
    BREAKDOWN: "Breakdown",
    DIAGNOSIS: "Diagnosis",
    ESCALATION: "Escalation",
}
"""The views, and the screens that open on top of them. An action of no `where` belongs to all of these."""
OVERLAYS = {
    CONFIRMATION: "Question strip",
    PLAN: "Replay plan",
    PROGRESS: "Replay strip",
    SEARCH_BOX: "Search box",
    EDITOR: "Payload editor",
    HELP: "Help",
}
"""What takes the keys while it is open."""
PLACES = SCREENS | OVERLAYS

_TYPED = frozenset(
    {
        "space", "slash", "asterisk", "question_mark", "right_square_bracket", "left_square_bracket", "plus",
        "equals_sign", "minus", "colon",
    }
)  # fmt: skip
"""Keys with a name that type a character."""
_PASSED = re.compile(
    r"[0-9A-Za-z]|ctrl\+[abcdefgklnoprstuvwxyz]|f([1-9]|1[0-2])|escape|enter|tab|backspace|delete|insert|home|end|page(up|down)"
    rf"|up|down|left|right|{'|'.join(sorted(_TYPED))}"
)
"""Keys that every terminal and tmux pass on: ctrl+h, ctrl+i, ctrl+j and ctrl+m are other keys to them, and ctrl+q is
Textual's.
"""


class KeymapError(Exception):
    """Keys that cannot be used. `slug` names the action."""

    def __init__(self, slug: str, fault: str) -> None:
        super().__init__(fault)
        self.slug = slug
        self.fault = fault


_TABLES = frozenset({DEAD, DELIVERIES, OVERVIEW, ACTIVITY, CONVERSATION, BREAKDOWN})
_ROWS = frozenset({DEAD, DELIVERIES})
_TEXTS = frozenset({LOG, DETAIL})
_LETTERS = frozenset({DEAD, DETAIL})


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do in the places `where` (None: on every screen).

    `name` is Textual's action string. `label` is its name in the footer, which has it if `shown`; `text` describes
    it in help, palette and README. A `write` changes something: it is hidden and refused with --read-only.
    A `conditional` one is possible at times only: the screen says when, and else the next action of its key runs.
    """

    keys: tuple[str, ...]
    name: str
    label: str
    text: str
    where: frozenset[str] | None = None
    write: bool = False
    shown: bool = False
    conditional: bool = False

    @property
    def slug(self) -> str:
        """Its name in the operator's configuration: `view_log` for `view('log')`."""
        return re.sub(r"\W+", "_", self.name.removeprefix("app.")).strip("_")

    @property
    def is_beside_text(self) -> bool:
        """True where a text is typed as well, so that its keys must type no character."""
        typing = self.where is not None and bool(self.where & {SEARCH_BOX, EDITOR, CONFIRMATION})
        return typing and all(len(key) > 1 and key not in _TYPED for key in self.keys)

    def belongs_to(self, place: str) -> bool:
        """True if it can be done in `place`."""
        return place in SCREENS if self.where is None else place in self.where


ACTIONS: tuple[Action, ...] = (
    *(
        Action((str(number),), f"view('{view}')", title, f"Go to {title.lower()}")
        for number, (view, title) in enumerate(VIEWS.items(), start=1)
    ),
    Action(("enter",), "open", "open", "Open what the cursor is on; on an alert, diagnose", where=_TABLES | {LOG},
           shown=True),
    Action(("tab",), "app.focus_next", "alerts", "To the alerts and back", where=frozenset({OVERVIEW})),
    Action(("tab",), "app.focus_next", "other list", "To the other list and back",
           where=frozenset({ACTIVITY, BREAKDOWN}), shown=True),
    Action(("escape", "left"), "back", "back", "Go back"),
    Action(("q",), "leave", "quit", "Go back; from the overview, quit"),
    Action(("slash",), "filter", "filter", "Filter the rows", where=_ROWS, shown=True),
    Action(("slash",), "find", "find", "Find in the text", where=_TEXTS, shown=True),
    Action(("r",), "replay", "replay", "Replay: marked, else current, else all of the group",
           where=_LETTERS | {OVERVIEW}, write=True, shown=True),
    Action(("R",), "replay_all", "replay all", "Replay all that match the filter",
           where=frozenset({DEAD}), write=True, shown=True),
    Action(("r",), "replay", "replay", "Replay the dead letters whose cause is gone",
           where=frozenset({DIAGNOSIS}), write=True, shown=True),
    Action(("y",), "file", "file it", "Append the entry to the report", where=frozenset({ESCALATION}), write=True,
           shown=True),
    Action(("s",), "severity", "severity", "Another severity", where=frozenset({ESCALATION}), shown=True),
    Action(("n",), "note", "reason", "Type a reason, which becomes part of the entry",
           where=frozenset({ESCALATION}), write=True, shown=True),
    Action(("e",), "edit", "edit", "Edit the payload, then replay it", where=_LETTERS, write=True, shown=True),
    Action(("d",), "discard", "discard", "Discard, with a reason", where=_LETTERS, write=True, shown=True),
    Action(("space",), "mark", "mark", "Mark or unmark the row", where=frozenset({DEAD}), shown=True),
    Action(("v",), "mark_range", "range", "Mark from the last mark to here", where=frozenset({DEAD})),
    Action(("asterisk",), "mark_all", "all", "Mark all that match the filter", where=frozenset({DEAD})),
    Action(("u",), "unmark", "none", "Unmark all", where=frozenset({DEAD})),
    Action(("c",), "conversation", "conversation", "All deliveries of this conversation, as a timeline",
           where=_ROWS | {DETAIL}, shown=True),
    Action(("J",), "next_delivery", "next", "The next delivery of the list", where=frozenset({DETAIL}), shown=True),
    Action(("K",), "previous_delivery", "previous", "The previous delivery of the list", where=frozenset({DETAIL}),
           shown=True),
    Action(("A",), "answers", "answers", "The agent's answers in full, or their beginning",
           where=_ROWS | {DETAIL}, shown=True),
    Action(("y",), "copy", "copy", "Copy payload or id to the clipboard", where=_ROWS | {DETAIL, LOG}),
    Action(("Y",), "copy_curl", "curl", "Copy as an equivalent curl command", where=_ROWS | {DETAIL}),
    Action(("E",), "export", "export", "Export all that is listed as JSON or CSV", where=_ROWS | {LOG}),
    Action(("P",), "pager", "pager", "Show all of this screen in $PAGER"),
    Action(("D",), "diagnose", "diagnose", "Diagnose: walk the runbook's troubleshooting", shown=True),
    Action(("x",), "stop_replay", "stop", "Stop the running replay under the cursor",
           where=frozenset({ACTIVITY}), write=True, shown=True, conditional=True),
    Action(("x",), "escalate", "escalate", "Escalate: gather the evidence and file it", write=True, shown=True),
    Action(("H",), "hold", "hold", "Hold forwarding with a reason, or release it", write=True),
    Action(("a",), "acknowledge", "acknowledge", "Acknowledge the worst alert, or that under the cursor",
           write=True),
    Action(("t",), "test_webhook", "test", "Post a test webhook and watch it go through", write=True, shown=True),
    Action(("h",), "check_health", "health", "Run the health check", shown=True),
    Action(("w",), "window", "window", "Switch the window: 15 min, 1 h, 6 h, 24 h",
           where=frozenset({OVERVIEW, BREAKDOWN}), shown=True),
    Action(("b",), "breakdown", "breakdown", "The window's deliveries by event and by inbox",
           where=_ROWS | {OVERVIEW}, shown=True),
    Action(("o",), "sort", "sort", "Sort by another column", where=_ROWS | {OVERVIEW}, shown=True),
    Action(("C",), "columns", "columns", "Choose the columns", where=_ROWS),
    Action(("z",), "zoom", "zoom", "Give the list all of the room, or take it back",
           where=frozenset({OVERVIEW, DEAD, ACTIVITY})),
    Action(("z",), "zoom", "zoom", "The payload alone, or all of it again", where=frozenset({DETAIL})),
    Action(("p",), "pause_replay", "pause", "Pause or resume the running replay under the cursor",
           where=frozenset({ACTIVITY}), write=True, conditional=True),
    Action(("p",), "pause_display", "pause", "Pause the display; p again resumes it"),
    Action(("f",), "follow", "follow", "Follow the log's end", where=frozenset({LOG}), shown=True),
    Action(("m",), "mark_line", "mark", "Mark the line", where=frozenset({LOG})),
    Action(("l",), "level", "level", "Least level shown: info, warning, error", where=frozenset({LOG}), shown=True),
    Action(("o",), "only", "only", "Only the lines that match the search, or all",
           where=frozenset({LOG}), shown=True),
    Action(("n",), "find_next", "next", "Next match", where=_TEXTS),
    Action(("N",), "find_previous", "previous", "Previous match", where=_TEXTS),
    Action(("right_square_bracket",), "next_failure", "next failure", "Next failure", where=frozenset({LOG})),
    Action(("left_square_bracket",), "previous_failure", "previous failure", "Previous failure",
           where=frozenset({LOG})),
    Action(("j", "down"), "cursor('down')", "down", "Down"),
    Action(("k", "up"), "cursor('up')", "up", "Up"),
    Action(("g", "home"), "cursor('top')", "top", "To the top"),
    Action(("G", "end"), "cursor('bottom')", "bottom", "To the bottom"),
    Action(("ctrl+d", "pagedown"), "cursor('page_down')", "page down", "A page down"),
    Action(("ctrl+u", "pageup"), "cursor('page_up')", "page up", "A page up"),
    Action(("ctrl+r",), "refresh_now", "refresh", "Refresh; never changes anything"),
    Action(("colon", "ctrl+p"), "app.command_palette", "palette", "Command palette: every action by name"),
    Action(("ctrl+z",), "app.suspend_process", "suspend", "Suspend the console; fg brings it back"),
    Action(("L",), "clock", "clock", "Times in UTC, or in this machine's zone"),
    Action(("T",), "next_theme", "theme", "Next theme"),
    Action(("question_mark", "f1"), "keys", "help", "The keys of this screen", shown=True),

    Action(("y",), "agree", "do it", "Do what is asked, of a single delivery or a short list",
           where=frozenset({CONFIRMATION}), write=True),
    Action(("plus", "equals_sign"), "faster", "faster", "Send faster", where=frozenset({PLAN}), write=True),
    Action(("minus",), "slower", "slower", "Send more slowly", where=frozenset({PLAN}), write=True),
    Action(("c",), "canary", "canary", "Another number of deliveries that go first", where=frozenset({PLAN}),
           write=True),
    Action(("s",), "stop_rule", "stop rule", "Another number of failures in a row that stop the replay",
           where=frozenset({PLAN}), write=True),
    Action(("i",), "include_answered", "answered", "Include or leave out what is answered in Chatwoot by now",
           where=frozenset({PLAN}), write=True),
    Action(("n",), "dry_run", "show", "Show what would be sent, send nothing, and come back to the plan",
           where=frozenset({PLAN}), write=True),
    Action(("question_mark", "f1"), "explain", "explain", "Explain the strip's keys; in a text, ? is a character",
           where=frozenset({CONFIRMATION})),
    Action(("enter",), "submit", "submit", "Submit the typed count or reason", where=frozenset({CONFIRMATION})),
    Action(("backspace",), "delete_left", "delete", "Delete the last character typed", where=frozenset({CONFIRMATION})),
    Action(("ctrl+u",), "delete_all", "clear", "Delete all that was typed", where=frozenset({CONFIRMATION})),
    Action(("escape", "ctrl+c"), "cancel", "cancel", "Cancel", where=frozenset({CONFIRMATION})),
    Action(("p",), "pause_replay", "pause", "Pause or resume the replay", where=frozenset({PROGRESS}), write=True),
    Action(("x", "ctrl+c"), "stop_replay", "stop", "Stop what was not sent yet", where=frozenset({PROGRESS}),
           write=True),
    Action(("escape", "q", "left"), "close", "close", "Close the strip; the replay continues",
           where=frozenset({PROGRESS})),
    Action(("space",), "close_ended", "close", "Close the strip once the replay has ended",
           where=frozenset({PROGRESS})),
    Action(("enter",), "list_ended", "list", "List the deliveries of the replay once it has ended",
           where=frozenset({PROGRESS})),
    Action(("enter",), "submit", "submit", "Apply the filter or start the search", where=frozenset({SEARCH_BOX})),
    Action(("tab",), "complete", "complete", "Complete the last word; what occurs comes with its count",
           where=frozenset({SEARCH_BOX})),
    Action(("up",), "older", "older", "An older filter", where=frozenset({SEARCH_BOX})),
    Action(("down",), "newer", "newer", "A newer filter", where=frozenset({SEARCH_BOX})),
    Action(("escape",), "close_box", "close", "Close the box", where=frozenset({SEARCH_BOX})),
    Action(("ctrl+s", "f2"), "review", "review", "Show what was changed", where=frozenset({EDITOR})),
    Action(("ctrl+e",), "external", "$EDITOR", "Edit in $EDITOR", where=frozenset({EDITOR})),
    Action(("y",), "accept", "replay it", "Continue from the changes to the replay", where=frozenset({EDITOR}),
           write=True),
    Action(("escape",), "leave", "back", "Back from the changes to the editor; from there back, keeping the edit",
           where=frozenset({EDITOR})),
    Action(("ctrl+g", "f8"), "discard_edit", "discard", "Discard the edit", where=frozenset({EDITOR})),
    Action(("escape", "q", "question_mark", "f1", "enter", "left"), "dismiss", "close", "Close the help",
           where=frozenset({HELP})),
)  # fmt: skip

_MARKS = {
    "exclamation_mark": "!", "quotation_mark": '"', "number_sign": "#", "dollar_sign": "$", "percent_sign": "%",
    "ampersand": "&", "apostrophe": "'", "left_parenthesis": "(", "right_parenthesis": ")", "comma": ",",
    "full_stop": ".", "semicolon": ";", "less_than_sign": "<", "greater_than_sign": ">", "at": "@", "backslash": "\\",
    "circumflex_accent": "^", "underscore": "_", "grave_accent": "`", "left_curly_bracket": "{", "vertical_line": "|",
    "right_curly_bracket": "}", "tilde": "~",
}  # fmt: skip
"""Textual's names of the characters that the key map does not use, but the operator may."""
_SHOWN_KEYS = {
    "slash": "/",
    "asterisk": "*",
    "question_mark": "?",
    "right_square_bracket": "]",
    "left_square_bracket": "[",
    "escape": "esc",
    "left": "←",
    "up": "↑",
    "down": "↓",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "f1": "F1",
    "f2": "F2",
    "f8": "F8",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "colon": ":",
}


def shown_key(key: str) -> str:
    """Return how a key is written on the screen: `/` for `slash`."""
    if key in _SHOWN_KEYS:
        return _SHOWN_KEYS[key]
    return key.upper() if re.fullmatch(r"f\d+", key) else _MARKS.get(key, key)


class _Table:
    """The actions in use: those of `ACTIONS`, with the keys that the operator has chosen for them."""

    actions: tuple[Action, ...] = ACTIONS


def use_keys(chosen: Mapping[str, tuple[str, ...]]) -> None:
    """Give actions other keys, by their `slug`. To be called before any screen is imported: classes hold bindings.

    Raises:
        KeymapError: there is no such action, a key is none that every terminal passes, or two actions share one.
    """
    _Table.actions = rebound(chosen)


def rebound(chosen: Mapping[str, tuple[str, ...]]) -> tuple[Action, ...]:
    """Return `ACTIONS` with the keys chosen.

    Raises:
        KeymapError: as for `use_keys`.
    """
    known = {action.slug for action in ACTIONS}
    for slug, keys in chosen.items():
        if slug not in known:
            raise KeymapError(slug, "there is no such action; `console --keys` names them all")
        typed = any(action.slug == slug and action.is_beside_text for action in ACTIONS)
        for key in keys:
            if not _PASSED.fullmatch(key) and key not in _MARKS:
                raise KeymapError(slug, f"{shown_key(key)} is not a key that every terminal passes on")
            if typed and (len(key) == 1 or key in _TYPED or key in _MARKS):
                raise KeymapError(
                    slug, f"{shown_key(key)} types a character there; choose ctrl and a letter, or F1 to F12"
                )
    actions = tuple(
        replace(action, keys=chosen[action.slug]) if action.slug in chosen else action for action in ACTIONS
    )
    for place in PLACES:
        _check_clashes(place, actions, chosen)
    _check_confirmations(actions, chosen)
    return actions


def _check_confirmations(actions: tuple[Action, ...], chosen: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse keys by which pressing a key twice would begin and confirm a write."""
    confirming = [action for action in actions if action.slug in {"agree", "accept"}]
    for action in actions:
        for one in confirming:
            begins = action.write and action not in confirming and action.slug != "file"  # has no question of its own
            both = set(action.keys) & set(one.keys) if begins else set()
            slug = next((slug for slug in (one.slug, action.slug) if slug in chosen), None)
            if both and slug is not None:
                raise KeymapError(slug, f"{shown_key(min(both))} would begin {action.slug} and confirm it ({one.slug})")


def _check_clashes(place: str, actions: tuple[Action, ...], chosen: Mapping[str, tuple[str, ...]]) -> None:
    owners: dict[str, Action] = {}
    for action in actions:
        if not action.belongs_to(place):
            continue
        for key in action.keys:
            other = owners.setdefault(key, action)
            if other is not action and not other.conditional:
                slug = action.slug if action.slug in chosen else other.slug
                both = f"{other.slug} and {action.slug}"
                raise KeymapError(slug, f"{shown_key(key)} would be both {both} in {PLACES[place].lower()}")


def key_named(text: str) -> str:
    """Return Textual's name of a key as people write it: `slash` for `/`, `pagedown` for `PgDn`."""
    named = {shown.lower() if len(shown) > 1 else shown: key for key, shown in _SHOWN_KEYS.items()}
    named |= {mark: key for key, mark in _MARKS.items()}
    return named.get(text if len(text) == 1 else text.lower(), text if len(text) == 1 else text.lower())


def actions_of(place: str, *, read_only: bool) -> Iterator[Action]:
    """Return the actions of a place, in the table's order; without the writes when `read_only`."""
    return (action for action in _Table.actions if action.belongs_to(place) and not (read_only and action.write))


def action_of(place: str, key: str) -> str | None:
    """Return the name of the action that `key` has in a place; None if it has none there."""
    return next((action.name for action in _Table.actions if key in action.keys and action.belongs_to(place)), None)


def is_refused(place: str, key: str) -> bool:
    """Return True if `key` has only writes in a place: with --read-only it does nothing there."""
    writes = [action.write for action in _Table.actions if key in action.keys and action.belongs_to(place)]
    return bool(writes) and all(writes)


def bindings_of(place: str, *, priority: bool = False) -> list[BindingType]:
    """Return Textual's bindings of a place, writes included: with --read-only those say why they are refused.

    With `priority` the keys that type no character come before those of the focused widget.
    """
    return [
        Binding(
            ",".join(action.keys),
            action.name,
            action.label,
            show=action.shown,
            priority=priority and any(len(key) > 1 for key in action.keys),
        )
        for action in _Table.actions
        if action.belongs_to(place)
    ]


def key_table() -> list[str]:
    """Return every key as a line of text: the keys, the action's name in the configuration, what it does, where."""
    rows = []
    for action in _Table.actions:
        where = "" if action.where is None else f"  ({', '.join(PLACES[one] for one in PLACES if one in action.where)})"
        rows.append(f"{' '.join(map(shown_key, action.keys)):<16}  {action.slug:<18}  {action.text}{where}")
    return rows
