"""The questions that one screen asks on its strip, and which flow gets the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from console.widgets.question import Kind, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from console.widgets.question import Question


class Dialog:
    """Asks on the strip that `strip` returns. One question is open at a time; a new one replaces it."""

    def __init__(self, strip: Callable[[], Question]) -> None:
        self._strip = strip
        self._prompt: Prompt | None = None
        self._then: Callable[[str], object] | None = None
        self._dry_run: Callable[[], object] | None = None

    def ask(
        self,
        prompt: Prompt,
        then: Callable[[str], object] | None = None,
        *,
        dry_run: Callable[[], object] | None = None,
    ) -> None:
        """Ask. `then` gets the answer; `dry_run` is called on the key that `prompt` offers for it."""
        self._prompt, self._then, self._dry_run = prompt, then, dry_run
        self._strip().ask(prompt)

    def wait(self, title: str, what: str, follows: Kind | None = None) -> Prompt:
        """Open the strip while something is read or written; it keeps the keys that are typed in the meantime."""
        waiting = Prompt(title=title, lines=[Content(what)], kind=Kind.WAIT, follows=follows)
        self.ask(waiting)
        return waiting

    def shows(self, prompt: Prompt) -> bool:
        """Return True while `prompt` is open: not closed, and not replaced."""
        return self._strip().shows(prompt)

    def renew(self, shown: Prompt, lines: Sequence[Content]) -> Prompt:
        """Show other lines in `shown` if it is still open. Returns the prompt that is open then."""
        return self._strip().renew(shown, lines)

    def watch_plan(self, plan_id: int, *, enter_closes: bool = True) -> None:
        """Show a replay until it has ended and a key is pressed."""
        self._strip().watch_plan(plan_id, enter_closes=enter_closes)

    def close(self) -> None:
        """Close the strip."""
        self._strip().close()

    def answered(self, prompt: Prompt, answer: str) -> None:
        """Pass an answer on to the flow that asked."""
        if prompt is self._prompt and self._then is not None:
            self._then(answer)

    def tried(self, prompt: Prompt) -> None:
        """Start the dry run of the flow that asked."""
        if prompt is self._prompt and self._dry_run is not None:
            self._dry_run()
