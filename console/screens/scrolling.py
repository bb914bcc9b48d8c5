"""Views that are one scroll instead of a list, and those that lie on top of another."""

from __future__ import annotations

from typing import ClassVar

from textual.containers import VerticalScroll

from console.flows.replay import Replaying


class ScrollingView(Replaying):
    """A view whose keys scroll `SCROLL`."""

    SCROLL: ClassVar[str]

    def action_cursor(self, where: str) -> None:
        """Scroll."""
        scroll = self.query_one(self.SCROLL, VerticalScroll)
        moves = {
            "up": scroll.scroll_up, "down": scroll.scroll_down, "page_up": scroll.scroll_page_up,
            "page_down": scroll.scroll_page_down, "top": scroll.scroll_home, "bottom": scroll.scroll_end,
        }  # fmt: skip
        moves[where](animate=False)

    def action_open(self) -> None:
        """There is nothing to open here."""


class OnTop(ScrollingView):
    """A view on top of the one that it was opened from."""

    ON_TOP = True

    def action_back(self) -> None:
        """Back to that one."""
        self.app.pop_screen()
        self.console.read_now()
