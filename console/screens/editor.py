"""The payload editor: JSON checked as it is typed, a diff against the original before it goes anywhere."""

from __future__ import annotations

import difflib
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static, TextArea

from console.actions import DETAIL, EDITOR
from console.flows.outside import command_of, run_outside
from console.flows.requests import Edit
from console.keymap import bindings_of, key_of
from console.widgets.scrolling import scroll_by_key
from console.widgets.text import Text
from relay.chatwoot.payload import BadBody, parse_object
from relay.domain.format import plural
from relay.errors import RelayError
from relay.text import HARMFUL, clean, pretty_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.events import Key

MOST_CHARS = 256 * 1024
"""Bigger payloads are edited in `$EDITOR`: Textual's editor takes seconds to load them."""

_CONTEXT = 2
_COMPARED = 1_000
_SHOWN = 500


def editable(body: bytes) -> str:
    """Return the payload as indented text to edit, with characters that are unsafe for a terminal as JSON escapes."""
    text = pretty_json(body.decode("utf-8", "replace"))
    return "\n".join(HARMFUL.sub(lambda found: _escaped(found.group()), line) for line in text.split("\n"))


def _escaped(character: str) -> str:
    """Return a character as a JSON escape in ASCII (RFC 8259 section 7)."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))


class EditorScreen(ModalScreen[Edit | None]):
    """Returns the edit, accepted or to be kept for later; None if nothing is changed, or the edit is discarded."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of(EDITOR, priority=True)

    def __init__(self, body: bytes, draft: str | None = None) -> None:
        super().__init__()
        self._original = editable(body)
        self._text = self._original if draft is None else draft
        self._reviewing = False

    def compose(self) -> ComposeResult:
        """Return the editor and the diff, one of which is visible, and the state line."""
        with Vertical(id="editor-box") as box:
            box.border_title = "Edit the payload, then replay it; the original is kept"
            fits = self._fits
            yield TextArea.code_editor(
                self._text if fits else "", id="editor", theme="css", soft_wrap=True, show_line_numbers=fits
            )
            with VerticalScroll(id="diff-scroll"):
                yield Text("", id="diff")
            yield Text("", id="editor-state")

    def on_mount(self) -> None:
        """Check the payload; open one that is too long for this editor in `$EDITOR` at once."""
        if not self.children:
            return  # the console is being quit
        self._check()
        if not self._fits:
            self.action_external()

    @property
    def _fits(self) -> bool:
        """True if this editor holds the text; a longer one is edited in `$EDITOR` alone."""
        return max(len(self._original), len(self._text)) <= MOST_CHARS

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        """Check the text after every change."""
        if self._fits:
            self._text = event.text_area.text
        self._check()

    def _fault(self) -> str | None:
        """Return why the text cannot be sent, or None."""
        try:
            parse_object(self._text.encode("utf-8", "surrogatepass"))
        except BadBody as error:
            return f"{error}{_place_of_fault(self._text)}"
        return None

    def _check(self) -> None:
        state = self.query_one("#editor-state", Static)
        fault = self._fault()
        changed, leave = self._text != self._original, key_of(EDITOR, "leave")
        if fault is not None:
            state.update(Content.assemble(("✗ ", "$text-error bold"), (fault, "$text-error")))
        elif self._reviewing:
            state.update(
                Content.assemble(
                    (key_of(EDITOR, "accept"), "bold $text-warning"),
                    f" continues to the replay, {leave} returns to the editor",
                )
            )
        else:
            what = "changed" if changed else "as it came"
            discard, review = key_of(EDITOR, "discard_edit"), key_of(EDITOR, "review")
            leaves = f"{leave} keeps the edit, {discard} discards it" if changed else f"{leave} goes back"
            keys = f"{review} reviews, {key_of(EDITOR, 'external')} opens $EDITOR, {leaves}"
            state.update(Content.assemble(("✓ ", "$text-success"), f"a JSON object, {what}. {keys}"))

    def action_review(self) -> None:
        """Show the diff."""
        if self._fault() is not None:
            return
        if self._text == self._original:
            unchanged = f"Nothing is changed; {key_of(DETAIL, 'replay')} replays it as it is."
            self.query_one("#editor-state", Static).update(Content(unchanged))
            return
        self._reviewing = True
        self.add_class("reviewing")
        self.query_one("#diff", Static).update(_diff(self._original, self._text))
        self.query_one("#diff-scroll").focus()
        self._check()

    def on_key(self, event: Key) -> None:
        """Scroll the diff by the keys that move the cursor elsewhere."""
        if self._reviewing and scroll_by_key(self.query_one("#diff-scroll", VerticalScroll), DETAIL, event.key):
            event.stop()

    def action_leave(self) -> None:
        """Go back from the diff to the editor; from the editor to the screen below, keeping the edit."""
        if self._reviewing:
            self._reviewing = False
            self.remove_class("reviewing")
            self.query_one("#editor").focus()
            self._check()
        else:
            self.dismiss(None if self._text == self._original else Edit(self._text, is_accepted=False))

    def action_discard_edit(self) -> None:
        """Discard the edit and go back."""
        self.dismiss(None)

    def action_accept(self) -> None:
        """Return the edit, accepted."""
        if self._reviewing:
            self.dismiss(Edit(self._text, is_accepted=True))

    def action_external(self) -> None:
        """Edit in `$EDITOR`."""
        self.run_worker(self._edit_outside(), exclusive=True)

    async def _edit_outside(self) -> None:
        with tempfile.TemporaryDirectory(prefix="payload-") as folder:
            path = Path(folder) / "payload.json"
            path.touch(mode=0o600)
            path.write_text(self._text, encoding="utf-8")
            try:
                command = command_of("VISUAL", "EDITOR", default="vi")
                await run_outside(self.app, [*command, str(path)], remedy="set EDITOR")
            except RelayError as error:
                self.app.notify(str(error), severity="error", markup=False)
                return
            try:
                self._text = path.read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                gone = f"The edited file cannot be read ({error.strerror}), so nothing is changed"
                self.app.notify(gone, severity="error", markup=False)
                return
        if self._fits:
            self.query_one("#editor", TextArea).text = self._text
        if self._text == self._original and not self._fits:
            self.dismiss(None)  # this editor never held the text, so there is nothing to go back to
            return
        self._check()
        self.action_review()


