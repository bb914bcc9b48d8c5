"""Every action of the console, once, with its usual keys: this table feeds bindings, footer, help, palette and README.

It does not hold what an action does: screens and widgets do. Which keys are in use is in `console.keymap`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from console.key_names import types_character

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
        return typing and not any(map(types_character, self.keys))

    @property
    def is_everywhere(self) -> bool:
        """True if every screen has it."""
        return self.where is None

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
    Action(("p",), "pause_display", "pause", "Pause the display, or resume it"),
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
    Action(("question_mark", "f1"), "explain", "explain", "Explain the strip's keys; in a text it is a character",
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
