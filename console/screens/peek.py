"""The side pane of a list of deliveries: attempts and payload of the row under the cursor."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from console.render.details import attempt_lines, headline, kept_edit, peek
from console.render.trouble import plainly
from console.render.wrapping import flowing, hanging
from console.widgets.text import Text
from relay.errors import RelayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult

    from console.flows.host import Host
    from relay.store.browse import Row
    from relay.store.delivery_detail import Detail

_REST_S = 0.15
"""A row is read once the cursor has been on it for so long."""


class Peek(VerticalScroll, can_focus=False):
    """Shows the row that `row` returns. `moved_at` returns when the cursor was moved last (`time.monotonic()`)."""

    def __init__(self, host: Host, row: Callable[[], Row | None], moved_at: Callable[[], float]) -> None:
        super().__init__(id="peek")
        self._host = host
        self._row = row
        self._moved_at = moved_at
        self._detail: Detail | None = None
        self._is_wanted = self._is_running = False

    def compose(self) -> ComposeResult:
        """One text."""
        yield Text("", id="peek-text")

    def follow(self) -> None:
        """Show the row under the cursor. A read under way ends first: none is broken off."""
        self._is_wanted = True
        if not self._is_running:
            self._is_running = True
            self.run_worker(self._run(), group="peek")

    async def _run(self) -> None:
        try:
            while self._is_wanted and self._host.is_up:
                self._is_wanted = False
                await self._show()
        finally:
            self._is_running = False

    async def _show(self) -> None:
        while (since_s := time.monotonic() - self._moved_at()) < _REST_S:
            await asyncio.sleep(_REST_S - since_s)
            if not self._host.is_up:
                return
        row, text = self._row(), self.query_one("#peek-text", Static)
        if row is None:
            text.update("")
            return
        known = self._detail
        if known is None or (known.row.id, known.row.run, known.row.state) != (row.id, row.run, row.state):
            try:
                known = await self._host.context.session.detail(row.id)
            except RelayError as error:
                text.update(Content(plainly(error)))
                return
            self._detail = known
        row = self._row() if self._host.is_up else None
        if known is None or row is None or row.id != known.row.id:
            return
        width = max(20, self.scrollable_content_region.width)
        lines = [
            *([kept_edit()] if row.id in self._host.context.drafts else []),
            *flowing(headline(known), width),
            *attempt_lines(known, width),
            Content(""),
            *peek(known).split("\n", allow_blank=True),
        ]
        text.update(Content("\n").join(hanging(lines, width)))