def _place_of_fault(text: str) -> str:
    """Return `: … at line 4, column 14` for a JSON syntax error; empty for any other fault."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f": {error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno}"
    except (ValueError, RecursionError):
        return ""
    return ""


def _diff(before: str, after: str) -> Content:
    """Return a unified diff. A very long one is cut and says how many lines are missing.

    Only the lines from the first to the last difference are compared: comparing takes quadratic time.
    """
    styles = {"+": "$text-success", "-": "$text-error", "@": "$text-accent"}
    old, new = before.splitlines(), after.splitlines()
    first = _alike(old, new)
    last = _alike(old[first:][::-1], new[first:][::-1])
    above, below = max(0, first - _CONTEXT), max(0, last - _CONTEXT)
    old, new = old[above : len(old) - below], new[above : len(new) - below]
    lines = [
        _renumbered(line, above)
        for line in difflib.unified_diff(old[:_COMPARED], new[:_COMPARED], lineterm="", n=_CONTEXT)
    ][2:]
    shown = [Content.styled(clean(line, limit=400), styles.get(line[:1], "$text-muted")) for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(
            Content.styled(f"… {plural(len(lines) - _SHOWN, 'more line')} of differences not shown", "$text-warning")
        )
    if max(len(old), len(new)) > _COMPARED:
        left_out = f"… {max(len(old), len(new)) - _COMPARED:,} more lines, some of which differ, are not compared"
        shown.append(Content.styled(left_out, "$text-warning"))
    return Content("\n").join(shown)


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many leading lines are equal."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def _renumbered(line: str, above: int) -> str:
    """Return a diff line with `above` added to its line numbers; only `@@ -3,5 +3,6 @@` lines have any."""
    if not line.startswith("@@"):
        return line
    return re.sub(r"([-+])(\d+)", lambda found: f"{found[1]}{int(found[2]) + above}", line)
