"""The questions that one screen asks on its strip, and which flow gets the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from console.widgets.prompt import Kind, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from console.widgets.question import Question


class Dialog:
    """Asks on the strip that `strip` returns. One question is open at a time; a new one replaces it."""

    def __init__(self, strip: Callable[[], Question]) -> None:
        self._strip = strip
        self._prompt: Prompt | None = None
        self._then: Callable[[str], object] | None = None
        self._adjust: Callable[[str], object] | None = None

    def ask(
        self,
        prompt: Prompt,
        then: Callable[[str], object] | None = None,
        *,
        adjust: Callable[[str], object] | None = None,
    ) -> None:
        """Ask. `then` gets the answer; `adjust` gets the name of each action that `prompt` offers besides."""
        self._prompt, self._then, self._adjust = prompt, then, adjust
        self._strip().ask(prompt)

    def wait(self, title: str, what: str, follows: Kind | None = None) -> Prompt:
        """Open the strip while something is read or written; it keeps the keys that are typed in the meantime."""
        waiting = Prompt(title=title, lines=[Content(what)], kind=Kind.WAIT, follows=follows)
        self.ask(waiting)
        return waiting

    def shows(self, prompt: Prompt) -> bool:
        """Return True while `prompt` is open: not closed, and not replaced."""
        return self._strip().shows(prompt)

    def renew(
        self,
        shown: Prompt,
        lines: Sequence[Content],
        *,
        expected: str | None = None,
        adjusts: frozenset[str] | None = None,
    ) -> Prompt:
        """Show other lines in `shown` if it is still open. Returns the prompt that is open then."""
        renewed = self._strip().renew(shown, lines, expected=expected, adjusts=adjusts)
        if shown is self._prompt:
            self._prompt = renewed
        return renewed

    def show_aside(self, lines: Sequence[Content]) -> None:
        """Show `lines` in place of the question until a key is pressed."""
        self._strip().show_aside(lines)

    def watch_plan(self, plan_id: int) -> None:
        """Show a replay until the strip is closed."""
        self._strip().watch_plan(plan_id)

    def close(self) -> None:
        """Close the strip."""
        self._strip().close()

    def answered(self, prompt: Prompt, answer: str) -> None:
        """Pass an answer on to the flow that asked."""
        if prompt is self._prompt and self._then is not None:
            self._then(answer)

    def adjusted(self, action: str) -> None:
        """Pass an action on to the flow that asked."""
        # The question may have been renewed since the key was pressed.
        if self._adjust is not None and self._prompt is not None and action in self._prompt.adjusts:
            self._adjust(action)
